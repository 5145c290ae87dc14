//! Calls found by an operator's regular expressions (LocalAI's `function:` options), for models whose calls have no format
//! of their own. The whole text is needed, so nothing of it goes out before its end.

use regex::Regex;
use serde_json::{Map, Value};

use super::literal;
use super::parser::AnswerDelta;
use crate::error::PromptError;

/// Largest compiled expression, in bytes.
const MAX_REGEX_BYTES: usize = 4 << 20;

/// The options as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallRuleOptions {
    /// Key of the name in JSON calls.
    pub name_key: Option<String>,
    /// Key of the arguments in JSON calls.
    pub arguments_key: Option<String>,
    /// Expressions with the groups `name` and `arguments`.
    pub response_regex: Vec<String>,
    /// Expressions whose first group is a JSON call; the first that matches counts.
    pub json_regex_match: Vec<String>,
    /// Expressions that find one argument each, for arguments that are no JSON.
    pub argument_regex: Vec<String>,
    /// Group of the argument's name.
    pub argument_key_group: String,
    /// Group of the argument's value.
    pub argument_value_group: String,
    /// What is replaced before calls are looked for, and by what.
    pub replace_results: Vec<(String, String)>,
    /// What is replaced in text without calls, and by what.
    pub replace_text: Vec<(String, String)>,
    /// Expressions whose first group is text beside calls; the first that matches counts.
    pub capture_text: Vec<String>,
}

impl CallRuleOptions {
    /// Do they say how calls are found? Keys alone do not.
    pub fn find_calls(&self) -> bool {
        let lists = [&self.response_regex, &self.json_regex_match, &self.capture_text];
        lists.iter().any(|list| !list.is_empty()) || !self.replace_results.is_empty() || !self.replace_text.is_empty()
    }
}

/// Rules that are ready to use.
#[derive(Debug, Clone)]
pub struct CallRules {
    name_key: String,
    arguments_key: String,
    response: Vec<Regex>,
    json: Vec<Regex>,
    argument: Vec<Regex>,
    argument_groups: (String, String),
    replace_results: Vec<(Regex, String)>,
    replace_text: Vec<(Regex, String)>,
    capture_text: Vec<Regex>,
}

fn compile(field: &str, text: &str) -> Result<Regex, PromptError> {
    let compiled = regex::RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
    compiled.map_err(|_| PromptError::Input {
        field: format!("function.{field} of the model's configuration, {text:?},"),
        expected: "a regular expression",
    })
}

impl CallRules {
    /// Compiles the expressions.
    ///
    /// # Errors
    /// [`PromptError::Input`] names an option that is no regular expression.
    pub fn new(options: &CallRuleOptions) -> Result<Self, PromptError> {
        let all = |field: &str, list: &[String]| list.iter().map(|text| compile(field, text)).collect::<Result<_, _>>();
        let pairs = |field: &str, list: &[(String, String)]| {
            list.iter().map(|(text, by)| Ok((compile(field, text)?, by.clone()))).collect::<Result<_, PromptError>>()
        };
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
        Ok(Self {
            name_key: or(options.name_key.as_deref().unwrap_or_default(), "name"),
            arguments_key: or(options.arguments_key.as_deref().unwrap_or_default(), "arguments"),
            response: all("response_regex", &options.response_regex)?,
            json: all("json_regex_match", &options.json_regex_match)?,
            argument: all("argument_regex", &options.argument_regex)?,
            argument_groups: (or(&options.argument_key_group, "key"), or(&options.argument_value_group, "value")),
            replace_results: pairs("replace_function_results", &options.replace_results)?,
            replace_text: pairs("replace_llm_results", &options.replace_text)?,
            capture_text: all("capture_llm_results", &options.capture_text)?,
        })
    }

    /// Text and calls of a whole answer.
    pub(super) fn split(&self, answer: &str) -> Vec<AnswerDelta> {
        let result = replaced(answer, &self.replace_results);
        let mut calls = self.json_calls(&result);
        for regex in &self.response {
            for found in regex.captures_iter(&result) {
                let group = |name: &str| found.name(name).map_or("", |found| found.as_str());
                if !group("name").is_empty() {
                    calls.push((group("name").to_owned(), self.arguments(group("arguments"))));
                }
            }
        }
        let text = match calls.is_empty() {
            true => replaced(answer, &self.replace_text),
            false => self.captured(answer),
        };
        let mut out = Vec::new();
        if !text.is_empty() {
            out.push(AnswerDelta::Text(text));
        }
        for (name, arguments) in calls {
            out.extend([AnswerDelta::CallStart { name }, AnswerDelta::CallArguments(arguments), AnswerDelta::CallEnd]);
        }
        out
    }

    /// Calls that are JSON: what the first matching expression picks, or else the whole text.
    fn json_calls(&self, result: &str) -> Vec<(String, String)> {
        let picked = self.json.iter().find_map(|regex| {
            let groups = regex.captures_iter(result).filter_map(|found| Some(found.get(1)?.as_str().to_owned()));
            Some(groups.collect::<Vec<String>>()).filter(|groups| !groups.is_empty())
        });
        let texts = picked.unwrap_or_else(|| vec![result.to_owned()]);
        let mut calls = Vec::new();
        for text in &texts {
            let mut values = serde_json::Deserializer::from_str(text.trim()).into_iter::<Value>();
            while let Some(Ok(value)) = values.next() {
                match value {
                    Value::Array(items) => calls.extend(items.iter().filter_map(|item| self.json_call(item))),
                    value => calls.extend(self.json_call(&value)),
                }
            }
        }
        calls
    }

    fn json_call(&self, value: &Value) -> Option<(String, String)> {
        let name = value.get(&self.name_key)?.as_str()?;
        let arguments = match value.get(&self.arguments_key) {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => self.arguments(text),
            Some(arguments) => arguments.to_string(),
        };
        Some((name.to_owned(), arguments))
    }

    /// Arguments as JSON: as they are where they are JSON, else those that the expressions find.
    fn arguments(&self, text: &str) -> String {
        if self.argument.is_empty() {
            return match literal::whole(text.trim()) {
                Some(value @ Value::Object(_)) => value.to_string(),
                _ if text.trim().is_empty() => "{}".to_owned(),
                _ => text.to_owned(),
            };
        }
        let mut found = Map::new();
        let (key, value) = &self.argument_groups;
        for captures in self.argument.iter().flat_map(|regex| regex.captures_iter(text)) {
            if let (Some(key), Some(value)) = (captures.name(key), captures.name(value)) {
                found.insert(key.as_str().to_owned(), Value::String(value.as_str().to_owned()));
            }
        }
        Value::Object(found).to_string()
    }

    fn captured(&self, answer: &str) -> String {
        let found = self.capture_text.iter().find_map(|regex| regex.captures(answer)?.get(1));
        found.map_or_else(String::new, |found| found.as_str().to_owned())
    }
}

fn replaced(text: &str, rules: &[(Regex, String)]) -> String {
    rules.iter().fold(text.to_owned(), |text, (regex, by)| regex.replace_all(&text, by.as_str()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(options: CallRuleOptions, answer: &str) -> (String, Vec<(String, String)>) {
        let (mut content, mut calls) = (String::new(), Vec::new());
        for delta in CallRules::new(&options).expect("sound expressions").split(answer) {
            match delta {
                AnswerDelta::Text(text) => content += &text,
                AnswerDelta::CallStart { name } => calls.push((name, String::new())),
                AnswerDelta::CallArguments(text) => calls.last_mut().expect("a call").1.push_str(&text),
                AnswerDelta::Reasoning(_) | AnswerDelta::CallEnd => {}
            }
        }
        (content, calls)
    }

    #[test]
    fn expressions_find_calls_and_text() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let call = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
        let options = CallRuleOptions {
            response_regex: list(&[r"(?P<name>\w+)\s*\((?P<arguments>.*)\)"]),
            argument_regex: list(&[r"(?P<key>\w+)\s*=\s*'(?P<value>[^']*)'"]),
            capture_text: list(&["(?s)^THOUGHT: (.*?)\n"]),
            ..CallRuleOptions::default()
        };
        let found = split(options.clone(), "THOUGHT: look it up\nadd(x='5', y = '3')");
        assert_eq!(found, ("look it up".into(), vec![call("add", r#"{"x":"5","y":"3"}"#)]));
        assert_eq!(split(options, "nothing here"), ("nothing here".into(), vec![]));

        let options = CallRuleOptions {
            name_key: Some("function".into()),
            json_regex_match: list(&["(?s)<call>(.*?)</call>", "(?s)```json(.*?)```"]),
            replace_results: vec![("'".into(), "\"".into())],
            replace_text: vec![("^Answer: ".into(), String::new())],
            ..CallRuleOptions::default()
        };
        let found = split(
            options.clone(),
            "<call>{'function': 'f', 'arguments': {'a': 1}}</call><call>[{'function': 'g'}]</call>",
        );
        assert_eq!(found, (String::new(), vec![call("f", r#"{"a":1}"#), call("g", "{}")]));
        assert_eq!(split(options.clone(), "Answer: it's 4"), ("it's 4".into(), vec![]));
        assert_eq!(split(options, r#"{"function": "f", "arguments": "{\"a\": 2}"}"#).1, vec![call("f", r#"{"a":2}"#)]);
        let broken = CallRuleOptions { response_regex: list(&["("]), ..CallRuleOptions::default() };
        assert!(CallRules::new(&broken).expect_err("no expression").to_string().contains("response_regex"));
    }
}
