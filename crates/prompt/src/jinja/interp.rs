//! Runs the statements of a template.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use chrono::NaiveDateTime;

use super::ast::{Expr, ForLoop, MacroDef, Stmt, Target};
use super::budget::Budget;
use super::methods::Args;
use super::ops;
use super::repr::to_text;
use super::text::{Text, TextBuilder};
use super::value::{Closure, LoopState, Outcome, Scope, Value, fail};

/// One rendering.
pub(crate) struct Interp {
    pub(super) budget: Budget,
    /// Scopes that macros were defined in; see [`Closure::scope`].
    pub(super) captured: Vec<Rc<Scope>>,
    pub(super) namespaces: Vec<HashMap<Arc<str>, Value>>,
    /// Inside `{% autoescape true %}`?
    pub(super) autoescape: bool,
    /// What `strftime_now` formats.
    pub(super) now: Option<NaiveDateTime>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Normal,
    Break,
    Continue,
}

const FUNCTIONS: &[&str] = &["namespace", "range", "dict", "cycler", "joiner", "raise_exception", "strftime_now"];

/// Renders `template` with `variables`. `input_bytes` is the size of the conversation, which the limits follow.
pub(crate) fn render(
    template: &[Stmt],
    variables: Vec<(Arc<str>, Value)>,
    now: Option<NaiveDateTime>,
    input_bytes: usize,
) -> Outcome<Text> {
    let mut interp = Interp {
        budget: Budget::new(input_bytes),
        captured: Vec::new(),
        namespaces: Vec::new(),
        autoescape: false,
        now,
    };
    let globals = Rc::new(Scope::default());
    for name in FUNCTIONS {
        globals.set(Arc::from(*name), Value::Function(name));
    }
    for (name, value) in variables {
        globals.set(name, value);
    }
    let mut out = TextBuilder::new();
    interp.body(template, &Scope::child(&globals), &mut out)?;
    Ok(out.finish())
}

impl Interp {
    pub(super) fn body(&mut self, stmts: &[Stmt], scope: &Rc<Scope>, out: &mut TextBuilder) -> Outcome<Flow> {
        self.budget.enter()?;
        for stmt in stmts {
            let flow = self.stmt(stmt, scope, out)?;
            if flow != Flow::Normal {
                self.budget.leave();
                return Ok(flow);
            }
        }
        self.budget.leave();
        Ok(Flow::Normal)
    }

    fn stmt(&mut self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut TextBuilder) -> Outcome<Flow> {
        match stmt {
            Stmt::Data(text) => self.emit(&Text::template(text.clone()), out)?,
            Stmt::Output(expr) => {
                let value = self.eval(expr, scope)?;
                self.output(&value, out)?;
            }
            Stmt::For(def) => {
                let items = self.eval(&def.iter, scope)?;
                self.for_loop(def, items, scope, 0, out)?;
            }
            Stmt::If(branches, otherwise) => return self.if_chain(branches, otherwise, scope, out),
            Stmt::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::SetBlock(target, filter, body) => {
                let mut value = Value::Str(self.captured_body(body, scope)?);
                if let Some(filter) = filter {
                    value = self.apply_filter_chain(filter, value, scope)?;
                }
                self.assign(target, value, scope)?;
            }
            Stmt::FilterBlock(filter, body) => {
                let inner = Value::Str(self.captured_body(body, scope)?);
                let value = self.apply_filter_chain(filter, inner, scope)?;
                self.output(&value, out)?;
            }
            Stmt::With(assignments, body) => {
                let inner = Scope::child(scope);
                for (target, expr) in assignments {
                    let value = self.eval(expr, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.body(body, &inner, out);
            }
            Stmt::Scoped(body) => return self.body(body, &Scope::child(scope), out),
            Stmt::Autoescape(expr, body) => {
                let escapes = self.eval(expr, scope)?.truth();
                let before = std::mem::replace(&mut self.autoescape, escapes);
                let flow = self.body(body, &Scope::child(scope), out)?;
                self.autoescape = before;
                return Ok(flow);
            }
            Stmt::Block(def) => return self.body(&def.body, &Scope::child(scope), out),
            Stmt::DefineSelf(blocks) => {
                let blocks = blocks.iter().map(|def| (def.name.clone(), self.close_over(def, scope))).collect();
                self.namespaces.push(blocks);
                scope.set(Arc::from("self"), Value::Namespace(self.namespaces.len() - 1));
            }
            Stmt::Macro(def) => {
                let closure = self.close_over(def, scope);
                scope.set(def.name.clone(), closure);
            }
            Stmt::CallBlock(caller, call) => {
                let value = self.call_block(caller, call, scope)?;
                self.output(&value, out)?;
            }
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Normal)
    }

    fn output(&self, value: &Value, out: &mut TextBuilder) -> Outcome<()> {
        let text = to_text(value, &self.budget)?;
        self.emit(&if self.autoescape { text.escaped() } else { text }, out)
    }

    fn emit(&self, text: &Text, out: &mut TextBuilder) -> Outcome<()> {
        // The first charge bounds what is written, the second the whole that it becomes.
        self.budget.text(text.len())?;
        self.budget.text_limit(out.len() + text.len())?;
        out.push(text);
        Ok(())
    }

    fn if_chain(
        &mut self,
        branches: &[(Expr, Vec<Stmt>)],
        otherwise: &[Stmt],
        scope: &Rc<Scope>,
        out: &mut TextBuilder,
    ) -> Outcome<Flow> {
        for (test, body) in branches {
            if self.eval(test, scope)?.truth() {
                return self.body(body, scope, out);
            }
        }
        self.body(otherwise, scope, out)
    }

    /// Renders a body of its own scope to text.
    fn captured_body(&mut self, body: &[Stmt], scope: &Rc<Scope>) -> Outcome<Text> {
        let mut out = TextBuilder::new();
        self.body(body, &Scope::child(scope), &mut out)?;
        Ok(out.finish().with_markup(self.autoescape))
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Outcome<()> {
        match target {
            Target::Name(name) => scope.set(name.clone(), value),
            Target::Attr(name, attr) => match scope.get(name) {
                Some(Value::Namespace(at)) => {
                    self.namespaces[at].insert(attr.clone(), value);
                }
                _ => return fail("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                let items = ops::iterate(&value, &self.budget)?;
                if items.len() != targets.len() {
                    let (got, want) = (items.len(), targets.len());
                    return fail(format!("cannot unpack {got} values into {want} names"));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a loop; `depth` counts the recursions of a recursive one.
    fn for_loop(
        &mut self,
        def: &Arc<ForLoop>,
        items: Value,
        scope: &Rc<Scope>,
        depth: usize,
        out: &mut TextBuilder,
    ) -> Outcome<()> {
        let mut items = ops::iterate(&items, &self.budget)?;
        if let Some(filter) = &def.filter {
            items = self.filtered(def, filter, items, scope)?;
        }
        if items.is_empty() {
            self.body(&def.otherwise, &Scope::child(scope), out)?;
            return Ok(());
        }
        let recursive = def.recursive.then(|| {
            self.captured.push(scope.clone());
            (def.clone(), self.captured.len() - 1)
        });
        let state = Rc::new(LoopState {
            items: Rc::new(items),
            index: Cell::new(0),
            depth,
            last_changed: RefCell::new(None),
            recursive,
        });
        for idx in 0..state.items.len() {
            state.index.set(idx);
            let inner = Scope::child(scope);
            inner.set(Arc::from("loop"), Value::Loop(state.clone()));
            self.assign(&def.target, state.items[idx].clone(), &inner)?;
            if self.body(&def.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn filtered(&mut self, def: &ForLoop, filter: &Expr, items: Vec<Value>, scope: &Rc<Scope>) -> Outcome<Vec<Value>> {
        let mut kept = Vec::new();
        for item in items {
            let inner = Scope::child(scope);
            self.assign(&def.target, item.clone(), &inner)?;
            if self.eval(filter, &inner)?.truth() {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// `loop(items)` inside a recursive loop.
    pub(super) fn recurse(&mut self, state: &LoopState, args: &Args) -> Outcome<Value> {
        let (Some((def, scope)), Some(items)) = (&state.recursive, args.positional.first()) else {
            return fail("the loop must have the 'recursive' marker to be called recursively");
        };
        let scope = self.captured[*scope].clone();
        let mut out = TextBuilder::new();
        self.budget.enter()?;
        self.for_loop(def, items.clone(), &scope, state.depth + 1, &mut out)?;
        self.budget.leave();
        Ok(Value::Str(out.finish().with_markup(self.autoescape)))
    }

    fn close_over(&mut self, def: &Arc<MacroDef>, scope: &Rc<Scope>) -> Value {
        self.captured.push(scope.clone());
        let scope = self.captured.len() - 1;
        Value::Macro(Rc::new(Closure { def: def.clone(), scope, autoescape: self.autoescape }))
    }

    fn call_block(&mut self, caller: &Arc<MacroDef>, call: &Expr, scope: &Rc<Scope>) -> Outcome<Value> {
        let Expr::Call(callee, args) = call else { return fail("a call block needs a call") };
        let callee = self.eval(callee, scope)?;
        let mut args = self.args(args, scope)?;
        let caller = self.close_over(caller, scope);
        args.named.push((Arc::from("caller"), caller));
        self.call(&callee, args)
    }

    pub(super) fn call_macro(&mut self, closure: &Closure, args: Args) -> Outcome<Value> {
        self.budget.enter()?;
        let def = closure.def.clone();
        let scope = Scope::child(&self.captured[closure.scope].clone());
        self.bind_params(&def, args, &scope)?;
        let mut out = TextBuilder::new();
        let caller_escapes = std::mem::replace(&mut self.autoescape, closure.autoescape);
        self.body(&def.body, &scope, &mut out)?;
        self.autoescape = caller_escapes;
        self.budget.leave();
        Ok(Value::Str(out.finish().with_markup(caller_escapes)))
    }

    fn bind_params(&mut self, def: &MacroDef, args: Args, scope: &Rc<Scope>) -> Outcome<()> {
        let mut positional = args.positional.into_iter();
        let mut named = args.named;
        for (name, default) in &def.params {
            let place = named.iter().position(|(given, _)| given == name);
            let value = match (positional.next(), place) {
                (Some(_), Some(_)) => return fail(format!("macro got multiple values for argument '{name}'")),
                (Some(value), None) => value,
                (None, Some(place)) => named.remove(place).1,
                (None, None) => match default {
                    Some(default) => self.eval(default, scope)?,
                    None => Value::undefined(format!("parameter '{name}' was not provided")),
                },
            };
            scope.set(name.clone(), value);
        }
        let rest: Vec<Value> = positional.collect();
        if def.takes_caller {
            let caller = named.iter().position(|(name, _)| **name == *"caller").map(|at| named.remove(at).1);
            scope.set(Arc::from("caller"), caller.unwrap_or_else(|| Value::undefined("No caller defined")));
        }
        if !rest.is_empty() && !def.takes_varargs {
            return fail(format!("macro '{}' takes not more than {} argument(s)", def.name, def.params.len()));
        }
        if let (Some((name, _)), false) = (named.first(), def.takes_kwargs) {
            return fail(format!("macro '{}' takes no keyword argument '{name}'", def.name));
        }
        if def.takes_varargs {
            scope.set(Arc::from("varargs"), Value::tuple(rest));
        }
        if def.takes_kwargs {
            scope.set(Arc::from("kwargs"), super::expr::dict_of(named)?);
        }
        Ok(())
    }
}
