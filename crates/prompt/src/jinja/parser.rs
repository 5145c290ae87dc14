//! From tokens to the tree, with jinja2's grammar and a bound on nesting, so that no source can exhaust the stack.

use std::sync::Arc;

use super::ast::{BinaryOp, CallArgs, CompareOp, Expr, ForLoop, Literal, MacroDef, SliceExpr, Stmt, Target, UnaryOp};
use super::lexer::{Token, TokenKind, tokenize};
use crate::error::PromptError;

/// Deepest nesting of statements and expressions; a chain `a + b + …` counts its links.
const MAX_DEPTH: usize = 200;

type Parsed<T> = Result<T, PromptError>;

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    loops: usize,
    /// Names that the macro bodies now being parsed read (innermost last): for `varargs`, `kwargs`, `caller`.
    implicit: Vec<[bool; 3]>,
    blocks: Vec<Arc<MacroDef>>,
    reads_self: bool,
}

const IMPLICIT_NAMES: [&str; 3] = ["varargs", "kwargs", "caller"];

/// Parses a whole template.
pub(crate) fn parse(source: &str) -> Parsed<Vec<Stmt>> {
    let mut parser = Parser {
        tokens: tokenize(source)?,
        at: 0,
        depth: 0,
        loops: 0,
        implicit: Vec::new(),
        blocks: Vec::new(),
        reads_self: false,
    };
    let mut body = parser.body(&[])?;
    if parser.reads_self {
        body.insert(0, Stmt::DefineSelf(parser.blocks));
    }
    Ok(body)
}

impl Parser {
    pub(super) fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn peek_second(&self) -> &TokenKind {
        self.tokens.get(self.at + 1).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn advance(&mut self) -> TokenKind {
        let kind = self.tokens[self.at].kind.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    fn fail<T>(&self, expected: &str) -> Parsed<T> {
        let found = describe(self.peek());
        Err(PromptError::Syntax {
            line: self.tokens[self.at].line,
            reason: format!("expected {expected}, found {found}"),
        })
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), TokenKind::Op(found) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), TokenKind::Name(found) if found == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.advance();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.advance();
        }
        found
    }

    fn expect_op(&mut self, op: &str) -> Parsed<()> {
        if self.skip_op(op) { Ok(()) } else { self.fail(&format!("`{op}`")) }
    }

    fn expect_name(&mut self) -> Parsed<Arc<str>> {
        match self.peek() {
            TokenKind::Name(name) => {
                let name = Arc::from(name.as_str());
                self.advance();
                Ok(name)
            }
            _ => self.fail("a name"),
        }
    }

    fn block_end(&mut self) -> Parsed<()> {
        if *self.peek() == TokenKind::BlockEnd {
            self.advance();
            Ok(())
        } else {
            self.fail("the end of the block `%}`")
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.enter()?;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(PromptError::Limit { resource: "nested levels in its source", limit: MAX_DEPTH as u64 });
        }
        Ok(())
    }
}

fn describe(kind: &TokenKind) -> String {
    match kind {
        TokenKind::Data(_) => "text".into(),
        TokenKind::VariableBegin => "`{{`".into(),
        TokenKind::VariableEnd => "`}}`".into(),
        TokenKind::BlockBegin => "`{%`".into(),
        TokenKind::BlockEnd => "`%}`".into(),
        TokenKind::Name(name) => format!("`{name}`"),
        TokenKind::Str(_) => "a string".into(),
        TokenKind::Int(value) => value.to_string(),
        TokenKind::Float(value) => value.to_string(),
        TokenKind::Op(op) => format!("`{op}`"),
        TokenKind::End => "the end of the template".into(),
    }
}

/// Statements.
impl Parser {
    /// Statements up to a block tag named in `ends` (left unread after its `{%`), or the end when `ends` is empty.
    fn body(&mut self, ends: &[&str]) -> Parsed<Vec<Stmt>> {
        let mut body = Vec::new();
        loop {
            match self.peek() {
                TokenKind::End if ends.is_empty() => return Ok(body),
                TokenKind::End => return self.fail(&format!("`{{% {} %}}`", ends.join(" %}` or `{% "))),
                TokenKind::Data(data) => {
                    body.push(Stmt::Data(Arc::from(data.as_str())));
                    self.advance();
                }
                TokenKind::VariableBegin => {
                    self.advance();
                    let expr = self.tuple_or_expr()?;
                    if *self.peek() != TokenKind::VariableEnd {
                        return self.fail("the end of the expression `}}`");
                    }
                    self.advance();
                    body.push(Stmt::Output(expr));
                }
                _ => {
                    self.advance();
                    if matches!(self.peek(), TokenKind::Name(name) if ends.contains(&name.as_str())) {
                        return Ok(body);
                    }
                    if let Some(stmt) = self.nested(Self::statement)? {
                        body.push(stmt);
                    }
                }
            }
        }
    }

    /// A body whose end tag has one spelling and nothing after it.
    fn body_until(&mut self, end: &str) -> Parsed<Vec<Stmt>> {
        self.block_end()?;
        let body = self.body(&[end])?;
        self.advance();
        Ok(body)
    }

    fn statement(&mut self) -> Parsed<Option<Stmt>> {
        let name = match self.peek() {
            TokenKind::Name(name) => name.clone(),
            _ => return self.fail("a tag name"),
        };
        let at_tag = self.at;
        self.advance();
        let stmt = match name.as_str() {
            "for" => self.for_loop()?,
            "if" => self.if_chain()?,
            "set" => self.set()?,
            "macro" => Stmt::Macro(Arc::new(self.macro_def()?)),
            "call" => self.call_block()?,
            "filter" => {
                let filter = self.filter_chain(None)?;
                Stmt::FilterBlock(filter, self.body_until("endfilter")?)
            }
            "with" => self.with()?,
            "generation" => Stmt::Scoped(self.body_until("endgeneration")?),
            "autoescape" => {
                let escapes = self.expression()?;
                Stmt::Autoescape(escapes, self.body_until("endautoescape")?)
            }
            "block" => self.block()?,
            "break" | "continue" if self.loops == 0 => {
                self.at = at_tag;
                return self.fail("a loop around it");
            }
            "break" => Stmt::Break,
            "continue" => Stmt::Continue,
            _ => {
                self.at = at_tag;
                return self.fail("a tag that one template alone can have");
            }
        };
        self.block_end()?;
        Ok(Some(stmt))
    }

    fn for_loop(&mut self) -> Parsed<Stmt> {
        let target = self.target(&["in"])?;
        if !self.skip_name("in") {
            return self.fail("`in`");
        }
        let iter = self.tuple_without_condition()?;
        let filter = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        self.loops += 1;
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let body = body?;
        let otherwise = if self.skip_name("else") { self.body_until("endfor")? } else { self.close(Vec::new()) };
        Ok(Stmt::For(Arc::new(ForLoop { target, iter, filter, recursive, body, otherwise })))
    }

    /// Passes over the end tag's name.
    fn close<T>(&mut self, value: T) -> T {
        self.advance();
        value
    }

    fn if_chain(&mut self) -> Parsed<Stmt> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple_without_condition()?;
            self.block_end()?;
            let body = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise = if self.skip_name("else") { self.body_until("endif")? } else { self.close(Vec::new()) };
            return Ok(Stmt::If(branches, otherwise));
        }
    }

    fn set(&mut self) -> Parsed<Stmt> {
        let target = self.target(&[])?;
        if self.skip_op("=") {
            return Ok(Stmt::Set(target, self.tuple_or_expr()?));
        }
        let filter = if self.skip_op("|") { Some(self.filter_chain(None)?) } else { None };
        Ok(Stmt::SetBlock(target, filter, self.body_until("endset")?))
    }

    fn with(&mut self) -> Parsed<Stmt> {
        let mut assignments = Vec::new();
        while *self.peek() != TokenKind::BlockEnd {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target_item()?;
            self.expect_op("=")?;
            assignments.push((target, self.expression()?));
        }
        Ok(Stmt::With(assignments, self.body_until("endwith")?))
    }

    fn block(&mut self) -> Parsed<Stmt> {
        let name = self.expect_name()?;
        self.skip_name("scoped");
        self.skip_name("required");
        let block = Arc::new(self.macro_body(name.clone(), Vec::new(), "endblock")?);
        self.skip_name(&name);
        if self.blocks.iter().any(|other| other.name == name) {
            return self.fail("a block of another name, as that one is defined already");
        }
        self.blocks.push(block.clone());
        Ok(Stmt::Block(block))
    }

    fn macro_def(&mut self) -> Parsed<MacroDef> {
        let name = self.expect_name()?;
        let params = self.params()?;
        self.macro_body(name, params, "endmacro")
    }

    fn macro_body(&mut self, name: Arc<str>, params: Vec<(Arc<str>, Option<Expr>)>, end: &str) -> Parsed<MacroDef> {
        self.implicit.push([false; 3]);
        let loops = std::mem::take(&mut self.loops);
        let body = self.body_until(end);
        self.loops = loops;
        let [takes_varargs, takes_kwargs, takes_caller] = self.implicit.pop().unwrap_or_default();
        Ok(MacroDef { name, params, body: body?, takes_varargs, takes_kwargs, takes_caller })
    }

    fn params(&mut self) -> Parsed<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("a default, as the parameters before it have one");
            }
            params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    fn call_block(&mut self) -> Parsed<Stmt> {
        let params = if self.is_op("(") { self.params()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expr::Call(..)) {
            return self.fail("a call");
        }
        let caller = self.macro_body(Arc::from("caller"), params, "endcall")?;
        Ok(Stmt::CallBlock(Arc::new(caller), call))
    }

    fn target(&mut self, ends: &[&str]) -> Parsed<Target> {
        let mut items = vec![self.target_item()?];
        let mut tuple = false;
        while self.skip_op(",") {
            tuple = true;
            let ended = matches!(self.peek(), TokenKind::Name(name) if ends.contains(&name.as_str()));
            if ended || self.is_op("=") || *self.peek() == TokenKind::BlockEnd {
                break;
            }
            items.push(self.target_item()?);
        }
        Ok(if tuple { Target::Tuple(items) } else { items.swap_remove(0) })
    }

    fn target_item(&mut self) -> Parsed<Target> {
        if self.is_op("(") || self.is_op("[") {
            let end = if self.is_op("(") { ")" } else { "]" };
            self.advance();
            let inner = self.nested(|parser| parser.target(&[]))?;
            self.expect_op(end)?;
            return Ok(inner);
        }
        let name = self.expect_name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail("a name that can be assigned to");
        }
        if self.skip_op(".") {
            return Ok(Target::Attr(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }
}

/// Expressions.
impl Parser {
    fn tuple_or_expr(&mut self) -> Parsed<Expr> {
        self.tuple(Self::expression)
    }

    fn tuple_without_condition(&mut self) -> Parsed<Expr> {
        self.tuple(|parser| parser.nested(Self::or))
    }

    fn tuple(&mut self, item: impl Fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let first = item(self)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            let ended = matches!(self.peek(), TokenKind::VariableEnd | TokenKind::BlockEnd) || self.is_op(")");
            if ended {
                break;
            }
            items.push(item(self)?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expression(&mut self) -> Parsed<Expr> {
        self.nested(Self::condition)
    }

    fn condition(&mut self) -> Parsed<Expr> {
        let mut then = self.or()?;
        let mut links = 0;
        while self.skip_name("if") {
            self.enter()?;
            links += 1;
            let test = Box::new(self.or()?);
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            then = Expr::Cond { test, then: Box::new(then), otherwise };
        }
        self.depth -= links;
        Ok(then)
    }

    /// A left-associative chain: `operand (op operand)*`.
    fn chain(&mut self, operand: fn(&mut Self) -> Parsed<Expr>, operator: fn(&Self) -> Option<Link>) -> Parsed<Expr> {
        let mut left = operand(self)?;
        let mut links = 0;
        while let Some(link) = operator(self) {
            self.enter()?;
            links += 1;
            self.advance();
            let (a, b) = (Box::new(left), Box::new(operand(self)?));
            left = match link {
                Link::Or => Expr::Or(a, b),
                Link::And => Expr::And(a, b),
                Link::Binary(op) => Expr::Binary(op, a, b),
            };
        }
        self.depth -= links;
        Ok(left)
    }

    fn or(&mut self) -> Parsed<Expr> {
        self.chain(Self::and, |parser| parser.is_name("or").then_some(Link::Or))
    }

    fn and(&mut self) -> Parsed<Expr> {
        self.chain(Self::not, |parser| parser.is_name("and").then_some(Link::And))
    }

    fn not(&mut self) -> Parsed<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Unary(UnaryOp::Not, Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Parsed<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                TokenKind::Op("==") => CompareOp::Eq,
                TokenKind::Op("!=") => CompareOp::Ne,
                TokenKind::Op("<") => CompareOp::Lt,
                TokenKind::Op("<=") => CompareOp::Le,
                TokenKind::Op(">") => CompareOp::Gt,
                TokenKind::Op(">=") => CompareOp::Ge,
                TokenKind::Name(name) if name == "in" => CompareOp::In,
                TokenKind::Name(name)
                    if name == "not" && matches!(self.peek_second(), TokenKind::Name(n) if n == "in") =>
                {
                    self.advance();
                    CompareOp::NotIn
                }
                _ => break,
            };
            self.advance();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Parsed<Expr> {
        self.chain(Self::concat, |parser| match parser.peek() {
            TokenKind::Op("+") => Some(Link::Binary(BinaryOp::Add)),
            TokenKind::Op("-") => Some(Link::Binary(BinaryOp::Sub)),
            _ => None,
        })
    }

    fn concat(&mut self) -> Parsed<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Parsed<Expr> {
        self.chain(Self::power, |parser| match parser.peek() {
            TokenKind::Op("*") => Some(Link::Binary(BinaryOp::Mul)),
            TokenKind::Op("/") => Some(Link::Binary(BinaryOp::Div)),
            TokenKind::Op("//") => Some(Link::Binary(BinaryOp::FloorDiv)),
            TokenKind::Op("%") => Some(Link::Binary(BinaryOp::Rem)),
            _ => None,
        })
    }

    fn power(&mut self) -> Parsed<Expr> {
        self.chain(Self::unary, |parser| parser.is_op("**").then_some(Link::Binary(BinaryOp::Pow)))
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let mut links = 0;
        let bare = self.unary_without_filter()?;
        let node = self.postfix(bare, true, &mut links);
        self.depth -= links;
        node
    }

    fn unary_without_filter(&mut self) -> Parsed<Expr> {
        let op = match self.peek() {
            TokenKind::Op("-") => UnaryOp::Neg,
            TokenKind::Op("+") => UnaryOp::Pos,
            _ => return self.primary(),
        };
        self.advance();
        let mut links = 0;
        let operand = self.nested(Self::unary_without_filter)?;
        let operand = self.postfix(operand, false, &mut links);
        self.depth -= links;
        Ok(Expr::Unary(op, Box::new(operand?)))
    }

    /// Subscripts and calls and, when `filters`, `| filter` and `is test`.
    fn postfix(&mut self, mut node: Expr, filters: bool, links: &mut usize) -> Parsed<Expr> {
        let mut filtered = false;
        loop {
            node = match self.peek() {
                TokenKind::Op(".") if !filtered => self.dotted(node)?,
                TokenKind::Op("[") if !filtered => self.subscript(node)?,
                TokenKind::Op("(") => {
                    let args = self.call_args()?;
                    Expr::Call(Box::new(node), Box::new(args))
                }
                TokenKind::Op("|") if filters => {
                    filtered = true;
                    self.advance();
                    self.filter(Some(node))?
                }
                TokenKind::Name(name) if filters && name == "is" => {
                    filtered = true;
                    self.test(node)?
                }
                _ => return Ok(node),
            };
            self.enter()?;
            *links += 1;
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let literal = match self.peek() {
            TokenKind::Name(_) => return Ok(self.name()),
            TokenKind::Str(_) => Literal::Str(self.strings()),
            TokenKind::Int(value) => Literal::Int(*value),
            TokenKind::Float(value) => Literal::Float(*value),
            TokenKind::Op("(") => return self.parenthesised(),
            TokenKind::Op("[") => {
                self.advance();
                return Ok(Expr::List(self.items("]")?));
            }
            TokenKind::Op("{") => return self.dict(),
            _ => return self.fail("an expression"),
        };
        if !matches!(literal, Literal::Str(_)) {
            self.advance();
        }
        Ok(Expr::Literal(literal))
    }

    fn name(&mut self) -> Expr {
        let TokenKind::Name(name) = self.advance() else { return Expr::Literal(Literal::None) };
        match name.as_str() {
            "true" | "True" => Expr::Literal(Literal::Bool(true)),
            "false" | "False" => Expr::Literal(Literal::Bool(false)),
            "none" | "None" => Expr::Literal(Literal::None),
            _ => {
                self.reads_self |= name == "self";
                if let (Some(place), Some(seen)) =
                    (IMPLICIT_NAMES.iter().position(|n| *n == name), self.implicit.last_mut())
                {
                    seen[place] = true;
                }
                Expr::Name(Arc::from(name))
            }
        }
    }

    /// Adjacent string literals are one.
    fn strings(&mut self) -> Arc<str> {
        let mut joined = String::new();
        while let TokenKind::Str(text) = self.peek() {
            joined.push_str(text);
            self.advance();
        }
        Arc::from(joined)
    }

    fn parenthesised(&mut self) -> Parsed<Expr> {
        self.advance();
        if self.skip_op(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let inner = self.tuple_or_expr()?;
        self.expect_op(")")?;
        Ok(inner)
    }

    fn items(&mut self, end: &str) -> Parsed<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn dict(&mut self) -> Parsed<Expr> {
        self.advance();
        let mut pairs = Vec::new();
        while !self.is_op("}") {
            if !pairs.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            pairs.push((key, self.expression()?));
        }
        self.expect_op("}")?;
        Ok(Expr::Dict(pairs))
    }

    fn dotted(&mut self, node: Expr) -> Parsed<Expr> {
        self.advance();
        match self.advance() {
            TokenKind::Name(name) => Ok(Expr::Attr(Box::new(node), Arc::from(name))),
            TokenKind::Int(index) => Ok(Expr::Item(Box::new(node), Box::new(Expr::Literal(Literal::Int(index))))),
            _ => self.fail("a name or a number"),
        }
    }

    fn subscript(&mut self, node: Expr) -> Parsed<Expr> {
        self.advance();
        let start = if self.is_op(":") { None } else { Some(Box::new(self.expression()?)) };
        if !self.skip_op(":") {
            self.expect_op("]")?;
            return Ok(match start {
                Some(index) => Expr::Item(Box::new(node), index),
                None => node,
            });
        }
        let stop = if self.is_op(":") || self.is_op("]") { None } else { Some(Box::new(self.expression()?)) };
        let step = if self.skip_op(":") && !self.is_op("]") { Some(Box::new(self.expression()?)) } else { None };
        self.expect_op("]")?;
        Ok(Expr::Slice(Box::new(node), SliceExpr { start, stop, step }))
    }

    fn call_args(&mut self) -> Parsed<CallArgs> {
        self.expect_op("(")?;
        let mut args = CallArgs::default();
        let mut comma = false;
        while !self.is_op(")") {
            if comma {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            comma = true;
            self.call_arg(&mut args)?;
        }
        self.expect_op(")")?;
        Ok(args)
    }

    fn call_arg(&mut self, args: &mut CallArgs) -> Parsed<()> {
        if self.skip_op("*") {
            args.rest = Some(Box::new(self.expression()?));
            return Ok(());
        }
        if self.skip_op("**") {
            args.named_rest = Some(Box::new(self.expression()?));
            return Ok(());
        }
        let named = matches!(self.peek(), TokenKind::Name(_)) && *self.peek_second() == TokenKind::Op("=");
        if named {
            let name = self.expect_name()?;
            self.advance();
            args.named.push((name, self.expression()?));
            return Ok(());
        }
        if !args.named.is_empty() || args.rest.is_some() || args.named_rest.is_some() {
            return self.fail("a named argument after the named ones");
        }
        args.positional.push(self.expression()?);
        Ok(())
    }

    fn dotted_name(&mut self) -> Parsed<Arc<str>> {
        let mut name = self.expect_name()?.to_string();
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(Arc::from(name))
    }

    fn filter(&mut self, target: Option<Expr>) -> Parsed<Expr> {
        let name = self.dotted_name()?;
        let args = if self.is_op("(") { self.call_args()? } else { CallArgs::default() };
        Ok(Expr::Filter { target: target.map(Box::new), name, args: Box::new(args) })
    }

    /// `a | b(…) | c` where the first name stands alone.
    fn filter_chain(&mut self, target: Option<Expr>) -> Parsed<Expr> {
        let mut node = self.filter(target)?;
        let mut links = 0;
        while self.skip_op("|") {
            self.enter()?;
            links += 1;
            node = self.filter(Some(node))?;
        }
        self.depth -= links;
        Ok(node)
    }

    fn test(&mut self, target: Expr) -> Parsed<Expr> {
        self.advance();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let mut args = CallArgs::default();
        match self.peek() {
            TokenKind::Op("(") => args = self.call_args()?,
            TokenKind::Name(next) if matches!(next.as_str(), "else" | "or" | "and") => {}
            TokenKind::Name(next) if next == "is" => return self.fail("no second test"),
            TokenKind::Name(_)
            | TokenKind::Str(_)
            | TokenKind::Int(_)
            | TokenKind::Float(_)
            | TokenKind::Op("[" | "{") => {
                let mut links = 0;
                let primary = self.nested(Self::primary)?;
                let arg = self.postfix(primary, false, &mut links);
                self.depth -= links;
                args.positional.push(arg?);
            }
            _ => {}
        }
        let test = Expr::Test { target: Box::new(target), name, args: Box::new(args) };
        Ok(if negated { Expr::Unary(UnaryOp::Not, Box::new(test)) } else { test })
    }
}

enum Link {
    Or,
    And,
    Binary(BinaryOp),
}
