//! Evaluates expressions.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{CallArgs, CompareOp, Expr, MacroDef, SliceExpr, UnaryOp};
use super::budget::{Budget, MAX_RANGE};
use super::format::braces;
use super::interp::Interp;
use super::methods::{self, Args, Lookup};
use super::ops;
use super::repr::{repr, to_text};
use super::text::{Origin, Text};
use super::value::{Dict, Fault, Helper, LoopState, Outcome, Scope, SeqKind, Value, dict_get, fail};

impl Interp {
    pub(super) fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        self.budget.enter()?;
        let value = self.eval_node(expr, scope)?;
        self.budget.leave();
        Ok(value)
    }

    fn eval_node(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        match expr {
            Expr::Literal(literal) => Ok(Value::from_literal(literal)),
            Expr::Name(name) => {
                Ok(scope.get(name).unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined"))))
            }
            Expr::List(items) => self.eval_all(items, scope).and_then(|items| self.budget.shallow(Value::list(items))),
            Expr::Tuple(items) => {
                self.eval_all(items, scope).and_then(|items| self.budget.shallow(Value::tuple(items)))
            }
            Expr::Dict(pairs) => self.dict_literal(pairs, scope),
            Expr::Binary(op, a, b) => {
                let a = self.eval(a, scope)?;
                let b = self.eval(b, scope)?;
                ops::binary(*op, &a, &b, &self.budget)
            }
            Expr::Concat(parts) => {
                let parts = self.eval_all(parts, scope)?;
                ops::concat(&parts, self.autoescape, &self.budget)
            }
            Expr::And(a, b) => {
                let a = self.eval(a, scope)?;
                if a.truth() { self.eval(b, scope) } else { Ok(a) }
            }
            Expr::Or(a, b) => {
                let a = self.eval(a, scope)?;
                if a.truth() { Ok(a) } else { self.eval(b, scope) }
            }
            Expr::Unary(op, operand) => unary(*op, &self.eval(operand, scope)?),
            Expr::Compare(first, rest) => self.comparison(first, rest, scope),
            Expr::Cond { test, then, otherwise } => match (self.eval(test, scope)?.truth(), otherwise) {
                (true, _) => self.eval(then, scope),
                (false, Some(otherwise)) => self.eval(otherwise, scope),
                (false, None) => {
                    Ok(Value::undefined("the inline if-expression evaluated to false and no else section was defined."))
                }
            },
            Expr::Attr(target, name) => {
                let target = self.eval(target, scope)?;
                self.attribute(&target, name)
            }
            Expr::Item(target, key) => {
                let target = self.eval(target, scope)?;
                let key = self.eval(key, scope)?;
                self.item(&target, &key)
            }
            Expr::Slice(target, bounds) => {
                let target = self.eval(target, scope)?;
                self.slice(&target, bounds, scope)
            }
            Expr::Call(callee, args) => {
                let callee = self.eval(callee, scope)?;
                let args = self.args(args, scope)?;
                self.call(&callee, args)
            }
            Expr::Filter { target: Some(target), name, args } => {
                let target = self.eval(target, scope)?;
                let args = self.args(args, scope)?;
                self.filter(name, target, args)
            }
            Expr::Filter { target: None, .. } => fail("a filter without a value"),
            Expr::Test { target, name, args } => {
                let target = self.eval(target, scope)?;
                let args = self.args(args, scope)?;
                self.test(name, &target, &args).map(Value::Bool)
            }
        }
    }

    fn eval_all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Outcome<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn dict_literal(&mut self, pairs: &[(Expr, Expr)], scope: &Rc<Scope>) -> Outcome<Value> {
        let mut entries = Dict::new();
        for (key, item) in pairs {
            let key = self.eval(key, scope)?;
            let item = self.eval(item, scope)?;
            insert(&mut entries, key, item)?;
        }
        self.budget.shallow(Value::Dict(Rc::new(entries)))
    }

    fn comparison(&mut self, first: &Expr, rest: &[(CompareOp, Expr)], scope: &Rc<Scope>) -> Outcome<Value> {
        let mut left = self.eval(first, scope)?;
        for (op, right) in rest {
            let right = self.eval(right, scope)?;
            if !compare_once(*op, &left, &right, &self.budget)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Evaluates a filter chain whose innermost filter has no target yet.
    pub(super) fn apply_filter_chain(&mut self, chain: &Expr, value: Value, scope: &Rc<Scope>) -> Outcome<Value> {
        let Expr::Filter { target, name, args } = chain else { return fail("a filter is needed here") };
        let value = match target {
            Some(inner) => self.apply_filter_chain(inner, value, scope)?,
            None => value,
        };
        let args = self.args(args, scope)?;
        self.filter(name, value, args)
    }

    pub(super) fn args(&mut self, args: &CallArgs, scope: &Rc<Scope>) -> Outcome<Args> {
        let mut positional = self.eval_all(&args.positional, scope)?;
        let mut named = Vec::with_capacity(args.named.len());
        for (name, expr) in &args.named {
            named.push((name.clone(), self.eval(expr, scope)?));
        }
        if let Some(rest) = &args.rest {
            let rest = self.eval(rest, scope)?;
            positional.extend(ops::iterate(&rest, &self.budget)?);
        }
        if let Some(rest) = &args.named_rest {
            match self.eval(rest, scope)? {
                Value::Dict(entries) => {
                    for (key, item) in entries.values() {
                        named.push((to_text(key, &self.budget)?.shared(), item.clone()));
                    }
                }
                other => return fail(format!("argument after ** must be a mapping, not {}", other.type_name())),
            }
        }
        Ok(Args { positional, named })
    }

    /// `value.name`
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Outcome<Value> {
        value.defined()?;
        if let Some(found) = self.python_attribute(value, name) {
            return Ok(found);
        }
        if let Some(found) = methods::dict_field(value, name) {
            return Ok(found);
        }
        Ok(Value::undefined(match value {
            Value::None => format!("'None' has no attribute '{name}'"),
            other => format!("'{} object' has no attribute '{name}'", other.type_name()),
        }))
    }

    /// What Python's `getattr` would find, under the sandbox.
    pub(super) fn python_attribute(&self, value: &Value, name: &str) -> Option<Value> {
        match value {
            Value::Namespace(at) => return self.namespaces[*at].get(name).cloned(),
            Value::Loop(state) => return loop_attribute(state, name),
            Value::Macro(closure) => return macro_attribute(&closure.def, name),
            Value::Helper(helper) => return helper_attribute(value, helper, name),
            Value::Seq(SeqKind::Tuple, items) if items.len() == 2 && name == "grouper" => {
                return Some(items[0].clone());
            }
            Value::Seq(SeqKind::Tuple, items) if items.len() == 2 && name == "list" => return Some(items[1].clone()),
            _ => {}
        }
        match methods::lookup(value, name) {
            Lookup::Missing => None,
            Lookup::Method => Some(Value::Method(Rc::new((value.clone(), Arc::from(name))))),
            Lookup::Unsafe => Some(Value::undefined(format!(
                "access to attribute '{name}' of '{}' object is unsafe.",
                value.type_name()
            ))),
        }
    }

    /// `value[key]`
    pub(super) fn item(&mut self, value: &Value, key: &Value) -> Outcome<Value> {
        value.defined()?;
        let found = match (value, key) {
            (Value::Dict(entries), key) if !matches!(key, Value::Undefined(_)) => {
                key.key().ok().and_then(|key| entries.get(&key)).map(|(_, item)| item.clone())
            }
            (Value::Seq(kind, items), key) if !kind.is_view() => {
                key.as_int().and_then(|at| ops::index(at, items.len())).map(|at| items[at].clone())
            }
            (Value::Str(text), key) => match key.as_int() {
                Some(at) => self.char_at(text, at)?,
                None => None,
            },
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Value::Str(name) = key
            && let Some(found) = self.python_attribute(value, name.as_str())
        {
            return Ok(found);
        }
        let kind = value.type_name();
        Ok(Value::undefined(match key {
            Value::Str(name) if matches!(value, Value::None) => format!("'None' has no attribute '{}'", name.as_str()),
            Value::Str(name) => format!("'{kind} object' has no attribute '{}'", name.as_str()),
            key => format!("{kind} object has no element {}", to_text(key, &self.budget)?.as_str()),
        }))
    }

    fn char_at(&self, text: &Text, at: i128) -> Outcome<Option<Value>> {
        self.budget.charge(1 + text.len() / 16)?;
        let raw = text.as_str();
        let found = if at < 0 {
            usize::try_from(-(at + 1)).ok().and_then(|from_end| raw.char_indices().rev().nth(from_end))
        } else {
            usize::try_from(at).ok().and_then(|at| raw.char_indices().nth(at))
        };
        Ok(found.map(|(at, c)| Value::Str(text.slice(at..at + c.len_utf8()))))
    }

    fn slice(&mut self, target: &Value, bounds: &SliceExpr, scope: &Rc<Scope>) -> Outcome<Value> {
        target.defined()?;
        let mut parts = [None; 3];
        for (part, expr) in parts.iter_mut().zip([&bounds.start, &bounds.stop, &bounds.step]) {
            let Some(expr) = expr else { continue };
            *part = match self.eval(expr, scope)? {
                Value::None => None,
                value => match value.as_int() {
                    Some(value) => Some(value),
                    None => return Ok(Value::undefined("slice indices must be integers or None")),
                },
            };
        }
        match target {
            Value::Str(text) => ops::slice_text(text, parts, &self.budget).map(Value::Str),
            Value::Seq(kind, items) if !kind.is_view() => {
                self.budget.charge(items.len())?;
                let bounds = ops::slice_bounds(items.len(), parts)?;
                let taken = ops::slice_indices(bounds);
                let kind = sliced_kind(*kind, bounds);
                Ok(Value::Seq(kind, Rc::new(taken.into_iter().map(|at| items[at].clone()).collect())))
            }
            other => fail(format!("'{}' object is not subscriptable", other.type_name())),
        }
    }

    /// Calls a value.
    pub(super) fn call(&mut self, callee: &Value, args: Args) -> Outcome<Value> {
        match callee {
            Value::Undefined(absence) => fail(absence.0.clone()),
            Value::Macro(closure) => self.call_macro(closure, args),
            Value::Loop(state) => self.recurse(state, &args),
            Value::Function(name) => self.call_function(name, args),
            Value::Helper(helper) => call_helper(helper),
            Value::Method(bound) => {
                let (receiver, name) = &**bound;
                match receiver {
                    Value::Str(text) if matches!(&**name, "format" | "format_map") => {
                        self.str_format(text, name, &args)
                    }
                    Value::Str(text) => methods::call_str(text, name, &args, &self.budget),
                    Value::Loop(state) => self.loop_method(state, name, args),
                    Value::Helper(helper) => call_cycler_method(helper, name),
                    other => methods::call_container(other, name, &args, &self.budget),
                }
            }
            other => fail(format!("'{}' object is not callable", other.type_name())),
        }
    }

    fn str_format(&mut self, text: &Text, name: &str, args: &Args) -> Outcome<Value> {
        let mut named = args.named.clone();
        if let ("format_map", Some(Value::Dict(entries))) = (name, args.positional.first()) {
            for (key, item) in entries.values() {
                named.push((to_text(key, &self.budget)?.shared(), item.clone()));
            }
        }
        let lookup = |value: &Value, key: &str, attribute: bool| {
            let found = match (value, attribute, key.parse::<i128>()) {
                (Value::Seq(_, items), false, Ok(at)) => ops::index(at, items.len()).map(|at| items[at].clone()),
                (Value::Dict(entries), false, _) => dict_get(entries, key).cloned(),
                _ => None,
            };
            found.map_or_else(|| fail(format!("the format field '{key}' is not there")), Ok)
        };
        braces(text, &args.positional, &named, &lookup, &self.budget).map(Value::Str)
    }

    fn loop_method(&mut self, state: &LoopState, name: &str, args: Args) -> Outcome<Value> {
        if name == "cycle" {
            let count = args.positional.len();
            if count == 0 {
                return fail("no items for cycling given");
            }
            return Ok(args.positional[state.index.get() % count].clone());
        }
        // The printed form stands for the values: keeping them could tie the loop to itself.
        let now = repr(&Value::tuple(args.positional), &self.budget)?.as_str().to_owned();
        let same = state.last_changed.replace(Some(now.clone())) == Some(now);
        Ok(Value::Bool(!same))
    }

    fn call_function(&mut self, name: &str, args: Args) -> Outcome<Value> {
        match name {
            "namespace" => self.new_namespace(args),
            "range" => range(&args, &self.budget),
            "dict" => {
                let mut entries = match args.positional.first() {
                    Some(Value::Dict(entries)) => (**entries).clone(),
                    Some(other) => pairs_to_dict(other, &self.budget)?,
                    None => Dict::new(),
                };
                for (name, value) in args.named {
                    insert(&mut entries, argument_name(name), value)?;
                }
                self.budget.charge(entries.len())?;
                self.budget.shallow(Value::Dict(Rc::new(entries)))
            }
            "cycler" if args.positional.is_empty() => fail("at least one item has to be provided"),
            "cycler" => {
                self.budget.shallow(Value::Helper(Rc::new(Helper::Cycler { items: args.positional, at: Cell::new(0) })))
            }
            "joiner" => {
                let separator = args.text(0, "sep")?.cloned().unwrap_or_else(|| Text::template(", "));
                Ok(Value::Helper(Rc::new(Helper::Joiner { separator, used: Cell::new(false) })))
            }
            "raise_exception" => {
                let message = match args.get(0, "message") {
                    Some(message) => to_text(message, &self.budget)?.as_str().to_owned(),
                    None => "no reason given".to_owned(),
                };
                Err(Fault::Refused(message))
            }
            _ => {
                let Some(format) = args.text(0, "format")? else { return fail("strftime_now needs a format") };
                let Some(now) = self.now else { return fail("strftime_now has no time to print") };
                super::time::strftime(now, format.as_str()).map(Value::str)
            }
        }
    }

    fn new_namespace(&mut self, args: Args) -> Outcome<Value> {
        let mut attributes = std::collections::HashMap::new();
        if let Some(Value::Dict(entries)) = args.positional.first() {
            for (key, item) in entries.values() {
                attributes.insert(to_text(key, &self.budget)?.shared(), item.clone());
            }
        }
        attributes.extend(args.named);
        self.budget.charge(1 + attributes.len())?;
        self.namespaces.push(attributes);
        Ok(Value::Namespace(self.namespaces.len() - 1))
    }
}

fn unary(op: UnaryOp, operand: &Value) -> Outcome<Value> {
    if op == UnaryOp::Not {
        return Ok(Value::Bool(!operand.truth()));
    }
    operand.defined()?;
    let sign = if op == UnaryOp::Neg { -1 } else { 1 };
    match (operand.as_int(), operand.as_float()) {
        (Some(value), _) => {
            value.checked_mul(sign).map_or_else(|| fail("an integer grew too large"), |v| Ok(Value::Int(v)))
        }
        (None, Some(value)) => Ok(Value::Float(value * sign as f64)),
        (None, None) => fail(format!("bad operand type for unary -: '{}'", operand.type_name())),
    }
}

pub(super) fn compare_once(op: CompareOp, left: &Value, right: &Value, budget: &Budget) -> Outcome<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match op {
        CompareOp::Eq => ops::equal(left, right, budget)?,
        CompareOp::Ne => !ops::equal(left, right, budget)?,
        CompareOp::In => ops::contains(right, left, budget)?,
        CompareOp::NotIn => !ops::contains(right, left, budget)?,
        CompareOp::Lt => ops::compare(left, right, "<", budget)? == Some(Less),
        CompareOp::Le => matches!(ops::compare(left, right, "<=", budget)?, Some(Less | Equal)),
        CompareOp::Gt => ops::compare(left, right, ">", budget)? == Some(Greater),
        CompareOp::Ge => matches!(ops::compare(left, right, ">=", budget)?, Some(Greater | Equal)),
    })
}

fn insert(entries: &mut Dict, key: Value, item: Value) -> Outcome<()> {
    let hashed = key.key()?;
    match entries.get_mut(&hashed) {
        Some((_, old)) => *old = item,
        None => {
            entries.insert(hashed, (key, item));
        }
    }
    Ok(())
}

/// A dictionary of named values.
/// The name of a keyword argument as a key. It may be a client's, by way of `**arguments`.
fn argument_name(name: Arc<str>) -> Value {
    Value::Str(Text::new(name, Origin::Client))
}

pub(super) fn dict_of(named: Vec<(Arc<str>, Value)>) -> Outcome<Value> {
    let mut entries = Dict::new();
    for (name, value) in named {
        insert(&mut entries, argument_name(name), value)?;
    }
    Ok(Value::Dict(Rc::new(entries)))
}

fn pairs_to_dict(pairs: &Value, budget: &Budget) -> Outcome<Dict> {
    let mut entries = Dict::new();
    for pair in ops::iterate(pairs, budget)? {
        let parts = ops::iterate(&pair, budget)?;
        let [key, item] = parts.as_slice() else {
            return fail("dictionary update sequence elements must have length 2");
        };
        insert(&mut entries, key.clone(), item.clone())?;
    }
    Ok(entries)
}

fn range(args: &Args, budget: &Budget) -> Outcome<Value> {
    let numbers = (0..args.positional.len()).map(|at| args.int(at, "range")).collect::<Outcome<Vec<_>>>()?;
    let (start, stop, step) = match numbers.as_slice() {
        [Some(stop)] => (0, *stop, 1),
        [Some(start), Some(stop)] => (*start, *stop, 1),
        [Some(start), Some(stop), Some(step)] => (*start, *stop, *step),
        _ => return fail("range expected 1 to 3 integers"),
    };
    if step == 0 {
        return fail("range() arg 3 must not be zero");
    }
    let mut items = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if items.len() >= MAX_RANGE {
            return fail(format!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MAX_RANGE})."));
        }
        items.push(Value::Int(at));
        at = at.saturating_add(step);
    }
    budget.charge(items.len())?;
    let bound = |value: i128| i64::try_from(value).or_else(|_| fail("a bound of a range is beyond 64 bits"));
    let kind = SeqKind::Range { start: bound(start)?, stop: bound(stop)?, step: bound(step)? };
    Ok(Value::Seq(kind, Rc::new(items)))
}

/// The kind of the slice `[from:to:by]` of a sequence: of a range it is one.
fn sliced_kind(kind: SeqKind, [from, to, by]: [i128; 3]) -> SeqKind {
    let SeqKind::Range { start, step, .. } = kind else { return kind };
    let scaled = |value: i128| i64::try_from(value).unwrap_or(i64::MAX).saturating_mul(step);
    SeqKind::Range {
        start: start.saturating_add(scaled(from)),
        stop: start.saturating_add(scaled(to)),
        step: scaled(by),
    }
}

fn macro_attribute(def: &MacroDef, name: &str) -> Option<Value> {
    Some(match name {
        "name" => Value::str(def.name.clone()),
        "arguments" => Value::tuple(def.params.iter().map(|(name, _)| Value::str(name.clone())).collect()),
        "catch_varargs" => Value::Bool(def.takes_varargs),
        "catch_kwargs" => Value::Bool(def.takes_kwargs),
        "caller" => Value::Bool(def.takes_caller),
        _ => return None,
    })
}

fn loop_attribute(state: &Rc<LoopState>, name: &str) -> Option<Value> {
    let (idx, len) = (state.index.get(), state.items.len());
    let int = |value: usize| Some(Value::Int(value as i128));
    match name {
        "index" => int(idx + 1),
        "index0" => int(idx),
        "revindex" => int(len - idx),
        "revindex0" => int(len - idx - 1),
        "first" => Some(Value::Bool(idx == 0)),
        "last" => Some(Value::Bool(idx + 1 == len)),
        "length" => int(len),
        "depth" => int(state.depth + 1),
        "depth0" => int(state.depth),
        "previtem" => Some(match idx.checked_sub(1) {
            Some(at) => state.items[at].clone(),
            None => Value::undefined("there is no previous item"),
        }),
        "nextitem" => {
            let next = state.items.get(idx + 1).cloned();
            Some(next.unwrap_or_else(|| Value::undefined("there is no next item")))
        }
        "cycle" | "changed" => Some(Value::Method(Rc::new((Value::Loop(state.clone()), Arc::from(name))))),
        _ => None,
    }
}

fn helper_attribute(value: &Value, helper: &Helper, name: &str) -> Option<Value> {
    match (helper, name) {
        (Helper::Cycler { items, at }, "current") => Some(items[at.get()].clone()),
        (Helper::Cycler { .. }, "next" | "reset") => Some(Value::Method(Rc::new((value.clone(), Arc::from(name))))),
        _ => None,
    }
}

fn call_cycler_method(helper: &Helper, name: &str) -> Outcome<Value> {
    let Helper::Cycler { items, at } = helper else { return fail("'Joiner' object has no methods") };
    if name == "reset" {
        at.set(0);
        return Ok(Value::None);
    }
    let current = items[at.get()].clone();
    at.set((at.get() + 1) % items.len());
    Ok(current)
}

fn call_helper(helper: &Helper) -> Outcome<Value> {
    match helper {
        Helper::Joiner { separator, used } => {
            Ok(if used.replace(true) { Value::Str(separator.clone()) } else { Value::str("") })
        }
        Helper::Cycler { .. } => fail("'Cycler' object is not callable"),
    }
}
