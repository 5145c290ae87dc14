//! `general.file_type`: the name of a quantization mix.

use std::fmt;

/// The quantization of most tensors, as `general.file_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileType(pub u32);

/// Id, the name that llama.cpp prints, and the short form used in file names.
const NAMES: [(u32, &str, &str); 36] = [
    (0, "all F32", "F32"),
    (1, "F16", "F16"),
    (2, "Q4_0", "Q4_0"),
    (3, "Q4_1", "Q4_1"),
    (7, "Q8_0", "Q8_0"),
    (8, "Q5_0", "Q5_0"),
    (9, "Q5_1", "Q5_1"),
    (10, "Q2_K - Medium", "Q2_K"),
    (11, "Q3_K - Small", "Q3_K_S"),
    (12, "Q3_K - Medium", "Q3_K_M"),
    (13, "Q3_K - Large", "Q3_K_L"),
    (14, "Q4_K - Small", "Q4_K_S"),
    (15, "Q4_K - Medium", "Q4_K_M"),
    (16, "Q5_K - Small", "Q5_K_S"),
    (17, "Q5_K - Medium", "Q5_K_M"),
    (18, "Q6_K", "Q6_K"),
    (19, "IQ2_XXS - 2.0625 bpw", "IQ2_XXS"),
    (20, "IQ2_XS - 2.3125 bpw", "IQ2_XS"),
    (21, "Q2_K - Small", "Q2_K_S"),
    (22, "IQ3_XS - 3.3 bpw", "IQ3_XS"),
    (23, "IQ3_XXS - 3.0625 bpw", "IQ3_XXS"),
    (24, "IQ1_S - 1.5625 bpw", "IQ1_S"),
    (25, "IQ4_NL - 4.5 bpw", "IQ4_NL"),
    (26, "IQ3_S - 3.4375 bpw", "IQ3_S"),
    (27, "IQ3_S mix - 3.66 bpw", "IQ3_M"),
    (28, "IQ2_S - 2.5 bpw", "IQ2_S"),
    (29, "IQ2_M - 2.7 bpw", "IQ2_M"),
    (30, "IQ4_XS - 4.25 bpw", "IQ4_XS"),
    (31, "IQ1_M - 1.75 bpw", "IQ1_M"),
    (32, "BF16", "BF16"),
    (36, "TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
    (37, "TQ2_0 - 2.06 bpw ternary", "TQ2_0"),
    (38, "MXFP4 MoE", "MXFP4_MOE"),
    (39, "NVFP4", "NVFP4"),
    (40, "Q1_0", "Q1_0"),
    (41, "Q2_0", "Q2_0"),
];

impl FileType {
    /// The long name, such as `Q4_K - Medium`; `None` for an unknown number.
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.1)
    }

    /// The short name, such as `Q4_K_M`.
    pub fn short_name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.2)
    }

    fn entry(self) -> Option<&'static (u32, &'static str, &'static str)> {
        NAMES.iter().find(|entry| entry.0 == self.0)
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.short_name() {
            Some(name) => f.write_str(name),
            None => write!(f, "file type {}", self.0),
        }
    }
}
