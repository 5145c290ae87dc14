//! The tokenizer against llama.cpp's own.

use std::mem::ManuallyDrop;

use ingle_engine::{Segment, Surround, TokenId, TokenKind, Tokenizer};
use ingle_llama::LlamaBackend;
use llama_cpp_2::model::{LlamaModel, params::LlamaModelParams};

use crate::common::{GEMMA, SMOLLM, hardware, model_path, options};

const TEXTS: [&str; 9] = [
    "Hello, world!",
    "  two spaces, a\ttab and\n\n\na few lines  ",
    "naïve café — 東京タワー 🦀🏳️‍🌈 Ünïcödé",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<start_of_turn>user\nHi<end_of_turn>\n",
    "<bos>again<s></s><unk><pad>",
    "1234567890 3.14159 -17 0x1f",
    "",
    " ",
];

fn check(file: &str, run: impl Fn(&dyn Tokenizer, &LlamaModel)) {
    let Some(path) = model_path(file) else { return };
    let loaded = LlamaBackend.load_model(&options(path.clone(), "words"), &hardware()).unwrap();
    // The crate has initialised llama.cpp; this is only the proof that llama-cpp-2 asks for. Dropping it would shut
    // llama.cpp down under the other tests.
    let proof = ManuallyDrop::new(llama_cpp_2::llama_backend::LlamaBackend {});
    let reference = LlamaModel::load_from_file(&proof, path, &LlamaModelParams::default()).unwrap();
    run(loaded.tokenizer.as_ref(), &reference);
}

fn expected(reference: &LlamaModel, text: &str, surround: Surround) -> Vec<TokenId> {
    let tokens = reference.vocab().tokenize(text.as_bytes(), surround == Surround::AsModelWants, true);
    tokens.into_iter().map(|token| token.0 as TokenId).collect()
}

fn detokenize(tokenizer: &dyn Tokenizer, tokens: &[TokenId]) -> String {
    let bytes = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).copied().collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn template_text_gives_the_tokens_of_llama_cpp() {
    for file in [SMOLLM, GEMMA] {
        check(file, |tokenizer, reference| {
            for text in TEXTS {
                let parse = [Segment::parse(text)];
                let found = tokenizer.tokenize(&parse, Surround::Nothing).unwrap();
                assert_eq!(found, expected(reference, text, Surround::Nothing), "{file}: {text:?}");
                assert_eq!(detokenize(tokenizer, &found), text, "{file}: back to text");
            }
        });
    }
}

#[test]
fn segments_give_the_tokens_of_their_join() {
    for file in [SMOLLM, GEMMA] {
        check(file, |tokenizer, reference| {
            let joined = TEXTS.concat();
            let borders: Vec<usize> = joined.char_indices().map(|(idx, _)| idx).collect();
            for step in [1, 2, 3, 7, 19] {
                let mut segments = Vec::new();
                let mut cuts: Vec<usize> = borders.iter().copied().step_by(step).collect();
                cuts.push(joined.len());
                segments.extend(cuts.windows(2).map(|cut| Segment::parse(&joined[cut[0]..cut[1]])));
                let found = tokenizer.tokenize(&segments, Surround::Nothing).unwrap();
                assert_eq!(found, expected(reference, &joined, Surround::Nothing), "{file}: pieces of {step}");
            }
            let plain = "a sentence without spellings, in pieces";
            let segments: Vec<Segment> = plain.split_inclusive(' ').map(Segment::plain).collect();
            let found = tokenizer.tokenize(&segments, Surround::Nothing).unwrap();
            assert_eq!(found, expected(reference, plain, Surround::Nothing), "{file}: plain pieces");
        });
    }
}

#[test]
fn client_text_never_becomes_control_tokens() {
    for file in [SMOLLM, GEMMA] {
        check(file, |tokenizer, _| {
            for text in TEXTS {
                let found = tokenizer.tokenize(&[Segment::plain(text)], Surround::Nothing).unwrap();
                let is_control = |&token: &TokenId| tokenizer.token_kind(token) == TokenKind::Control;
                assert!(!found.iter().any(is_control), "{file}: {text:?} gave {found:?}");
                assert_eq!(detokenize(tokenizer, &found), text, "{file}: back to text");
            }
        });
    }
    check(SMOLLM, |tokenizer, _| {
        let segments =
            [Segment::parse("<|im_start|>user\n"), Segment::plain("<|im_end|>"), Segment::parse("<|im_end|>\n")];
        let found = tokenizer.tokenize(&segments, Surround::Nothing).unwrap();
        let n_control = found.iter().filter(|&&token| tokenizer.token_kind(token) == TokenKind::Control).count();
        assert_eq!(n_control, 2);
        assert_eq!(detokenize(tokenizer, &found), "<|im_start|>user\n<|im_end|><|im_end|>\n");
    });
}

#[test]
fn the_beginning_is_added_once() {
    check(GEMMA, |tokenizer, reference| {
        let bos = tokenizer.beginning_of_sequence().unwrap();
        for text in ["Hello", "<bos>Hello", ""] {
            let found = tokenizer.tokenize(&[Segment::parse(text)], Surround::AsModelWants).unwrap();
            assert_eq!(found.iter().filter(|&&token| token == bos).count(), 1, "{text:?}");
            assert_eq!(found[0], bos);
        }
        let found = tokenizer.tokenize(&[Segment::plain("<bos>Hello")], Surround::AsModelWants).unwrap();
        assert_eq!(found[0], bos);
        assert_eq!(detokenize(tokenizer, &found[1..]), "<bos>Hello");
        assert_eq!(
            tokenizer.tokenize(&[Segment::parse("Hello")], Surround::AsModelWants).unwrap(),
            expected(reference, "Hello", Surround::AsModelWants)
        );
    });
}

#[test]
fn vocabularies_are_described() {
    for file in [SMOLLM, GEMMA] {
        check(file, |tokenizer, reference| {
            assert_eq!(tokenizer.n_vocab(), usize::try_from(reference.n_vocab()).unwrap());
            let ends = tokenizer.end_of_generation();
            assert!(!ends.is_empty() && ends.is_sorted(), "{file}: {ends:?}");
            let eos = tokenizer.end_of_sequence().unwrap();
            assert!(ends.contains(&eos));
            assert_eq!(tokenizer.token_kind(eos), TokenKind::Control);
            let beyond = tokenizer.n_vocab() as TokenId;
            assert_eq!(tokenizer.token_bytes(beyond), b"");
            assert_eq!(tokenizer.token_bytes(TokenId::MAX), b"");
            assert_eq!(tokenizer.token_kind(beyond), TokenKind::Unused);
        });
    }
}

#[test]
fn long_texts_are_tokenized() {
    check(SMOLLM, |tokenizer, _| {
        for text in ["a".repeat(300_000), "! ".repeat(150_000), "<|im_end|>".repeat(20_000)] {
            let found = tokenizer.tokenize(&[Segment::plain(text.as_str())], Surround::Nothing).unwrap();
            assert_eq!(detokenize(tokenizer, &found), text);
        }
    });
}
