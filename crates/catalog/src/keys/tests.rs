use super::*;
use crate::model_yaml::ModelYaml;
use crate::yaml::parse;

/// A text in which `key` has a value of the right shape.
fn example(key: &str) -> String {
    let value = match key {
        "roles" | "chat_template_kwargs" | "parameters.logit_bias" => "{a: 1}",
        "reasoning" => "{disable: true}",
        "tts" | "parameters" | "template" | "function" | "function.grammar" => "{}",
        "limits" => "{max_concurrent: 1}",
        "reasoning.tag_pairs" => "[{start: a, end: b}]",
        "download_files" => "[{filename: a, uri: 'https://h/a'}]",
        "function.replace_function_results" | "function.replace_llm_results" => "[{key: a, value: b}]",
        "known_usecases"
        | "known_input_modalities"
        | "known_output_modalities"
        | "stopwords"
        | "cutstrings"
        | "extract_regex"
        | "trimspace"
        | "trimsuffix"
        | "options"
        | "overrides"
        | "concurrency_groups"
        | "lora_adapters"
        | "lora_scales"
        | "reasoning.thinking_start_tokens" => "['1']",
        key if key.ends_with("_regex") || key.ends_with("_match") || key == "function.capture_llm_results" => "['1']",
        _ => "1",
    };
    let steps: Vec<&str> = key.split('.').collect();
    steps.iter().rev().fold(value.to_owned(), |inner, step| format!("{{{step}: {inner}}}"))
}

/// What the table says of a key is what the types do with it.
#[test]
fn the_table_and_the_types_agree() {
    let read_all_the_same = ["mmproj"];
    for (key, standing) in MODEL_KEYS {
        let text = example(key);
        let node = parse(&text).expect("it parses");
        let (_, unread) = node.decode::<ModelYaml>().unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let is_read = unread.is_empty();
        let should_be = *standing == Standing::Works || read_all_the_same.contains(key);
        assert_eq!(is_read, should_be, "{key}: {unread:?}");
    }
}

#[test]
fn keys_are_listed_once() {
    for table in [MODEL_KEYS, LLAMA_OPTIONS, ENCODER_OPTIONS, HEARING_OPTIONS, KOKORO_OPTIONS] {
        for (idx, (key, _)) in table.iter().enumerate() {
            assert!(table[..idx].iter().all(|(other, _)| other != key), "{key}");
        }
    }
}

#[test]
fn people_are_told_what_becomes_of_a_key() {
    for (key, expected) in [
        ("numa", "has no effect: threads are placed"),
        ("pipeline.vad", "has no effect: there are no realtime"),
        ("mmproj", "belongs to vision"),
        ("paramters", "is not known; is `parameters` meant?"),
        ("parameters.temprature", "is `parameters.temperature` meant?"),
        ("parameters.context_size", "is not known; is `context_size` meant?"),
        ("temperature", "is `parameters.temperature` meant?"),
        ("download_files.0.sha255", "is not known"),
        ("colour", "is not known and has no effect"),
    ] {
        let warning = warning(key, 3);
        assert!(warning.reason.contains(expected), "{warning}");
        assert!(warning.to_string().starts_with(&format!("line 3: `{key}`")), "{warning}");
    }
    assert!(option_warning(LLAMA_OPTIONS, "parallel:4", 1).is_none());
    for (option, expected) in [("sps:0.5", "not bound to slots"), ("--foo:1", "llama.cpp's own"), ("x", "not known")] {
        let warning = option_warning(LLAMA_OPTIONS, option, 1).expect("it does nothing");
        assert!(warning.reason.contains(expected), "{warning}");
    }
}
