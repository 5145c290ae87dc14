//! Does a parsed template call only functions that exist? Go asks that when it parses, the library when it runs.

use gotmpl::parse::{Expr, ListNode, Node, PipeNode};

use super::funcs;

/// The first function that does not exist, with its line.
pub(super) fn unknown_function(list: &ListNode) -> Option<(String, usize)> {
    list.nodes.iter().find_map(in_node)
}

fn in_node(node: &Node) -> Option<(String, usize)> {
    match node {
        Node::List(list) => unknown_function(list),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => None,
        Node::Action(action) => in_pipe(&action.pipe),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => in_pipe(&branch.pipe)
            .or_else(|| unknown_function(&branch.body))
            .or_else(|| branch.else_body.as_ref().and_then(unknown_function)),
        Node::Template(template) => template.pipe.as_ref().and_then(in_pipe),
        Node::Define(define) => unknown_function(&define.body),
    }
}

fn in_pipe(pipe: &PipeNode) -> Option<(String, usize)> {
    pipe.commands.iter().flat_map(|command| &command.args).find_map(in_expression)
}

fn in_expression(expression: &Expr) -> Option<(String, usize)> {
    match expression {
        Expr::Identifier(place, name) if !funcs::is_known(name.as_ref()) => Some((name.to_string(), place.line)),
        Expr::Pipe(_, pipe) => in_pipe(pipe),
        Expr::Chain(_, inner, _) => in_expression(inner),
        Expr::Identifier(..)
        | Expr::Dot(_)
        | Expr::Field(..)
        | Expr::Variable(..)
        | Expr::String(..)
        | Expr::Number(..)
        | Expr::Bool(..)
        | Expr::Nil(_) => None,
    }
}

/// The line of the first action that `{{end}}` does not close, or of the first `{{end}}` that closes nothing; the
/// library takes both.
pub(super) fn unbalanced(source: &str) -> Option<usize> {
    let line_at = |place: usize| source[..place].matches('\n').count() + 1;
    let mut open: Vec<usize> = Vec::new();
    let mut from = 0;
    while let Some(start) = source[from..].find("{{").map(|found| from + found) {
        let inner = source[start + 2..].trim_start_matches('-').trim_start();
        let begin = source.len() - inner.len();
        let end = if inner.starts_with("/*") { inner.find("*/").map(|end| end + 2) } else { action_end(inner) };
        let Some(end) = end else { break };
        match inner[..end].split(|c: char| !c.is_alphanumeric()).next() {
            Some("if" | "range" | "with" | "define" | "block") => open.push(start),
            Some("end") if open.pop().is_none() => return Some(line_at(start)),
            _ => {}
        }
        from = begin + end;
    }
    open.pop().map(line_at)
}

/// Where an action ends: at the first `}}` outside of a string.
fn action_end(inner: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '}') if inner[at..].starts_with("}}") => return Some(at),
            (None, _) => {}
        }
    }
    None
}
