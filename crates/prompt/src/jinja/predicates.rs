//! The tests of `x is test`.

use super::ast::CompareOp;
use super::expr::compare_once;
use super::interp::Interp;
use super::methods::Args;
use super::ops::equal;
use super::value::{Outcome, Value, fail};

/// Names that tests go by.
pub(super) const TESTS: &[&str] = &[
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

impl Interp {
    /// `value is name(args)`
    pub(super) fn test(&mut self, name: &str, value: &Value, args: &Args) -> Outcome<bool> {
        if let Some(op) = comparison(name) {
            let Some(other) = args.positional.first() else { return fail(format!("test '{name}' needs an argument")) };
            return compare_once(op, value, other, &self.budget);
        }
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" => is_sequence(value),
            "iterable" => is_iterable(value),
            "callable" => matches!(
                value,
                Value::Macro(_)
                    | Value::Function(_)
                    | Value::Method(_)
                    | Value::Helper(_)
                    | Value::Loop(_)
                    | Value::Undefined(_)
            ),
            "escaped" => matches!(value, Value::Str(text) if text.markup),
            "lower" | "upper" => self.is_cased(value, name)?,
            "odd" | "even" => parity(value, name)?,
            "divisibleby" => divisible(value, args)?,
            "sameas" => self.same(value, args)?,
            "filter" => matches!(value, Value::Str(name) if super::filters::FILTERS.contains(&name.as_str())),
            "test" => matches!(value, Value::Str(name) if TESTS.contains(&name.as_str())),
            _ => return fail(format!("No test named '{name}' found.")),
        })
    }

    fn is_cased(&self, value: &Value, name: &str) -> Outcome<bool> {
        let text = super::repr::to_text(value, &self.budget)?;
        let method = if name == "lower" { "islower" } else { "isupper" };
        let cased = super::methods::call_str(&text, method, &Args::default(), &self.budget)?;
        Ok(cased.truth())
    }

    fn same(&self, value: &Value, args: &Args) -> Outcome<bool> {
        match args.positional.first() {
            Some(other) => Ok(value.type_name() == other.type_name() && equal(value, other, &self.budget)?),
            None => fail("test 'sameas' needs an argument"),
        }
    }
}

fn comparison(name: &str) -> Option<CompareOp> {
    Some(match name {
        "==" | "eq" | "equalto" => CompareOp::Eq,
        "!=" | "ne" => CompareOp::Ne,
        ">" | "gt" | "greaterthan" => CompareOp::Gt,
        ">=" | "ge" => CompareOp::Ge,
        "<" | "lt" | "lessthan" => CompareOp::Lt,
        "<=" | "le" => CompareOp::Le,
        "in" => CompareOp::In,
        _ => return None,
    })
}

fn is_sequence(value: &Value) -> bool {
    match value {
        Value::Seq(kind, _) => !kind.is_view(),
        Value::Str(_) | Value::Dict(_) | Value::Undefined(_) => true,
        _ => false,
    }
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        value,
        Value::Seq(..) | Value::Str(_) | Value::Dict(_) | Value::Undefined(_) | Value::Generator(_) | Value::Loop(_)
    )
}

fn parity(value: &Value, name: &str) -> Outcome<bool> {
    value.defined()?;
    let odd = match (value.as_int(), value.as_float()) {
        (Some(value), _) => value.rem_euclid(2) == 1,
        (None, Some(value)) => value.rem_euclid(2.0) == 1.0,
        (None, None) => return fail(format!("test '{name}' needs a number, not {}", value.type_name())),
    };
    Ok(odd == (name == "odd"))
}

fn divisible(value: &Value, args: &Args) -> Outcome<bool> {
    match (value.as_int(), args.int(0, "num")?) {
        (Some(_), Some(0)) => fail("integer modulo by zero"),
        (Some(value), Some(divisor)) => Ok(value.checked_rem(divisor).unwrap_or(0) == 0),
        _ => fail("test 'divisibleby' needs integers"),
    }
}
