//! From rules to one automaton over bytes in which rules call each other: a recursive transition network.
//!
//! Repetitions are loops and copies inside a rule, so only true references need a stack. What can never be completed is
//! taken out, which is what makes the matcher exact: whatever it reaches has a completion.

use regex_syntax::utf8::{Utf8Range, Utf8Sequences};
use std::collections::HashMap;

use super::parse::{Node, Rules, SyntaxError, TokenName};

/// Largest automaton. An honest grammar of half a megabyte stays below; nested repetitions reach it in milliseconds.
const MAX_STATES: usize = 400_000;

/// One state. Targets are indices of states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Goes on at both without a byte.
    Split(u32, u32),
    /// Reads a byte in one of the ranges.
    Bytes(Box<[(u8, u8, u32)]>),
    /// Reads one token of the vocabulary, or any but that one.
    Token { token: u32, is_negated: bool, next: u32 },
    /// Reads what rule `rule` reads.
    Call { rule: u32, next: u32 },
    /// The rule is complete.
    Accept,
    /// Nothing can be completed from here.
    Dead,
}

/// The automaton of a grammar.
#[derive(Debug)]
pub(super) struct Automaton {
    pub(super) states: Vec<State>,
    /// First state of each rule.
    pub(super) starts: Vec<u32>,
    /// Can a rule be empty?
    pub(super) nullable: Vec<bool>,
    /// Rules in an order in which one that begins with another comes first.
    pub(super) rank: Vec<u32>,
    /// Bytes that no state tells apart have one number.
    pub(super) classes: [u8; 256],
    pub(super) n_classes: usize,
    pub(super) root: u32,
    pub(super) has_tokens: bool,
}

/// Finds a token by its text; none when the text is not exactly one token.
pub(super) type TokenLookup<'a> = &'a dyn Fn(&str) -> Option<u32>;

impl Automaton {
    /// Builds it.
    ///
    /// # Errors
    /// Rules that are missing, recurse without reading anything, or can never be completed; and grammars that are too
    /// large.
    pub(super) fn new(rules: &Rules<'_>, n_vocab: u32, lookup: TokenLookup<'_>) -> Result<Self, SyntaxError> {
        let Some(root) = rules.find("root").filter(|&root| rules.rules[root].body.is_some()) else {
            return Err(rules.error(0, "there is no rule named \"root\", which is where a grammar begins"));
        };
        if let Some(rule) = rules.rules.iter().find(|rule| rule.body.is_none()) {
            return Err(rules.error(rule.at, format!("the rule {:?} is not defined", rule.name)));
        }
        let mut builder = Builder { states: vec![State::Accept, State::Dead], rules, n_vocab, lookup };
        let mut starts = Vec::with_capacity(rules.rules.len());
        for rule in &rules.rules {
            let body = rule.body.as_ref().expect("checked above");
            starts.push(builder.node(body, ACCEPT)?);
        }
        let mut states = builder.states;
        let is_live = reaching_accept(&states, &starts, true);
        if !is_live[starts[root] as usize] {
            return Err(rules
                .error(rules.rules[root].at, "no text is ever complete: the rule \"root\" recurses without an end"));
        }
        prune(&mut states, &starts, &is_live);
        let is_empty = reaching_accept(&states, &starts, false);
        let nullable: Vec<bool> = starts.iter().map(|&start| is_empty[start as usize]).collect();
        let rank = rank(&states, &starts, &nullable).map_err(|rule| {
            let Some(rule) = rules.rules.get(rule) else { return rules.error(0, "left recursion") };
            let reason = format!(
                "the rule {:?} is left-recursive: it can begin with itself; put what it reads first",
                rule.name
            );
            rules.error(rule.at, reason)
        })?;
        let (classes, n_classes) = byte_classes(&states);
        let has_tokens = states.iter().any(|state| matches!(state, State::Token { .. }));
        let root = u32::try_from(root).expect("there are fewer rules than states");
        Ok(Self { states, starts, nullable, rank, classes, n_classes, root, has_tokens })
    }

    /// Is a rule complete in this state, whatever comes?
    pub(super) fn is_end(&self, state: u32) -> bool {
        self.states[state as usize] == State::Accept
    }
}

const ACCEPT: u32 = 0;
const DEAD: u32 = 1;

struct Builder<'a> {
    states: Vec<State>,
    rules: &'a Rules<'a>,
    n_vocab: u32,
    lookup: TokenLookup<'a>,
}

impl Builder<'_> {
    fn add(&mut self, state: State) -> Result<u32, SyntaxError> {
        if self.states.len() >= MAX_STATES {
            let reason = format!("the grammar needs more than {MAX_STATES} states; repeat less, or smaller parts");
            return Err(self.rules.error(0, reason));
        }
        self.states.push(state);
        Ok(self.states.len() as u32 - 1)
    }

    /// States that read `node` and go on at `next`; the first of them. Built from the end.
    fn node(&mut self, node: &Node, next: u32) -> Result<u32, SyntaxError> {
        match node {
            Node::Literal(text) => {
                text.bytes().rev().try_fold(next, |next, byte| self.add(State::Bytes([(byte, byte, next)].into())))
            }
            Node::Class(ranges) => self.class(ranges, next),
            Node::Token { name, is_negated, at } => self.token(name, *is_negated, *at, next),
            Node::Rule(number) => self.add(State::Call { rule: *number as u32, next }),
            Node::Sequence(nodes) => nodes.iter().rev().try_fold(next, |next, node| self.node(node, next)),
            Node::Choice(nodes) => {
                let mut first = None;
                for node in nodes.iter().rev() {
                    let start = self.node(node, next)?;
                    first = Some(match first {
                        None => start,
                        Some(other) => self.add(State::Split(start, other))?,
                    });
                }
                Ok(first.unwrap_or(next))
            }
            Node::Repeat { node, min, max } => self.repeat(node, *min, *max, next),
        }
    }

    fn repeat(&mut self, node: &Node, min: u32, max: Option<u32>, next: u32) -> Result<u32, SyntaxError> {
        let mut start = next;
        match max {
            None => {
                let at = self.add(State::Dead)?;
                let body = self.node(node, at)?;
                self.states[at as usize] = State::Split(body, next);
                start = at;
            }
            Some(max) => {
                for _ in min..max {
                    let body = self.node(node, start)?;
                    start = self.add(State::Split(body, next))?;
                }
            }
        }
        for _ in 0..min {
            start = self.node(node, start)?;
        }
        Ok(start)
    }

    /// A character of several bytes is a path; equal ends of paths are shared.
    fn class(&mut self, ranges: &[(char, char)], next: u32) -> Result<u32, SyntaxError> {
        let mut tails: HashMap<Vec<(u8, u8)>, u32> = HashMap::new();
        let mut first = Vec::new();
        for &(low, high) in ranges {
            for sequence in Utf8Sequences::new(low, high) {
                let (head, tail) = sequence.as_slice().split_first().expect("a character has a byte");
                let mut target = next;
                for length in 1..=tail.len() {
                    let rest: Vec<(u8, u8)> = tail[tail.len() - length..].iter().map(bounds).collect();
                    let (low, high) = rest[0];
                    target = match tails.get(&rest) {
                        Some(&known) => known,
                        None => {
                            let state = self.add(State::Bytes([(low, high, target)].into()))?;
                            tails.insert(rest, state);
                            state
                        }
                    };
                }
                first.push((head.start, head.end, target));
            }
        }
        self.add(State::Bytes(first.into()))
    }

    fn token(&mut self, name: &TokenName, is_negated: bool, at: usize, next: u32) -> Result<u32, SyntaxError> {
        let token = match name {
            TokenName::Id(id) if *id < self.n_vocab => *id,
            TokenName::Id(id) => {
                let reason = format!("there is no token {id}; this vocabulary has {} tokens", self.n_vocab);
                return Err(self.rules.error(at, reason));
            }
            TokenName::Text(text) => (self.lookup)(text)
                .ok_or_else(|| self.rules.error(at, format!("{text:?} is not one token of this vocabulary")))?,
        };
        self.add(State::Token { token, is_negated, next })
    }
}

fn bounds(range: &Utf8Range) -> (u8, u8) {
    (range.start, range.end)
}

/// From which states a rule can be completed: with bytes and tokens, or without reading anything.
fn reaching_accept(states: &[State], starts: &[u32], with_input: bool) -> Vec<bool> {
    // For each state those that may be reached by way of it; a call needs its rule and what follows.
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); states.len()];
    for (idx, state) in states.iter().enumerate() {
        let mut add = |target: u32| before[target as usize].push(idx as u32);
        match state {
            State::Split(first, second) => [*first, *second].into_iter().for_each(add),
            State::Bytes(ranges) if with_input => ranges.iter().for_each(|range| add(range.2)),
            State::Token { next, .. } if with_input => add(*next),
            State::Call { rule, next } => {
                add(starts[*rule as usize]);
                add(*next);
            }
            State::Bytes(_) | State::Token { .. } | State::Accept | State::Dead => {}
        }
    }
    let mut reaches = vec![false; states.len()];
    let mut pending: Vec<u32> = vec![ACCEPT];
    while let Some(idx) = pending.pop() {
        if std::mem::replace(&mut reaches[idx as usize], true) {
            continue;
        }
        for &previous in &before[idx as usize] {
            let is_ready = match &states[previous as usize] {
                State::Call { rule, next } => reaches[starts[*rule as usize] as usize] && reaches[*next as usize],
                _ => true,
            };
            if is_ready && !reaches[previous as usize] {
                pending.push(previous);
            }
        }
    }
    reaches
}

/// Takes out what cannot be completed.
fn prune(states: &mut [State], starts: &[u32], is_live: &[bool]) {
    let live = |target: u32| is_live[target as usize];
    for state in states.iter_mut() {
        let pruned = match state {
            State::Split(first, second) => match (live(*first), live(*second)) {
                (true, true) => continue,
                (true, false) => State::Split(*first, DEAD),
                (false, true) => State::Split(*second, DEAD),
                (false, false) => State::Dead,
            },
            State::Bytes(ranges) => {
                if ranges.iter().all(|range| live(range.2)) {
                    continue;
                }
                State::Bytes(ranges.iter().copied().filter(|range| live(range.2)).collect())
            }
            State::Token { next, .. } if !live(*next) => State::Dead,
            State::Call { rule, next } if !live(starts[*rule as usize]) || !live(*next) => State::Dead,
            _ => continue,
        };
        *state = pruned;
    }
}

/// Orders rules so that one that can begin with another, before anything is read, comes first. The number of a rule
/// that can begin with itself is the error.
fn rank(states: &[State], starts: &[u32], nullable: &[bool]) -> Result<Vec<u32>, usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; starts.len()];
    let mut rank = vec![0; starts.len()];
    let mut next_rank = starts.len() as u32;
    let mut seen = vec![u32::MAX; states.len()];
    for first in 0..starts.len() {
        if marks[first] != Mark::New {
            continue;
        }
        marks[first] = Mark::Open;
        let mut path = vec![(first, first_rules(states, starts, nullable, first, &mut seen))];
        while let Some((rule, begins_with)) = path.last_mut() {
            let rule = *rule;
            match begins_with.pop() {
                Some(other) if marks[other] == Mark::Open => return Err(other),
                Some(other) if marks[other] == Mark::New => {
                    marks[other] = Mark::Open;
                    path.push((other, first_rules(states, starts, nullable, other, &mut seen)));
                }
                Some(_) => {}
                None => {
                    marks[rule] = Mark::Done;
                    next_rank -= 1;
                    rank[rule] = next_rank;
                    path.pop();
                }
            }
        }
    }
    Ok(rank)
}

/// The rules that `rule` can begin with.
fn first_rules(states: &[State], starts: &[u32], nullable: &[bool], rule: usize, seen: &mut [u32]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut pending = vec![starts[rule]];
    while let Some(idx) = pending.pop() {
        if std::mem::replace(&mut seen[idx as usize], rule as u32) == rule as u32 {
            continue;
        }
        match &states[idx as usize] {
            State::Split(first, second) => pending.extend([*first, *second]),
            State::Call { rule: called, next } => {
                found.push(*called as usize);
                if nullable[*called as usize] {
                    pending.push(*next);
                }
            }
            State::Bytes(_) | State::Token { .. } | State::Accept | State::Dead => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Numbers for bytes such that all ranges consist of whole classes.
fn byte_classes(states: &[State]) -> ([u8; 256], usize) {
    let mut begins = [false; 257];
    for state in states {
        if let State::Bytes(ranges) = state {
            for &(low, high, _) in ranges {
                begins[usize::from(low)] = true;
                begins[usize::from(high) + 1] = true;
            }
        }
    }
    let mut classes = [0_u8; 256];
    let mut class = 0_u8;
    for byte in 1..256 {
        class += u8::from(begins[byte]);
        classes[byte] = class;
    }
    (classes, usize::from(class) + 1)
}
