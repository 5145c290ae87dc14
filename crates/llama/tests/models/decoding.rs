//! The decoder's contract, without an engine around it.

use ingle_engine::{
    BatchToken, CacheRefused, CacheType, DecodeError, Decoder, FlashAttention, LoadOptions, PrefixSharing, SeqId,
    TokenId,
};
use ingle_llama::{LlamaBackend, LlamaDecoder};

use crate::common::{GEMMA, SMOLLM, hardware, model_path, options};

fn decoder(change: impl FnOnce(&mut LoadOptions)) -> Option<LlamaDecoder> {
    let mut options = LoadOptions { context_size: Some(256), ..options(model_path(SMOLLM)?, "decoder") };
    change(&mut options);
    Some(LlamaBackend.load_model(&options, &hardware()).expect("the model loads").decoder)
}

fn batch(seq: SeqId, start: usize, tokens: &[TokenId]) -> Vec<BatchToken> {
    let last = tokens.len() - 1;
    let entry = |(idx, &token)| BatchToken { token, position: start + idx, seq, wants_row: idx == last };
    tokens.iter().enumerate().map(entry).collect()
}

fn run(decoder: &mut LlamaDecoder, seq: SeqId, start: usize, tokens: &[TokenId]) -> Vec<f32> {
    decoder.decode(&batch(seq, start, tokens)).unwrap();
    decoder.row(tokens.len() - 1).unwrap().to_vec()
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_within(0.05, a, b, what);
}

fn assert_within(bound: f32, a: &[f32], b: &[f32], what: &str) {
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < bound, "{what}: logits differ by {worst}");
}

const TOKENS: [TokenId; 8] = [504, 3575, 282, 4649, 314, 7042, 30, 216];

#[test]
fn what_cpp_would_abort_on_is_refused() {
    let Some(mut decoder) = decoder(|_| {}) else { return };
    let limits = decoder.limits().clone();
    let good = BatchToken { token: 1, position: 0, seq: 0, wants_row: true };
    let cases = [
        vec![],
        vec![good; limits.n_batch + 1],
        vec![BatchToken { token: limits.n_vocab as TokenId, ..good }],
        vec![BatchToken { seq: limits.n_seqs as SeqId, ..good }],
        vec![BatchToken { seq: SeqId::MAX, ..good }],
        vec![BatchToken { position: usize::MAX, ..good }],
        // A hole before the position, and a position twice.
        vec![BatchToken { position: 5, ..good }, BatchToken { position: 7, ..good }],
        (0..=limits.n_seqs).map(|position| BatchToken { position, ..good }).collect(),
    ];
    for case in cases {
        assert!(matches!(decoder.decode(&case), Err(DecodeError::Failed { .. })), "{case:?}");
        assert!(decoder.row(0).is_err(), "a failed step has no rows");
    }
    run(&mut decoder, 0, 0, &TOKENS);
    assert!(decoder.row(0).is_err(), "no row was asked for");
    assert!(decoder.row(TOKENS.len()).is_err());
}

#[test]
fn prefixes_are_copied_cut_and_cleared() {
    let Some(mut decoder) = decoder(|_| {}) else { return };
    let expected = run(&mut decoder, 0, 0, &TOKENS);
    decoder.copy_prefix(0, 1, 5).unwrap();
    assert_close(&expected, &run(&mut decoder, 1, 5, &TOKENS[5..]), "copied");
    decoder.cut(0, 3).unwrap();
    assert_close(&expected, &run(&mut decoder, 0, 3, &TOKENS[3..]), "cut");
    decoder.clear(0);
    assert_close(&expected, &run(&mut decoder, 0, 0, &TOKENS), "cleared");
    assert!(decoder.copy_prefix(0, SeqId::MAX, 1).is_err());
    assert!(decoder.cut(SeqId::MAX, 1).is_err());
    decoder.clear(SeqId::MAX);
}

#[test]
fn a_full_cache_says_so_and_is_left_as_it_was() {
    let Some(mut decoder) = decoder(|options| options.batch = Some(64)) else { return };
    let expected = run(&mut decoder, 0, 0, &TOKENS);
    decoder.cut(0, 4).unwrap();
    let filler: Vec<TokenId> = (1000..1060).collect();
    for seq in 1..5 {
        run(&mut decoder, seq, 0, &filler);
    }
    // 256 cells hold 4 + 4 · 60 tokens; two sequences ask for 60 more.
    let mut too_many = batch(0, 4, &filler[..30]);
    too_many.extend(batch(5, 0, &filler[..30]));
    assert_eq!(decoder.decode(&too_many), Err(DecodeError::NoRoom));
    decoder.clear(1);
    assert_close(&expected, &run(&mut decoder, 0, 4, &TOKENS[4..]), "after a failed step");
    run(&mut decoder, 5, 0, &filler[..30]);
}

#[test]
fn a_shift_moves_what_follows() {
    let Some(mut decoder) = decoder(|_| {}) else { return };
    assert!(decoder.limits().can_shift);
    run(&mut decoder, 0, 0, &TOKENS);
    decoder.shift(0, 2, 3).unwrap();
    // Five tokens are left, so the next position is 5; 4 is taken.
    assert!(decoder.decode(&batch(0, 4, &[30])).is_err());
    run(&mut decoder, 0, 5, &[30]);
}

#[test]
fn cache_formats_and_flash_attention_are_honoured() {
    let Some(mut plain) = decoder(|_| {}) else { return };
    let expected = run(&mut plain, 0, 0, &TOKENS);
    let formats = [(CacheType::F32, FlashAttention::Off), (CacheType::Q8_0, FlashAttention::On)];
    for (cache_type, flash_attention) in formats {
        let mut other = decoder(|options| {
            (options.cache_type_k, options.cache_type_v) = (cache_type, cache_type);
            options.flash_attention = flash_attention;
        })
        .expect("the model is there");
        let row = run(&mut other, 0, 0, &TOKENS);
        let worst = expected.iter().zip(&row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0, "{cache_type:?} changes nothing");
        assert!(worst < 1.0, "{cache_type:?}: logits differ by {worst}");
    }
}

#[test]
fn only_what_a_sliding_window_still_holds_is_reused() {
    let Some(path) = model_path(GEMMA) else { return };
    let tokens: Vec<TokenId> = (0..900).map(|idx| 1000 + idx * 7 % 5000).collect();
    for swa_full in [true, false] {
        let options = LoadOptions { context_size: Some(2048), swa_full, ..options(path.clone(), "windowed") };
        let mut decoder = LlamaBackend.load_model(&options, &hardware()).expect("the model loads").decoder;
        let window = decoder.limits().sliding_window.expect("the model has a window, however much its cache holds");
        assert_eq!((window, decoder.limits().sharing), (512, PrefixSharing::Copy));
        for start in (0..900).step_by(300) {
            run(&mut decoder, 0, start, &tokens[start..start + 300]);
        }
        // Nothing has needed a cell behind the window yet. The last token is computed alone, as below: among others it is
        // rounded otherwise.
        decoder.cut(0, 899).unwrap();
        run(&mut decoder, 0, 899, &tokens[899..]);
        let expected = run(&mut decoder, 0, 900, &tokens[..1]);
        decoder.copy_prefix(0, 1, 300).unwrap();
        assert_eq!(decoder.copy_prefix(0, 1, 300), Err(CacheRefused), "there is something already");
        assert_eq!(decoder.copy_prefix(0, 2, 902), Err(CacheRefused), "longer than what there is");
        decoder.clear(1);
        decoder.cut(0, 900).unwrap();
        let state = decoder.save(0).unwrap();
        decoder.clear(0);
        // A state has what its last token attends to.
        decoder.restore(3, &state).unwrap();
        assert_eq!(decoder.first_held(3), 900 - window);
        for n_tokens in [898, 600] {
            assert_eq!(decoder.copy_prefix(3, 4, n_tokens), Err(CacheRefused), "{n_tokens}");
            assert_eq!(decoder.cut(3, n_tokens), Err(CacheRefused), "{n_tokens}");
        }
        decoder.cut(3, 899).unwrap();
        run(&mut decoder, 3, 899, &tokens[899..]);
        let row = run(&mut decoder, 3, 900, &tokens[..1]);
        assert_within(0.05, &expected, &row, "brought back and cut");
    }
}

#[test]
fn jobs_reach_every_compute_thread() {
    let Some(mut decoder) = decoder(|options| options.threads = Some(3)) else { return };
    let seen = std::sync::Mutex::new(Vec::new());
    decoder.for_each_thread(&|idx| seen.lock().unwrap().push(idx)).unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn rows_are_shared_by_the_compute_threads() {
    let Some(mut decoder) = decoder(|options| options.threads = Some(3)) else { return };
    let entry = |seq, wants_row| BatchToken { token: 100 + seq, position: 0, seq, wants_row };
    let batch: Vec<_> = (0..8).map(|seq| entry(seq, seq != 3)).collect();
    decoder.decode(&batch).unwrap();
    let expected: Vec<Option<Vec<f32>>> = (0..8).map(|idx| decoder.row(idx).ok().map(<[f32]>::to_vec)).collect();
    let seen = std::sync::Mutex::new(Vec::new());
    let order = [7, 0, 3, 1, 6, 5, 4, 2];
    decoder.for_each_row(&order, &|idx, row| {
        // Long enough for the others to take some.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let row = row.ok().map(<[f32]>::to_vec);
        seen.lock().unwrap().push((idx, row, std::thread::current().id()));
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|(idx, ..)| *idx);
    assert_eq!(seen.iter().map(|(idx, ..)| *idx).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    let threads: std::collections::HashSet<_> = seen.iter().map(|(.., thread)| *thread).collect();
    assert_eq!(threads.len(), 3);
    for (idx, row, _) in seen {
        assert!(row == expected[order[idx]], "row {idx}");
    }
}
