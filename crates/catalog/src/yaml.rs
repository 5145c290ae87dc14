//! From YAML text to typed values, keeping the line of every key: a tree with positions first, serde types after, so
//! that one bad element of a list neither hides the others nor loses its line.

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// The largest YAML file we read, in bytes; LocalAI's whole gallery index is 3 MB.
pub(crate) const MAX_YAML_BYTES: u64 = 32 << 20;

/// What is wrong with a YAML text and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    /// 1-based; 0 when the place is not known.
    pub line: u64,
    pub message: String,
}

/// A key that no type wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The key with its parents, e.g. `parameters.colour`.
    pub key: String,
    /// 1-based line in the file; 0 when the place is not known.
    pub line: u64,
}

/// A YAML node and the line it begins at.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub line: u64,
    pub tree: Tree,
}

/// The value of a node.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub line: u64,
    pub key: String,
    pub node: Node,
}

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, YamlError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: 64, max_nodes: 4_000_000, max_events: 8_000_000,
            max_total_scalar_bytes: 64 << 20, max_merge_keys: 200_000, max_aliases: 200_000, max_anchors: 50_000,
            enforce_alias_anchor_ratio: false },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 4_000_000,
            max_alias_expansions_per_anchor: 20_000 },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options) {
        Ok(spanned) => Ok(node(spanned)),
        Err(error) => {
            let line = error.location().map_or(0, |location| location.line());
            Err(YamlError { line, message: one_line(&error.to_string()) })
        }
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn node(spanned: Spanned<Tree>) -> Node {
    Node { line: spanned.referenced.line(), tree: spanned.value }
}

impl Node {
    /// The value of `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.tree {
            Tree::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::List(_) => None,
        }
    }

    /// Whether this is a mapping with any of `keys`.
    pub fn has_any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.get(key).is_some())
    }

    /// The same value without positions. A number that JSON cannot hold (NaN, infinity) becomes text.
    pub fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(*value),
            Tree::Number(value) => Value::Number(value.clone()),
            Tree::Text(value) => Value::String(value.clone()),
            Tree::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Tree::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// The typed value, and the keys it has no place for.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<(T, Vec<Unread>), YamlError> {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let value = self.to_json();
        let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
        let result = serde_ignored::deserialize(tracked, |path| unknown.push(ignored_steps(&path)));
        match result {
            Ok(typed) => Ok((typed, unknown.iter().map(|steps| self.unread(steps)).collect())),
            Err(error) => {
                let path = track.path();
                let steps: Vec<Step> = path.iter().filter_map(error_step).collect();
                let place = join(&steps);
                let message = if place.is_empty() { error.to_string() } else { format!("{place}: {error}") };
                Err(YamlError { line: self.line_of(&steps), message })
            }
        }
    }

    /// The line of a key written as `outer.inner`, or of the nearest thing above it.
    pub fn line_of_key(&self, dotted: &str) -> u64 {
        let steps: Vec<Step> = dotted.split('.').map(|key| Step::Key(key.to_owned())).collect();
        self.line_of(&steps)
    }

    fn unread(&self, steps: &[Step]) -> Unread {
        Unread { key: join(steps), line: self.line_of(steps) }
    }

    /// The node at a key written as `outer.inner`.
    pub fn at(&self, dotted: &str) -> Option<&Node> {
        dotted.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// The line of the deepest node that `steps` reaches.
    fn line_of(&self, steps: &[Step]) -> u64 {
        let mut line = self.line;
        let mut node = self;
        for step in steps {
            let next = match (step, &node.tree) {
                (Step::Key(key), Tree::Map(entries)) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| (entry.line, &entry.node))
                }
                (Step::Index(idx), Tree::List(items)) => items.get(*idx).map(|item| (item.line, item)),
                _ => None,
            };
            let Some((next_line, next_node)) = next else { break };
            line = next_line;
            node = next_node;
        }
        line
    }
}

/// One step from a node to a child.
enum Step {
    Key(String),
    Index(usize),
}

fn join(steps: &[Step]) -> String {
    let words: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(idx) => idx.to_string(),
        })
        .collect();
    words.join(".")
}

fn error_step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    }
}

fn ignored_steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = ignored_steps(parent);
    steps.extend(step);
    steps
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or_else(|| Tree::Text(value.to_string()), Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Tree>>()? {
            items.push(node(item));
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Tree>>()?;
            entries.push(Entry { line: key.referenced.line(), key: key.value, node: node(value) });
        }
        Ok(Tree::Map(entries))
    }
}

/// Puts `over` on top of `base`, mapping by mapping; anything that is not a mapping is replaced.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => merge_maps(base, over),
        (base, over) => *base = over.clone(),
    }
}

fn merge_maps(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match base.get_mut(key) {
            Some(old) => merge(old, value),
            None => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
