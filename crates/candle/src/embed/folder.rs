//! What a sentence-transformers folder says beside the encoder: pooling, further layers, prompts, the longest text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ingle_engine::{EngineError, Pooling};
use serde_json::Value;

use crate::weights::{load_error, read_json};

/// Files with the longest text, older names of one and the same; the first that is there counts, as in the library.
const LIMIT_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// A step between the pooled vector and the one that is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A layer with weights in this folder.
    Dense(PathBuf),
    /// Layer normalisation with weights in this folder.
    LayerNorm(PathBuf),
    /// Scaled to length 1.
    Normalize,
}

/// A sentence-transformers folder, or a plain one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentenceFolder {
    /// Where the encoder's files are.
    pub(super) encoder: PathBuf,
    /// Vectors that stand side by side.
    pub(super) poolings: Vec<Pooling>,
    pub(super) steps: Vec<Step>,
    /// Tokens of a text at most, special ones included.
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
    /// By name.
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
}

#[derive(serde::Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl SentenceFolder {
    /// Reads `modules.json` and what it names. A folder without it gets the library's defaults: the mean, as it is.
    pub(super) fn read(folder: &Path) -> Result<Self, EngineError> {
        let list = folder.join("modules.json");
        let mut found = Self {
            encoder: folder.to_owned(),
            poolings: vec![Pooling::Mean],
            steps: Vec::new(),
            max_tokens: None,
            lower_case: false,
            prompts: BTreeMap::new(),
            default_prompt: None,
        };
        if list.is_file() {
            for module in read_json::<Vec<Module>>(&list)? {
                found.add(folder, &list, &module)?;
            }
        }
        found.read_limits()?;
        found.read_prompts(folder)?;
        Ok(found)
    }

    fn add(&mut self, folder: &Path, list: &Path, module: &Module) -> Result<(), EngineError> {
        let is_inner =
            !module.path.split(['/', '\\']).any(|part| part == "..") && !Path::new(&module.path).is_absolute();
        if !is_inner {
            return Err(load_error(list, format!("the path {:?} leads out of the folder", module.path)));
        }
        let path = folder.join(&module.path);
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => self.encoder = path,
            "Pooling" => self.poolings = poolings(&path.join("config.json"))?,
            "Dense" => self.steps.push(Step::Dense(path)),
            "LayerNorm" => self.steps.push(Step::LayerNorm(path)),
            "Normalize" => self.steps.push(Step::Normalize),
            "Dropout" => {}
            _ => {
                let known = "Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout";
                return Err(load_error(list, format!("the module {:?} is not supported; {known} are", module.kind)));
            }
        }
        Ok(())
    }

    fn read_limits(&mut self) -> Result<(), EngineError> {
        let paths = LIMIT_FILES.map(|name| self.encoder.join(name));
        if let Some(path) = paths.into_iter().find(|path| path.is_file()) {
            let values: Value = read_json(&path)?;
            self.max_tokens = values["max_seq_length"].as_u64().map(|n| n as usize);
            self.lower_case = values["do_lower_case"].as_bool().unwrap_or(false);
        }
        if self.max_tokens.is_none() {
            self.max_tokens = tokenizer_limit(&self.encoder)?;
        }
        Ok(())
    }

    fn read_prompts(&mut self, folder: &Path) -> Result<(), EngineError> {
        let path = folder.join("config_sentence_transformers.json");
        if !path.is_file() {
            return Ok(());
        }
        let values: Value = read_json(&path)?;
        let texts = values["prompts"].as_object().into_iter().flatten();
        self.prompts = texts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect();
        self.default_prompt = values["default_prompt_name"].as_str().map(str::to_owned);
        match &self.default_prompt {
            Some(name) if !self.prompts.contains_key(name) => {
                Err(load_error(&path, format!("default_prompt_name {name:?} is not among the prompts")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// `model_max_length` of the tokenizer, where it is a length.
pub(super) fn tokenizer_limit(folder: &Path) -> Result<Option<usize>, EngineError> {
    /// The library writes 10^30 for "none".
    const NO_LIMIT: f64 = 1e9;
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let values: Value = read_json(&path)?;
    let limit = values["model_max_length"].as_f64().filter(|limit| (1.0..NO_LIMIT).contains(limit));
    Ok(limit.map(|limit| limit as usize))
}

fn poolings(path: &Path) -> Result<Vec<Pooling>, EngineError> {
    let values: Value = read_json(path)?;
    if values["include_prompt"].as_bool() == Some(false) {
        return Err(load_error(path, "include_prompt: false (a pooling that leaves prompts out) is not supported"));
    }
    let named = |word: &str| match word {
        "cls" => Some(Pooling::Cls),
        "max" => Some(Pooling::Max),
        "mean" => Some(Pooling::Mean),
        "mean_sqrt_len_tokens" => Some(Pooling::MeanSqrtLen),
        "weightedmean" => Some(Pooling::WeightedMean),
        "lasttoken" => Some(Pooling::Last),
        _ => None,
    };
    let of_word = |value: &Value| {
        let pooling = value.as_str().and_then(named);
        pooling.ok_or_else(|| load_error(path, format!("pooling_mode {value} is not known")))
    };
    match &values["pooling_mode"] {
        Value::Null => {}
        Value::Array(words) if words.is_empty() => return Err(load_error(path, "pooling_mode is an empty list")),
        Value::Array(words) => return words.iter().map(of_word).collect(),
        word => return Ok(vec![of_word(word)?]),
    }
    // In the order in which the library puts them side by side.
    const KEYS: [(&str, Pooling); 6] = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
        ("pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let chosen = KEYS.iter().filter(|(key, _)| values[*key].as_bool() == Some(true));
    let poolings: Vec<Pooling> = chosen.map(|(_, pooling)| *pooling).collect();
    match poolings.is_empty() {
        true => Err(load_error(path, "no pooling mode is switched on")),
        false => Ok(poolings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    #[test]
    fn poolings_are_read_in_every_form() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = |text: &str| poolings(&write(folder.path(), "config.json", text));
        for (text, expected) in [
            (r#"{"pooling_mode": "lasttoken"}"#, vec![Pooling::Last]),
            (r#"{"pooling_mode": ["cls", "mean"]}"#, vec![Pooling::Cls, Pooling::Mean]),
            (
                r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
                vec![Pooling::Cls, Pooling::Mean],
            ),
        ] {
            assert_eq!(read(text).expect("it is valid"), expected, "{text}");
        }
        for (text, told) in [
            (r#"{"pooling_mode": []}"#, "empty list"),
            (r#"{"pooling_mode": ["cls", "median"]}"#, "\"median\" is not known"),
            (r#"{"pooling_mode": 3}"#, "3 is not known"),
            ("{}", "no pooling mode"),
        ] {
            let error = read(text).expect_err("it is not valid").to_string();
            assert!(error.contains("config.json") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_limit_is_found_under_its_older_names() {
        for name in LIMIT_FILES {
            let folder = tempfile::tempdir().expect("a folder");
            write(folder.path(), name, r#"{"max_seq_length": 77, "do_lower_case": true}"#);
            let found = SentenceFolder::read(folder.path()).expect("it is valid");
            assert_eq!((found.max_tokens, found.lower_case), (Some(77), true), "{name}");
        }
    }
}
