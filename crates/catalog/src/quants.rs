//! Which of a repository's quantizations to take, when only the repository is named.

use ingle_gguf::ShardName;

/// A GGUF file of a repository, all parts together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quant {
    /// Paths of the parts, in order.
    pub paths: Vec<String>,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// Names of quantizations, from the one to prefer to the last resort. Four bits a weight lose little; what is larger is
/// taken only where there is nothing of that size, what is smaller only where the memory asks for it.
const PREFERRED: [&str; 25] = [
    "Q4_K_M", "Q4_K_S", "MXFP4", "IQ4_NL", "IQ4_XS", "Q4_K_L", "Q4_1", "Q4_0", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0",
    "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "IQ2_M", "BF16", "F16", "F32",
];

/// Files beside a model that are no models.
const COMPANIONS: [&str; 4] = ["mmproj", "imatrix", "lora", "adapter"];

/// Groups the GGUF files of a repository: parts of a split file belong together.
pub(crate) fn group(files: &[(String, u64)]) -> Vec<Quant> {
    let mut quants: Vec<Quant> = Vec::new();
    for (path, bytes) in files {
        let name = path.rsplit('/').next().unwrap_or(path);
        let lower = name.to_ascii_lowercase();
        if !lower.ends_with(".gguf") || COMPANIONS.iter().any(|word| lower.contains(word)) {
            continue;
        }
        match ShardName::parse(name) {
            None => quants.push(Quant { paths: vec![path.clone()], bytes: *bytes }),
            Some(shard) if shard.index == 0 => {
                let folder = &path[..path.len() - name.len()];
                let paths: Vec<String> = shard.all().into_iter().map(|part| format!("{folder}{part}")).collect();
                let size = |part: &String| files.iter().find(|(path, _)| path == part).map(|(_, bytes)| *bytes);
                // A part that is missing makes the whole useless.
                if let Some(sizes) = paths.iter().map(size).collect::<Option<Vec<u64>>>() {
                    quants.push(Quant { paths, bytes: sizes.iter().sum() });
                }
            }
            Some(_) => {}
        }
    }
    quants
}

/// Takes the quantization to prefer among those that fit into `memory_bytes` with a quarter to spare, and says why.
pub(crate) fn choose(mut quants: Vec<Quant>, memory_bytes: Option<u64>) -> Option<(Quant, String)> {
    let rank = |quant: &Quant| {
        let name = quant.paths[0].to_ascii_uppercase();
        PREFERRED.iter().position(|known| has_word(&name, known)).unwrap_or(PREFERRED.len())
    };
    quants.sort_by_key(|quant| (rank(quant), quant.bytes));
    let n_all = quants.len();
    let fits = |quant: &&Quant| memory_bytes.is_none_or(|memory| quant.bytes.saturating_mul(4) / 3 <= memory);
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let of_all = if n_all == 1 { "the only GGUF file".to_owned() } else { format!("one of {n_all} GGUF files") };
    if let Some(quant) = quants.iter().find(fits) {
        let why = match memory_bytes {
            Some(memory) => {
                format!("{of_all}; {} fit into the {} of memory", gigabytes(quant.bytes), gigabytes(memory))
            }
            None => of_all,
        };
        return Some((quant.clone(), why));
    }
    // Nothing fits well: the smallest may still do, and the loader will say if not.
    let smallest = quants.into_iter().min_by_key(|quant| quant.bytes)?;
    let memory = gigabytes(memory_bytes.unwrap_or(0));
    let why = format!("{of_all}, the smallest: none fits well into the {memory} of memory");
    Some((smallest, why))
}

/// Does `name` have `word` between marks? `Q4_K_M` is not in `IQ4_K_MX`.
fn has_word(name: &str, word: &str) -> bool {
    let is_mark = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
    name.match_indices(word)
        .any(|(at, _)| is_mark(name[..at].chars().next_back()) && is_mark(name[at + word.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, gb)| ((*name).to_owned(), gb * 1_000_000_000)).collect()
    }

    fn chosen(names: &[(&str, u64)], memory_gb: Option<u64>) -> Option<String> {
        let (quant, why) = choose(group(&files(names)), memory_gb.map(|gb| gb * 1_000_000_000))?;
        assert!(why.contains("GGUF file"), "{why}");
        Some(quant.paths[0].clone())
    }

    #[test]
    fn the_best_that_fits_is_taken() {
        let all = [
            ("m-F16.gguf", 60),
            ("m-Q8_0.gguf", 32),
            ("m-IQ4_XS.gguf", 16),
            ("m.Q4_K_M.gguf", 18),
            ("m-Q3_K_M.gguf", 14),
            ("m-Q2_K.gguf", 11),
            ("mmproj-F16.gguf", 1),
            ("README.md", 0),
        ];
        for (memory, expected) in [
            (Some(100), "m.Q4_K_M.gguf"),
            (Some(24), "m.Q4_K_M.gguf"),
            (Some(22), "m-IQ4_XS.gguf"),
            (Some(19), "m-Q3_K_M.gguf"),
            (Some(15), "m-Q2_K.gguf"),
            (Some(4), "m-Q2_K.gguf"),
            (None, "m.Q4_K_M.gguf"),
        ] {
            assert_eq!(chosen(&all, memory).as_deref(), Some(expected), "{memory:?}");
        }
        assert_eq!(chosen(&[("m-Q8_0.gguf", 8), ("m-F16.gguf", 16)], Some(64)).as_deref(), Some("m-Q8_0.gguf"));
        assert_eq!(chosen(&[("model.gguf", 8)], Some(64)).as_deref(), Some("model.gguf"));
        assert_eq!(chosen(&[("README.md", 1)], None), None);
    }

    #[test]
    fn split_files_count_as_one() {
        let parts = [
            ("q4/m-Q4_K_M-00001-of-00002.gguf", 20),
            ("q4/m-Q4_K_M-00002-of-00002.gguf", 20),
            ("m-Q8_0-00001-of-00002.gguf", 5),
        ];
        let quants = group(&files(&parts));
        assert_eq!(quants.len(), 1, "a part is missing of the other one");
        assert_eq!((quants[0].bytes, quants[0].paths.len()), (40_000_000_000, 2));
        assert!(has_word("A-Q4_K_M.GGUF", "Q4_K_M") && !has_word("A-IQ4_K_M.GGUF", "Q4_K_M"));
        assert!(!has_word("A-Q4_K_M_L.GGUF", "Q4_K_M"));
    }
}
