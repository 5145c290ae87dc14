//! A small generator, so that a seed repeats a run on every machine.

/// Words that are one token each in most vocabularies.
const WORDS: [&str; 32] = [
    "river", "stone", "light", "garden", "winter", "music", "window", "paper", "bread", "ocean", "mountain", "letter",
    "morning", "silver", "forest", "clock", "summer", "house", "table", "street", "circle", "water", "number", "metal",
    "engine", "field", "animal", "system", "market", "bridge", "party", "color",
];

/// splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n`, which is above 0, `n` not included.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From 0 to 1, 1 not included.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A time between two arrivals of a Poisson process with `rate` arrivals a second.
    pub(crate) fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.unit()).ln() / rate
    }

    /// About `n_tokens` tokens of common words.
    pub(crate) fn words(&mut self, n_tokens: usize) -> String {
        (0..n_tokens).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }
}

/// A seed for one part of a run, different for each.
pub(crate) fn seed_of(parts: &[u64]) -> u64 {
    parts.iter().fold(0x1234_5678, |seed, &part| Random(seed ^ part).next())
}

#[cfg(test)]
mod tests {
    use super::{Random, seed_of};

    #[test]
    fn a_seed_repeats_and_parts_differ() {
        let words = |seed| Random::new(seed).words(20);
        assert_eq!(words(7), words(7));
        assert_ne!(words(seed_of(&[1, 2])), words(seed_of(&[2, 1])));
    }

    #[test]
    fn arrivals_have_the_rate_that_was_asked_for() {
        let mut random = Random::new(3);
        let mean = (0..20_000).map(|_| random.exponential(4.0)).sum::<f64>() / 20_000.0;
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
    }
}
