//! Values of the template language, after Python's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::ast::{Literal, MacroDef};
use super::text::{Origin, Text};

/// What stops a rendering.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// `raise_exception(message)`
    Refused(String),
    /// Python would have raised.
    Failed(String),
    /// A limit of ours.
    Limit { resource: &'static str, limit: u64 },
}

pub(crate) type Outcome<T> = Result<T, Fault>;

/// A failure with Python's words.
pub(crate) fn fail<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Fault::Failed(reason.into()))
}

/// Which of Python's sequences a [`Value::Seq`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeqKind {
    List,
    Tuple,
    /// With its bounds, which it prints.
    Range {
        start: i64,
        stop: i64,
        step: i64,
    },
    /// `dict.keys()`
    Keys,
    /// `dict.values()`
    Values,
    /// `dict.items()`
    Items,
}

impl SeqKind {
    /// A view of a dictionary: walked, but neither indexed nor sliced.
    pub fn is_view(self) -> bool {
        matches!(self, SeqKind::Keys | SeqKind::Values | SeqKind::Items)
    }
}

/// A variable scope; an inner one sees the outer ones.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub vars: RefCell<HashMap<Arc<str>, Value>>,
    pub parent: Option<Rc<Scope>>,
}

impl Scope {
    pub fn child(parent: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { vars: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub fn set(&self, name: Arc<str>, value: Value) {
        self.vars.borrow_mut().insert(name, value);
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(current) = scope {
            if let Some(value) = current.vars.borrow().get(name) {
                return Some(value.clone());
            }
            scope = current.parent.as_deref();
        }
        None
    }
}

/// A macro, or the body of a call block, with the scope it was defined in.
#[derive(Debug)]
pub(crate) struct Closure {
    pub def: Arc<MacroDef>,
    /// Index into the interpreter's table of scopes: a scope that holds a macro that holds the scope would never be freed.
    pub scope: usize,
    /// Was it defined inside `{% autoescape true %}`?
    pub autoescape: bool,
}

/// The `loop` variable.
#[derive(Debug)]
pub(crate) struct LoopState {
    pub items: Rc<Vec<Value>>,
    pub index: Cell<usize>,
    pub depth: usize,
    /// What `loop.changed` saw last, printed.
    pub last_changed: RefCell<Option<String>>,
    /// For `loop(children)` of a recursive loop.
    pub recursive: Option<(Arc<super::ast::ForLoop>, usize)>,
}

/// `cycler(…)` and `joiner(…)`.
#[derive(Debug)]
pub(crate) enum Helper {
    Cycler { items: Vec<Value>, at: Cell<usize> },
    Joiner { separator: Text, used: Cell<bool> },
}

/// Why a value is not there, in jinja2's words; using it raises them.
#[derive(Debug)]
pub(crate) struct Absence(pub String);

/// A dictionary, in insertion order.
pub(crate) type Dict = IndexMap<Key, (Value, Value)>;

/// A dictionary key with Python's equality: `1`, `1.0` and `True` are one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Arc<str>),
    Tuple(Vec<Key>),
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Undefined(Rc<Absence>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
    Seq(SeqKind, Rc<Vec<Value>>),
    /// A generator: it can be walked once.
    Generator(Rc<RefCell<Option<Vec<Value>>>>),
    Dict(Rc<Dict>),
    /// Index into the interpreter's namespaces.
    Namespace(usize),
    Macro(Rc<Closure>),
    Loop(Rc<LoopState>),
    Helper(Rc<Helper>),
    /// A function of the environment.
    Function(&'static str),
    /// A method looked up on a value: it is called later.
    Method(Rc<(Value, Arc<str>)>),
}

impl Value {
    pub fn str(text: impl Into<Arc<str>>) -> Self {
        Value::Str(Text::template(text))
    }

    pub fn list(items: Vec<Value>) -> Self {
        Value::Seq(SeqKind::List, Rc::new(items))
    }

    pub fn tuple(items: Vec<Value>) -> Self {
        Value::Seq(SeqKind::Tuple, Rc::new(items))
    }

    pub fn generator(items: Vec<Value>) -> Self {
        Value::Generator(Rc::new(RefCell::new(Some(items))))
    }

    pub fn undefined(reason: impl Into<String>) -> Self {
        Value::Undefined(Rc::new(Absence(reason.into())))
    }

    pub fn from_literal(literal: &Literal) -> Self {
        match literal {
            Literal::None => Value::None,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Float(value) => Value::Float(*value),
            Literal::Str(text) => Value::Str(Text::template(text.clone())),
        }
    }

    /// From JSON; every string and key gets `origin`. The nesting must be bounded by the caller.
    pub fn from_json(json: &serde_json::Value, origin: Origin) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value.into()),
                (None, Some(value)) => Value::Int(value.into()),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(Text::new(text.as_str(), origin)),
            Json::Array(items) => Value::list(items.iter().map(|item| Value::from_json(item, origin)).collect()),
            Json::Object(map) => {
                let entry = |(key, value): (&String, &Json)| {
                    let key = Text::new(key.as_str(), origin);
                    (Key::Str(key.shared()), (Value::Str(key), Value::from_json(value, origin)))
                };
                Value::Dict(Rc::new(map.iter().map(entry).collect()))
            }
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Value::Undefined(_))
    }

    /// Python's truth.
    pub fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::Seq(_, items) => !items.is_empty(),
            Value::Dict(entries) => !entries.is_empty(),
            Value::Loop(state) => !state.items.is_empty(),
            Value::Generator(_)
            | Value::Namespace(_)
            | Value::Macro(_)
            | Value::Helper(_)
            | Value::Function(_)
            | Value::Method(_) => true,
        }
    }

    /// The name of the Python type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(text) if text.markup => "Markup",
            Value::Str(_) => "str",
            Value::Seq(SeqKind::List, _) => "list",
            Value::Seq(SeqKind::Tuple, _) => "tuple",
            Value::Seq(SeqKind::Range { .. }, _) => "range",
            Value::Seq(SeqKind::Keys, _) => "dict_keys",
            Value::Seq(SeqKind::Values, _) => "dict_values",
            Value::Seq(SeqKind::Items, _) => "dict_items",
            Value::Generator(_) => "generator",
            Value::Dict(_) => "dict",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Helper(_) => "Cycler",
            Value::Function(_) | Value::Method(_) => "function",
        }
    }

    /// As a number, where Python's arithmetic would take it.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// As a float, where Python's arithmetic would take it.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            _ => self.as_int().map(|value| value as f64),
        }
    }

    /// As a dictionary key.
    pub fn key(&self) -> Outcome<Key> {
        match self {
            Value::None => Ok(Key::None),
            Value::Bool(value) => Ok(Key::Int(i128::from(*value))),
            Value::Int(value) => Ok(Key::Int(*value)),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => Ok(Key::Int(*value as i128)),
            Value::Float(value) => Ok(Key::Float(value.to_bits())),
            Value::Str(text) => Ok(Key::Str(text.shared())),
            Value::Seq(SeqKind::Tuple, items) => {
                Ok(Key::Tuple(items.iter().map(Value::key).collect::<Outcome<Vec<Key>>>()?))
            }
            other => fail(format!("unhashable type: '{}'", other.type_name())),
        }
    }

    /// Fails with the reason when undefined.
    pub fn defined(&self) -> Outcome<()> {
        match self {
            Value::Undefined(absence) => fail(absence.0.clone()),
            _ => Ok(()),
        }
    }
}

/// Looks up a string key.
pub(crate) fn dict_get<'d>(dict: &'d Dict, key: &str) -> Option<&'d Value> {
    dict.get(&Key::Str(Arc::from(key))).map(|(_, value)| value)
}
