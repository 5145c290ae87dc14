//! The parsed form of a template.

use std::sync::Arc;

/// A literal of the template source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Not,
    Neg,
    Pos,
}

/// Arguments of a call, a filter or a test, as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CallArgs {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// `*args`
    pub rest: Option<Box<Expr>>,
    /// `**kwargs`
    pub named_rest: Option<Box<Expr>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SliceExpr {
    pub start: Option<Box<Expr>>,
    pub stop: Option<Box<Expr>>,
    pub step: Option<Box<Expr>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Literal(Literal),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Unary(UnaryOp, Box<Expr>),
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    /// `then if test else otherwise`
    Cond {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Attr(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, SliceExpr),
    Call(Box<Expr>, Box<CallArgs>),
    /// Without a target: the body of a `{% filter %}` or `{% set x | f %}` block.
    Filter {
        target: Option<Box<Expr>>,
        name: Arc<str>,
        args: Box<CallArgs>,
    },
    Test {
        target: Box<Expr>,
        name: Arc<str>,
        args: Box<CallArgs>,
    },
}

/// What an assignment writes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    Name(Arc<str>),
    /// `namespace.attribute`
    Attr(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MacroDef {
    pub name: Arc<str>,
    pub params: Vec<(Arc<str>, Option<Expr>)>,
    pub body: Vec<Stmt>,
    /// Which of the implicit names `varargs`, `kwargs` and `caller` the body reads.
    pub takes_varargs: bool,
    pub takes_kwargs: bool,
    pub takes_caller: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForLoop {
    pub target: Target,
    pub iter: Expr,
    pub filter: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Stmt>,
    pub otherwise: Vec<Stmt>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stmt {
    Data(Arc<str>),
    Output(Expr),
    For(Arc<ForLoop>),
    /// Branches in order, then `else`.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    Set(Target, Expr),
    SetBlock(Target, Option<Expr>, Vec<Stmt>),
    FilterBlock(Expr, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    /// A body with its own scope: `{% generation %}`.
    Scoped(Vec<Stmt>),
    Autoescape(Expr, Vec<Stmt>),
    /// `{% block name %}`: printed where it stands, and again by `self.name()`.
    Block(Arc<MacroDef>),
    /// First of a template that reads `self`: its blocks.
    DefineSelf(Vec<Arc<MacroDef>>),
    Macro(Arc<MacroDef>),
    /// `{% call(params) target(args) %}`
    CallBlock(Arc<MacroDef>, Expr),
    Break,
    Continue,
}
