use super::Resampler;

fn tone(rate: u32, secs: f64) -> Vec<f32> {
    let n = (f64::from(rate) * secs) as usize;
    (0..n).map(|at| (at as f64 * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() as f32).collect()
}

#[test]
fn a_tone_stays_a_tone_in_time() {
    for (from, to) in [(44_100, 16_000), (8_000, 16_000), (192_000, 16_000), (22_050, 24_000), (16_000, 16_000)] {
        let mut resampler = Resampler::new(from, to);
        let mut found = Vec::new();
        for piece in tone(from, 1.0).chunks(777) {
            found.extend(resampler.push(piece));
        }
        found.extend(resampler.finish());
        assert!(found.len().abs_diff(to as usize) <= 1, "{from} to {to}: {} samples", found.len());
        let wanted = tone(to, 1.0);
        let middle = to as usize / 10..to as usize * 9 / 10;
        let worst = middle.map(|at| (found[at] - wanted[at]).abs()).fold(0.0, f32::max);
        // Delays are whole samples: a fraction of one is left.
        assert!(worst < 0.05, "{from} to {to}: {worst}");
    }
}

#[test]
fn nothing_becomes_nothing_and_one_sample_few() {
    assert!(Resampler::new(44_100, 16_000).finish().is_empty());
    let mut resampler = Resampler::new(8_000, 16_000);
    let mut found = resampler.push(&[0.5]);
    found.extend(resampler.finish());
    assert_eq!(found.len(), 2);
}
