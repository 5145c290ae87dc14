//! What clients ask for: scenarios in small YAML files.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::bench::random::Random;

/// The scenarios that come with the program.
const BUILT_IN: [(&str, &str); 12] = [
    ("chat", include_str!("../../../benches/scenarios/chat.yaml")),
    ("single", include_str!("../../../benches/scenarios/single.yaml")),
    ("unrelated", include_str!("../../../benches/scenarios/unrelated.yaml")),
    ("shared-prefix", include_str!("../../../benches/scenarios/shared-prefix.yaml")),
    ("branches", include_str!("../../../benches/scenarios/branches.yaml")),
    ("greedy", include_str!("../../../benches/scenarios/greedy.yaml")),
    ("sampling", include_str!("../../../benches/scenarios/sampling.yaml")),
    ("json-schema", include_str!("../../../benches/scenarios/json-schema.yaml")),
    ("tools", include_str!("../../../benches/scenarios/tools.yaml")),
    ("multi-turn", include_str!("../../../benches/scenarios/multi-turn.yaml")),
    ("long-prompts", include_str!("../../../benches/scenarios/long-prompts.yaml")),
    ("mixed", include_str!("../../../benches/scenarios/mixed.yaml")),
];

/// Token ids are drawn from here: plain words in every vocabulary seen so far, control tokens in none.
const TOKEN_IDS: std::ops::Range<usize> = 1000..5000;

/// What a block of requests is made of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) about: String,
    /// Clients that each send the next request when the last one is answered.
    #[serde(default = "one")]
    pub(super) clients: u32,
    /// Requests a second, whoever still waits; in place of clients.
    #[serde(default)]
    pub(super) rate: Option<f64>,
    /// Requests of each client in a block; with turns, conversations.
    #[serde(default = "two")]
    pub(super) rounds: u32,
    /// Questions of a conversation, each with all of it before.
    #[serde(default = "one")]
    pub(super) turns: u32,
    /// Kinds of requests, chosen by weight.
    pub(super) parts: Vec<Part>,
}

/// One kind of request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    #[serde(default = "one")]
    pub(super) weight: u32,
    pub(super) api: Api,
    /// Tokens that all requests of a block begin with, about.
    #[serde(default)]
    pub(super) shared: u32,
    /// The shared beginning is computed before the block, and not timed.
    #[serde(default)]
    pub(super) warm: bool,
    /// Tokens of its own, about; exactly with `completions`.
    pub(super) prompt: u32,
    /// Most tokens of the answer.
    pub(super) answer: u32,
    /// More fields of the request, as they are.
    #[serde(default)]
    pub(super) body: Map<String, Value>,
}

/// Which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Api {
    /// `/v1/completions` with token ids.
    Completions,
    /// `/v1/chat/completions` with words.
    Chat,
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

impl Api {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

impl Scenario {
    /// One that comes with the program, or a file.
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(text).with_context(|| format!("scenario {name}"));
        }
        if !Path::new(name).is_file() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("there is no scenario {name:?} and no such file; the program has {}", names.join(", "));
        }
        let text = std::fs::read_to_string(name).with_context(|| format!("{name} cannot be read"))?;
        Self::parse(&text).with_context(|| format!("scenario {name}"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        let in_range = |what: &str, value: u32, most: u32| match value {
            0 => bail!("`{what}` is 0; it must be between 1 and {most}"),
            _ if value > most => bail!("`{what}` is {value}; it must be between 1 and {most}"),
            _ => Ok(()),
        };
        in_range("clients", self.clients, 1024)?;
        in_range("rounds", self.rounds, 1000)?;
        in_range("turns", self.turns, 1000)?;
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            bail!("`rate` must be a number above 0");
        }
        if self.parts.is_empty() {
            bail!("`parts` is empty; it must list at least one kind of request");
        }
        for part in &self.parts {
            in_range("weight", part.weight, 1_000_000)?;
            in_range("prompt", part.prompt, 1 << 20)?;
            in_range("answer", part.answer, 1 << 20)?;
            if self.turns > 1 && part.api == Api::Completions {
                bail!("`turns` needs `api: chat`: token ids of an answer are not known to the client");
            }
        }
        Ok(())
    }

    /// The kind of a request.
    pub(super) fn draw(&self, random: &mut Random) -> &Part {
        let total: u32 = self.parts.iter().map(|part| part.weight).sum();
        let mut left = random.below(total as usize) as u32;
        let drawn = self.parts.iter().find(|part| match left.checked_sub(part.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        drawn.expect("the weights add up to their sum; this is a bug")
    }
}

/// A line for each scenario.
pub(super) fn list() -> Vec<(String, String)> {
    let entry = |(name, text): &(&str, &str)| {
        let about = Scenario::parse(text).map_or_else(|error| error.to_string(), |scenario| scenario.about);
        ((*name).to_owned(), about)
    };
    BUILT_IN.iter().map(entry).collect()
}

/// A conversation, or one request, as it goes on.
pub(super) struct Talk<'a> {
    part: &'a Part,
    random: Random,
    /// What all requests of the block begin with.
    shared: Random,
    messages: Vec<Value>,
}

impl<'a> Talk<'a> {
    /// `shared` has the same state for all of a block.
    pub(super) fn new(part: &'a Part, random: Random, shared: Random) -> Self {
        let mut talk = Self { part, random, shared, messages: Vec::new() };
        if part.api == Api::Chat && part.shared > 0 {
            let text = talk.shared.words(part.shared as usize);
            talk.messages.push(json!({"role": "system", "content": text}));
        }
        talk
    }

    /// The body of the next request.
    pub(super) fn next_body(&mut self, model: &str, ignore_eos: bool) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".into(), json!(model));
        match self.part.api {
            Api::Completions => {
                let id = |random: &mut Random| TOKEN_IDS.start + random.below(TOKEN_IDS.len());
                let mut shared = self.shared.clone();
                let mut prompt: Vec<usize> = (0..self.part.shared).map(|_| id(&mut shared)).collect();
                prompt.extend((0..self.part.prompt).map(|_| id(&mut self.random)));
                body.insert("prompt".into(), json!(prompt));
            }
            Api::Chat => {
                let text = self.random.words(self.part.prompt as usize);
                self.messages.push(json!({"role": "user", "content": text}));
                body.insert("messages".into(), json!(self.messages));
            }
        }
        body.insert("max_tokens".into(), json!(self.part.answer));
        body.insert("temperature".into(), json!(0));
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        if ignore_eos {
            body.insert("ignore_eos".into(), json!(true));
        }
        body.extend(self.part.body.clone());
        body
    }

    /// The body that has a server compute the shared beginning.
    pub(super) fn warming_body(&mut self, model: &str) -> Map<String, Value> {
        let mut body = self.next_body(model, false);
        body.insert("max_tokens".into(), json!(1));
        body
    }

    /// Takes the answer into the conversation.
    pub(super) fn answered(&mut self, text: &str) {
        if self.part.api == Api::Chat {
            self.messages.push(json!({"role": "assistant", "content": text}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUILT_IN, Scenario, Talk};
    use crate::bench::random::Random;

    #[test]
    fn every_scenario_of_the_program_is_sound() {
        for (name, _) in BUILT_IN {
            assert_eq!(Scenario::open(name).unwrap().name, name);
        }
    }

    #[test]
    fn faults_of_a_file_are_named() {
        let with = |rest: &str| format!("name: x\nabout: y\nrounds: 2\n{rest}");
        let part = "parts: [{api: completions, prompt: 4, answer: 2}]\n";
        let cases = [
            (with(&format!("{part}turns: 3\n")), "turns"),
            (with(&format!("{part}clients: 0\n")), "clients"),
            (with(&format!("{part}rate: -1\n")), "rate"),
            (with("parts: []\n"), "parts"),
            (with("parts: [{api: mail, prompt: 4, answer: 2}]\n"), "mail"),
            (with(&format!("{part}speed: 3\n")), "speed"),
            ("name: x\n".to_owned(), "about"),
        ];
        for (text, named) in cases {
            let error = format!("{:#}", Scenario::parse(&text).unwrap_err());
            assert!(error.contains(named), "{named}: {error}");
        }
        assert!(Scenario::open("absent").is_err());
    }

    #[test]
    fn requests_share_what_they_should_and_nothing_else() {
        let scenario = Scenario::open("shared-prefix").unwrap();
        let part = &scenario.parts[0];
        let ids = |seed| {
            let body = Talk::new(part, Random::new(seed), Random::new(9)).next_body("m", true);
            body["prompt"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
        };
        let (a, b) = (ids(1), ids(2));
        assert_eq!(a.len(), (part.shared + part.prompt) as usize);
        assert_eq!(a[..part.shared as usize], b[..part.shared as usize]);
        assert_ne!(a[part.shared as usize..], b[part.shared as usize..]);
    }

    #[test]
    fn a_conversation_grows() {
        let scenario = Scenario::open("multi-turn").unwrap();
        let mut talk = Talk::new(&scenario.parts[0], Random::new(1), Random::new(2));
        let first = talk.next_body("m", false)["messages"].as_array().unwrap().len();
        talk.answered("yes");
        let body = talk.next_body("m", false);
        let second = body["messages"].as_array().unwrap();
        assert_eq!(second.len(), first + 2);
        assert_eq!(second[first]["content"], "yes");
        assert!(!body.contains_key("ignore_eos"));
    }

    #[test]
    fn parts_are_drawn_by_weight() {
        let scenario = Scenario::open("long-prompts").unwrap();
        let total: u32 = scenario.parts.iter().map(|part| part.weight).sum();
        let mut random = Random::new(5);
        let n_first = (0..10_000).filter(|_| std::ptr::eq(scenario.draw(&mut random), &scenario.parts[0])).count();
        let expected = 10_000.0 * f64::from(scenario.parts[0].weight) / f64::from(total);
        assert!((n_first as f64 - expected).abs() < 200.0, "{n_first} {expected}");
    }
}
