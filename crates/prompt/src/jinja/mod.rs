//! jinja2 in the dialect of Hugging Face chat templates, over strings that remember their origin.
//!
//! Why not a template crate: the promise that a client's text never becomes a control token needs the origin of every
//! character to survive concatenation, splitting and JSON encoding, which needs the string type itself to carry it; a
//! template comes from a downloaded file, so no source may overflow the stack; and prompts have to be byte-equal to what
//! Python renders (`repr`, `json.dumps`, `Undefined`, slicing by characters, sandbox refusals).

mod ast;
mod budget;
mod expr;
mod filters;
mod format;
mod interp;
mod lexer;
mod methods;
mod ops;
mod parser;
mod predicates;
mod repr;
mod text;
mod time;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use ast::Stmt;
pub(crate) use budget::MAX_VALUE_DEPTH;
pub(crate) use interp::render;
pub(crate) use parser::parse;
pub(crate) use text::{Origin, Text, TextBuilder};
pub(crate) use value::{Dict, Fault, Key, Value};
