//! Python's operators.

use std::cmp::Ordering;

use super::ast::BinaryOp;
use super::budget::{Budget, MAX_RANGE};
use super::format::percent;
use super::repr::to_text;
use super::text::{Text, TextBuilder};
use super::value::{Outcome, SeqKind, Value, fail};

/// `a == b`. The nesting of values is bounded where they are made.
pub(crate) fn equal(a: &Value, b: &Value, budget: &Budget) -> Outcome<bool> {
    budget.charge(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            budget.charge(a.len() / 64)?;
            a == b
        }
        (Value::Seq(kind_a, a), Value::Seq(kind_b, b)) => {
            if !alike(*kind_a, *kind_b) || a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, (_, item)) in a.iter() {
                match b.get(key) {
                    Some((_, other)) if equal(item, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        (a, b) => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => matches!((a.as_float(), b.as_float()), (Some(a), Some(b)) if a == b),
        },
    })
}

/// Are sequences of these kinds equal when their items are?
fn alike(a: SeqKind, b: SeqKind) -> bool {
    a == b || matches!((a, b), (SeqKind::Range { .. }, SeqKind::Range { .. }))
}

/// `a < b` and its kin; `None` for unordered floats.
pub(crate) fn compare(a: &Value, b: &Value, symbol: &str, budget: &Budget) -> Outcome<Option<Ordering>> {
    budget.charge(1)?;
    a.defined()?;
    b.defined()?;
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
        (Value::Seq(kind_a @ (SeqKind::List | SeqKind::Tuple), x), Value::Seq(kind_b, y)) if kind_a == kind_b => {
            for (a, b) in x.iter().zip(y.iter()) {
                if !equal(a, b, budget)? {
                    return compare(a, b, symbol, budget);
                }
            }
            Ok(Some(x.len().cmp(&y.len())))
        }
        _ => match (a.as_int(), b.as_int(), a.as_float(), b.as_float()) {
            (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
            (.., Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
            _ => fail(format!(
                "'{symbol}' not supported between instances of '{}' and '{}'",
                a.type_name(),
                b.type_name()
            )),
        },
    }
}

/// Stable sort by `less`, which may fail and need not be a total order: NaN is none.
pub(crate) fn merge_sort<T>(mut items: Vec<T>, less: &impl Fn(&T, &T) -> Outcome<bool>) -> Outcome<Vec<T>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = items.split_off(items.len() / 2);
    let mut merged = Vec::with_capacity(items.len() + right.len());
    let mut left = merge_sort(items, less)?.into_iter().peekable();
    let mut right = merge_sort(right, less)?.into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let smaller = if less(b, a)? { &mut right } else { &mut left };
        merged.extend(smaller.next());
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

/// `item in container`
pub(crate) fn contains(container: &Value, item: &Value, budget: &Budget) -> Outcome<bool> {
    match container {
        Value::Str(text) => match item {
            Value::Str(part) => {
                budget.charge(1 + text.len() / 16)?;
                Ok(text.as_str().contains(part.as_str()))
            }
            Value::Undefined(absence) => fail(absence.0.clone()),
            other => fail(format!("'in <string>' requires string as left operand, not {}", other.type_name())),
        },
        Value::Dict(entries) => match item {
            Value::Undefined(_) => Ok(false),
            _ => Ok(entries.contains_key(&item.key()?)),
        },
        Value::Undefined(_) => Ok(false),
        other => {
            let Some(items) = walk(other) else {
                return fail(format!("argument of type '{}' is not iterable", other.type_name()));
            };
            for candidate in &items {
                if equal(candidate, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// The items a loop would see, or `None` when the value cannot be walked. A generator is used up.
pub(crate) fn walk(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Undefined(_) => Some(Vec::new()),
        Value::Seq(_, items) => Some(items.to_vec()),
        Value::Generator(items) => Some(items.borrow_mut().take().unwrap_or_default()),
        Value::Dict(entries) => Some(entries.values().map(|(key, _)| key.clone()).collect()),
        Value::Str(text) => {
            let raw = text.as_str();
            let part = |(at, c): (usize, char)| Value::Str(text.slice(at..at + c.len_utf8()));
            Some(raw.char_indices().map(part).collect())
        }
        Value::Loop(state) => {
            let rest = state.items.iter().skip(state.index.get() + 1).cloned();
            Some(rest.collect())
        }
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Namespace(_)
        | Value::Macro(_)
        | Value::Helper(_)
        | Value::Function(_)
        | Value::Method(_) => None,
    }
}

/// The items of a value that has to be iterable.
pub(crate) fn iterate(value: &Value, budget: &Budget) -> Outcome<Vec<Value>> {
    let size = match value {
        Value::Str(text) => text.len(),
        Value::Seq(_, items) => items.len(),
        _ => 1,
    };
    budget.charge(1 + size)?;
    match walk(value) {
        Some(items) => Ok(items),
        None => fail(format!("'{}' object is not iterable", value.type_name())),
    }
}

/// `a op b`
pub(crate) fn binary(op: BinaryOp, a: &Value, b: &Value, budget: &Budget) -> Outcome<Value> {
    budget.charge(1)?;
    a.defined()?;
    if !matches!((op, a), (BinaryOp::Rem, Value::Str(_))) {
        b.defined()?;
    }
    match (op, a, b) {
        (BinaryOp::Add, Value::Str(a), Value::Str(b)) => join_two(a, b, budget).map(Value::Str),
        (BinaryOp::Add, Value::Seq(kind, x), Value::Seq(other, y)) if kind == other && is_joinable(*kind) => {
            budget.charge(x.len() + y.len())?;
            Ok(Value::Seq(*kind, std::rc::Rc::new(x.iter().chain(y.iter()).cloned().collect())))
        }
        (BinaryOp::Mul, Value::Str(text), count) | (BinaryOp::Mul, count, Value::Str(text)) => {
            repeat_text(text, count, budget)
        }
        (BinaryOp::Mul, Value::Seq(kind, items), count) | (BinaryOp::Mul, count, Value::Seq(kind, items))
            if is_joinable(*kind) =>
        {
            let Some(count) = count.as_int() else { return mismatch(op, a, b) };
            let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
            let total = items.len().saturating_mul(count);
            if total > MAX_RANGE {
                return Err(super::value::Fault::Limit { resource: "items in one list", limit: MAX_RANGE as u64 });
            }
            budget.charge(total)?;
            let repeated = std::iter::repeat_n(items.iter(), count).flatten().cloned().collect();
            Ok(Value::Seq(*kind, std::rc::Rc::new(repeated)))
        }
        (BinaryOp::Rem, Value::Str(text), args) => percent(text, args, budget).map(Value::Str),
        _ => match (a.as_int(), b.as_int(), a.as_float(), b.as_float()) {
            (Some(x), Some(y), ..) => int_op(op, x, y),
            (.., Some(x), Some(y)) => float_op(op, x, y),
            _ => mismatch(op, a, b),
        },
    }
}

fn is_joinable(kind: SeqKind) -> bool {
    matches!(kind, SeqKind::List | SeqKind::Tuple)
}

fn mismatch(op: BinaryOp, a: &Value, b: &Value) -> Outcome<Value> {
    if let (BinaryOp::Add, Value::Str(_) | Value::Seq(SeqKind::List, _)) = (op, a) {
        let (kind, other) = (a.type_name(), b.type_name());
        return fail(format!("can only concatenate {kind} (not \"{other}\") to {kind}"));
    }
    let symbol = match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::FloorDiv => "//",
        BinaryOp::Rem => "%",
        BinaryOp::Pow => "** or pow()",
    };
    fail(format!("unsupported operand type(s) for {symbol}: '{}' and '{}'", a.type_name(), b.type_name()))
}

fn join_two(a: &Text, b: &Text, budget: &Budget) -> Outcome<Text> {
    budget.text(a.len() + b.len())?;
    let mut out = TextBuilder::new();
    let markup = a.markup || b.markup;
    for part in [a, b] {
        if markup { out.push(&part.escaped()) } else { out.push(part) }
    }
    Ok(out.finish().with_markup(markup))
}

fn repeat_text(text: &Text, count: &Value, budget: &Budget) -> Outcome<Value> {
    let Some(count) = count.as_int() else {
        return fail(format!("can't multiply sequence by non-int of type '{}'", count.type_name()));
    };
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    budget.text(text.len().saturating_mul(count))?;
    let mut out = TextBuilder::new();
    if !text.is_empty() {
        for _ in 0..count {
            out.push(text);
        }
    }
    Ok(Value::Str(out.finish().with_markup(text.markup)))
}

fn int_op(op: BinaryOp, x: i128, y: i128) -> Outcome<Value> {
    let by_zero = y == 0 && matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem);
    if by_zero {
        return fail("division by zero");
    }
    let result = match op {
        BinaryOp::Add => x.checked_add(y),
        BinaryOp::Sub => x.checked_sub(y),
        BinaryOp::Mul => x.checked_mul(y),
        BinaryOp::Div => return Ok(Value::Float(x as f64 / y as f64)),
        BinaryOp::FloorDiv => x.checked_div_euclid(y).map(|quotient| {
            // Euclid rounds towards a non-negative remainder, Python towards minus infinity.
            if y < 0 && x.rem_euclid(y) != 0 { quotient - 1 } else { quotient }
        }),
        BinaryOp::Rem => x.checked_rem_euclid(y).map(|rest| if y < 0 && rest != 0 { rest + y } else { rest }),
        BinaryOp::Pow if y < 0 => return float_op(op, x as f64, y as f64),
        BinaryOp::Pow => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
    };
    match result {
        Some(value) => Ok(Value::Int(value)),
        None => fail("an integer grew beyond 127 bits"),
    }
}

fn float_op(op: BinaryOp, x: f64, y: f64) -> Outcome<Value> {
    let by_zero = y == 0.0 && matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Rem);
    if by_zero {
        return fail("float division by zero");
    }
    Ok(Value::Float(match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::FloorDiv => (x / y).floor(),
        BinaryOp::Rem => x - y * (x / y).floor(),
        BinaryOp::Pow => x.powf(y),
    }))
}

/// `a ~ b ~ …`
pub(crate) fn concat(parts: &[Value], autoescape: bool, budget: &Budget) -> Outcome<Value> {
    let texts = parts.iter().map(|part| to_text(part, budget)).collect::<Outcome<Vec<Text>>>()?;
    if autoescape && texts.iter().any(|text| text.markup) {
        let escaped: Vec<Text> = texts.iter().map(Text::escaped).collect();
        return join(&escaped, budget).map(|text| Value::Str(text.with_markup(true)));
    }
    join(&texts, budget).map(Value::Str)
}

/// Joins without a separator.
pub(crate) fn join(texts: &[Text], budget: &Budget) -> Outcome<Text> {
    budget.text(texts.iter().map(Text::len).sum())?;
    let mut out = TextBuilder::new();
    texts.iter().for_each(|text| out.push(text));
    Ok(out.finish())
}

/// Where a Python index points in a sequence of `len`, if anywhere.
pub(crate) fn index(at: i128, len: usize) -> Option<usize> {
    let at = if at < 0 { at + len as i128 } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// The bounds and the step that `[start:stop:step]` comes to for a sequence of `len`.
pub(crate) fn slice_bounds(len: usize, [start, stop, step]: [Option<i128>; 3]) -> Outcome<[i128; 3]> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("slice step cannot be zero");
    }
    let len = len as i128;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |at: i128| if at < 0 { (at.saturating_add(len)).max(low) } else { at.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    Ok([start, stop, step])
}

/// The indices that a slice of these bounds takes.
pub(crate) fn slice_indices([start, stop, step]: [i128; 3]) -> Vec<usize> {
    let mut taken = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        taken.push(usize::try_from(at).unwrap_or(0));
        at = at.saturating_add(step);
    }
    taken
}

/// `text[start:stop:step]`
pub(crate) fn slice_text(text: &Text, bounds: [Option<i128>; 3], budget: &Budget) -> Outcome<Text> {
    budget.text(text.len())?;
    let mut places: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).collect();
    places.push(text.len());
    let taken = slice_indices(slice_bounds(places.len() - 1, bounds)?);
    if let (Some(first), Some(last), None | Some(1)) = (taken.first(), taken.last(), bounds[2]) {
        return Ok(text.slice(places[*first]..places[*last + 1]));
    }
    let mut out = TextBuilder::new();
    for at in taken {
        out.push_range(text, places[at]..places[at + 1]);
    }
    Ok(out.finish().with_markup(text.markup))
}
