//! What matrices take once more where ggml's processor backend lays them out anew for its own kernels.

use crate::{GgmlType, Header, ModelInfo, TensorInfo};

/// The second forms that ggml's processor backend gives matrices in main memory, by what that backend was compiled for.
/// All false: every matrix is used as it lies in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MatrixForms {
    /// The form for the matrix unit of x86 processors (`ggml-cpu/amx`). It comes before the others.
    pub amx: bool,
    /// Rows interleaved by four or eight (`ggml-cpu/repack.cpp`), for the instruction sets that follow.
    pub interleaved: bool,
    /// AVX2.
    pub avx2: bool,
    /// The foundation of AVX-512.
    pub avx512: bool,
    /// Arm's dot product of bytes (`dotprod`).
    pub dot_product: bool,
    /// Arm's product of matrices of bytes (`i8mm`).
    pub byte_matrices: bool,
}

/// Tables that rows are taken from: they stay as they are.
const TABLES: [&str; 4] = [EMBEDDINGS, "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"];
const EMBEDDINGS: &str = "token_embd.weight";

impl MatrixForms {
    /// Bytes that a model takes in main memory on top of [`ModelInfo::weight_bytes`]: what its matrices take more in their
    /// second form and, where it is mapped from its file, the mapping of the first form. llama.cpp keeps a file mapped from
    /// the first to the last tensor that is used as it lies there. `shards` are all files of the model that `info` describes.
    pub fn extra_bytes<'a>(
        &self,
        shards: impl IntoIterator<Item = &'a Header>,
        info: &ModelInfo,
        is_mapped: bool,
    ) -> u64 {
        // Encoders have no output matrix, and none takes its place.
        let is_bert = info.architecture.as_deref().is_some_and(|name| name.contains("bert"));
        let of_shard = |shard: &Header| self.extra_of(shard, info.is_output_tied && !is_bert, is_mapped);
        shards.into_iter().map(of_shard).fold(0, u64::saturating_add)
    }

    fn extra_of(&self, shard: &Header, is_output_tied: bool, is_mapped: bool) -> u64 {
        let (mut relaid, mut kept, mut whole, mut first, mut last) = (0_u64, 0_u64, 0_u64, u64::MAX, 0);
        for tensor in &shard.tensors {
            let is_table = TABLES.contains(&tensor.name.as_str());
            // The output matrix of such a model is the table once more.
            let is_used_twice = tensor.name == EMBEDDINGS && is_output_tied;
            let bytes = if is_table && !is_used_twice { 0 } else { self.bytes(tensor) };
            relaid = relaid.saturating_add(bytes);
            whole = whole.saturating_add(tensor.n_bytes);
            if is_table || bytes == 0 {
                kept = kept.saturating_add(tensor.n_bytes);
                first = first.min(tensor.offset);
                last = last.max(tensor.offset.saturating_add(tensor.n_bytes));
            }
        }
        let first_form = if is_mapped { last.saturating_sub(first) } else { kept };
        relaid.saturating_add(first_form).saturating_sub(whole)
    }

    /// Bytes of a tensor in its second form; 0 where it has none.
    fn bytes(&self, tensor: &TensorInfo) -> u64 {
        let n_dims = tensor.dims.iter().rposition(|&n| n > 1).map_or(0, |idx| idx + 1);
        // One matrix, those of all experts, or those of all heads.
        let (is_one, is_expert) = (n_dims == 2, n_dims == 3 && is_expert(&tensor.name));
        let in_amx = if self.amx && n_dims >= 2 && !is_expert { amx_bytes(tensor) } else { 0 };
        match in_amx {
            0 if (is_one || is_expert) && self.interleaves(tensor) => tensor.n_bytes,
            bytes => bytes,
        }
    }

    /// As `ggml_repack_get_optimal_repack_type` decides.
    fn interleaves(&self, tensor: &TensorInfo) -> bool {
        let by = |n: u64| tensor.dims.get(1).is_some_and(|n_out| n_out % n == 0);
        let arm = self.dot_product || self.byte_matrices;
        self.interleaved
            && match tensor.ggml_type {
                GgmlType::Q4_0 | GgmlType::IQ4_NL | GgmlType::MXFP4 => (self.avx2 && by(8)) || (arm && by(4)),
                GgmlType::Q4_K => (self.avx2 || arm) && by(8),
                GgmlType::Q2_K => self.avx512 && by(8),
                GgmlType::Q5_K | GgmlType::Q6_K => arm && by(8),
                GgmlType::Q8_0 | GgmlType::Q1_0 => arm && by(4),
                _ => false,
            }
    }
}

/// Bytes of a matrix as ggml lays it out for AMX (`amx/amx.cpp`, `amx/mmq.cpp`); 0 where it does not.
fn amx_bytes(tensor: &TensorInfo) -> u64 {
    let &[n_in, n_out, ..] = tensor.dims.as_slice() else { return 0 };
    // Elements that a row has a multiple of, bytes of a block of them, and what a block gets on top.
    let (step, block, extra) = match tensor.ggml_type {
        GgmlType::F16 => (16, 1, 0),
        GgmlType::Q4_0 | GgmlType::Q4_1 => (32, 1, 0),
        GgmlType::Q8_0 => (32, 34, 4),
        GgmlType::Q4_K => (256, 144, 4),
        GgmlType::Q5_K => (256, 176, 4),
        GgmlType::Q6_K => (256, 1, 0),
        GgmlType::IQ4_XS => (256, 136, 2),
        _ => return 0,
    };
    if n_in % step != 0 || n_out % 32 != 0 {
        return 0;
    }
    // ggml reserves room for the first matrix of several only, unless they stay as they are.
    let n_matrices =
        if tensor.ggml_type == GgmlType::F16 { 1 } else { tensor.dims[2..].iter().product::<u64>().max(1) };
    let n_bytes = tensor.n_bytes / n_matrices;
    n_bytes + n_bytes / block * extra
}

/// Is it one of the tensors that hold all experts of a block, such as `blk.3.ffn_up_exps.weight`?
pub(crate) fn is_expert(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with("ffn_") && (part.ends_with("_exps") || part.ends_with("_chexps")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::{Writer, tiny_llama};

    const AMX: MatrixForms = MatrixForms {
        amx: true,
        interleaved: true,
        avx2: true,
        avx512: true,
        dot_product: false,
        byte_matrices: false,
    };
    const AVX2: MatrixForms = MatrixForms { amx: false, avx512: false, ..AMX };
    const ARM: MatrixForms = MatrixForms { avx2: false, dot_product: true, ..AVX2 };

    type Tensors<'a> = &'a [(&'a str, &'a [u64], GgmlType)];

    fn extra(forms: MatrixForms, is_tied: bool, is_mapped: bool, tensors: Tensors<'_>) -> u64 {
        extra_of("llama", forms, is_tied, is_mapped, tensors)
    }

    fn extra_of(architecture: &str, forms: MatrixForms, is_tied: bool, is_mapped: bool, tensors: Tensors<'_>) -> u64 {
        let read = |bytes: Vec<u8>| Header::from_bytes(&bytes, bytes.len() as u64).unwrap();
        let mut info = read(tiny_llama().bytes()).validate().unwrap();
        (info.is_output_tied, info.architecture) = (is_tied, Some(architecture.into()));
        let mut writer = Writer::default();
        for (name, dims, ggml_type) in tensors {
            writer.tensor(name, dims, *ggml_type);
        }
        forms.extra_bytes([&read(writer.bytes())], &info, is_mapped)
    }

    /// A matrix between two tensors that stay: all of its second form comes on top.
    fn of_matrix(forms: MatrixForms, name: &str, dims: &[u64], ggml_type: GgmlType) -> u64 {
        let norm: &[u64] = &[8];
        let tensors =
            [("first.weight", norm, GgmlType::F32), (name, dims, ggml_type), ("last.weight", norm, GgmlType::F32)];
        extra(forms, false, true, &tensors)
    }

    #[test]
    fn each_processor_has_forms_of_its_own() {
        use GgmlType::{F16, F32, IQ4_NL, MXFP4, Q2_K, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0};
        let bytes = |ggml_type: GgmlType| ggml_type.bytes_for(256 * 64).unwrap();
        // What AMX, AVX2 and Arm take. 64 rows of 256: one large block or eight small ones each.
        for (ggml_type, amx, avx2, arm) in [
            (F32, 0, 0, 0),
            (F16, bytes(F16), 0, 0),
            (Q4_0, bytes(Q4_0), bytes(Q4_0), bytes(Q4_0)),
            (Q4_1, bytes(Q4_1), 0, 0),
            (Q8_0, bytes(Q8_0) + 64 * 8 * 4, 0, bytes(Q8_0)),
            (Q4_K, bytes(Q4_K) + 64 * 4, bytes(Q4_K), bytes(Q4_K)),
            (Q5_K, bytes(Q5_K) + 64 * 4, 0, bytes(Q5_K)),
            (Q6_K, bytes(Q6_K), 0, bytes(Q6_K)),
            // No kernels for AMX: interleaved there too.
            (IQ4_NL, bytes(IQ4_NL), bytes(IQ4_NL), bytes(IQ4_NL)),
            (MXFP4, bytes(MXFP4), bytes(MXFP4), bytes(MXFP4)),
            (Q2_K, bytes(Q2_K), 0, 0),
        ] {
            let taken = |forms| of_matrix(forms, "blk.0.attn_q.weight", &[256, 64], ggml_type);
            assert_eq!([taken(AMX), taken(AVX2), taken(ARM)], [amx, avx2, arm], "{ggml_type:?}");
            assert_eq!(taken(MatrixForms::default()), 0);
        }
    }

    #[test]
    fn shapes_decide_too() {
        let taken = |forms, name: &str, dims: &[u64]| of_matrix(forms, name, dims, GgmlType::Q4_K);
        // All experts of a block: interleaved, never for AMX.
        assert_eq!([AMX, AVX2].map(|forms| taken(forms, "blk.0.ffn_up_exps.weight", &[256, 64, 4])), [4 * 64 * 144; 2]);
        // Those of all heads: for AMX, which has room for the first one (b11434), never interleaved.
        assert_eq!([AMX, AVX2].map(|forms| taken(forms, "blk.0.attn_k_b.weight", &[256, 64, 4])), [64 * 148, 0]);
        // Not a multiple of 32 rows, but of 8; then of neither.
        assert_eq!([AMX, AVX2].map(|forms| taken(forms, "blk.0.attn_q.weight", &[256, 40])), [40 * 144; 2]);
        assert_eq!([AMX, AVX2].map(|forms| taken(forms, "blk.0.attn_q.weight", &[256, 34])), [0, 0]);
        assert_eq!([AMX, AVX2].map(|forms| taken(forms, "per_layer_token_embd.weight", &[256, 64])), [0, 0]);
    }

    #[test]
    fn what_need_not_stay_mapped_is_not_counted() {
        let table: (&str, &[u64], GgmlType) = ("token_embd.weight", &[256, 64], GgmlType::Q4_K);
        let matrix: (&str, &[u64], GgmlType) = ("blk.0.attn_q.weight", &[256, 32], GgmlType::Q4_K);
        let after: (&str, &[u64], GgmlType) = ("blk.0.norm.weight", &[256], GgmlType::F32);
        let bytes = 32 * 144;
        // At the end of the file, in its middle, and without a mapping.
        assert_eq!(extra(AVX2, false, true, &[table, matrix]), 0);
        assert_eq!(extra(AVX2, false, true, &[table, matrix, after]), bytes);
        assert_eq!(extra(AVX2, false, false, &[table, matrix, after]), 0);
        assert_eq!(extra(AMX, false, false, &[table, matrix, after]), 32 * 4);
        // The table is read from where it lies, and is the output matrix in its second form.
        assert_eq!(extra(AVX2, true, true, &[table, matrix, after]), bytes + 64 * 144);
        assert_eq!(extra_of("nomic-bert", AVX2, true, true, &[table, matrix, after]), bytes);
    }
}
