//! The automaton as it runs: every set of positions in the grammar that was reached is one numbered state, and what a
//! byte does to it is found once. So an answer is matched by looks into a table that grows with what answers visit.
//!
//! A position is a state of the automaton and a stack. A stack is a node: the places where the rule that is being read
//! may have been called, each with the node of its caller. All calls of a rule at one point of the text share one node
//! (a graph-structured stack, as in generalised LL parsing: Scott and Johnstone, GLL Parsing, 2010), so ambiguity does
//! not multiply stacks; calls at the end of a rule hand on the caller's places, so tail recursion does not let them grow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::automaton::{Automaton, State};

/// A numbered set of positions. [`NOWHERE`] is the empty set.
pub(super) type Id = u32;
/// No text goes on from here.
pub(super) const NOWHERE: Id = 0;
const UNKNOWN: Id = Id::MAX;
/// The place to return to that stands for the end of the text.
const END: u32 = u32::MAX;

/// Bytes of states and nodes after which a fresh table is begun, unless a single stack needs more.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of masks that are kept.
const MAX_MASK_BYTES: usize = 24 << 20;

/// Places to return to, with the nodes of their callers; sorted.
type Places = Box<[(u32, u32)]>;

/// One set of positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Positions {
    /// States that read a byte or a token, with their stacks; sorted.
    at: Box<[(u32, u32)]>,
    /// May the text end here?
    pub(super) may_end: bool,
}

/// What was found out so far about one grammar.
#[derive(Debug)]
pub(super) struct Memo {
    automaton: Arc<Automaton>,
    sets: Vec<Arc<Positions>>,
    ids: HashMap<Arc<Positions>, Id>,
    /// `[sets, classes]`, row after row.
    table: Vec<Id>,
    nodes: Vec<Arc<Places>>,
    node_ids: HashMap<Arc<Places>, u32>,
    n_bytes: usize,
    /// Bytes at which it is full.
    limit: usize,
    masks: HashMap<Id, Arc<[u32]>>,
    n_mask_bytes: usize,
    /// Positions looked at; the measure of work.
    pub(super) work: u64,
    pub(super) start: Id,
}

/// A stack while the positions at one point of the text are being found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stack {
    /// A node.
    Node(u32),
    /// The calls of a rule at this point.
    Called(u32),
}

/// The calls of one rule at one point of the text.
#[derive(Debug, Default)]
struct Calls {
    /// Where to go on, on which stack.
    returns: HashSet<(u32, Stack)>,
    /// Calls at the end of a rule: these return where their caller returns.
    tails: HashSet<Stack>,
}

impl Memo {
    pub(super) fn new(automaton: Arc<Automaton>) -> Self {
        let mut memo = Self {
            automaton,
            sets: Vec::new(),
            ids: HashMap::new(),
            table: Vec::new(),
            nodes: Vec::new(),
            node_ids: HashMap::new(),
            n_bytes: 0,
            limit: MAX_BYTES,
            masks: HashMap::new(),
            n_mask_bytes: 0,
            work: 0,
            start: NOWHERE,
        };
        memo.intern(Positions { at: Box::default(), may_end: false });
        let end = memo.node(Box::new([(END, 0)]));
        let start = memo.automaton.starts[memo.automaton.root as usize];
        memo.start = memo.close(vec![(start, end)]);
        memo
    }

    pub(super) fn is_full(&self) -> bool {
        self.n_bytes > self.limit
    }

    pub(super) fn may_end(&self, id: Id) -> bool {
        self.sets[id as usize].may_end
    }

    /// Where a byte leads.
    #[inline]
    pub(super) fn step(&mut self, id: Id, byte: u8) -> Id {
        let class = self.automaton.classes[usize::from(byte)];
        let entry = id as usize * self.automaton.n_classes + usize::from(class);
        match self.table[entry] {
            UNKNOWN => {
                let target = self.find_step(id, byte);
                self.table[entry] = target;
                target
            }
            known => known,
        }
    }

    fn find_step(&mut self, id: Id, byte: u8) -> Id {
        let positions = Arc::clone(&self.sets[id as usize]);
        let automaton = Arc::clone(&self.automaton);
        let mut seeds = Vec::new();
        for &(state, stack) in &positions.at {
            if let State::Bytes(ranges) = &automaton.states[state as usize] {
                let hits = ranges.iter().filter(|range| range.0 <= byte && byte <= range.1);
                seeds.extend(hits.map(|range| (range.2, stack)));
            }
        }
        self.work += positions.at.len() as u64;
        self.close(seeds)
    }

    /// The only byte that can follow, and where it leads; none where there is a choice, the end being one.
    pub(super) fn only_step(&mut self, id: Id) -> Option<(u8, Id)> {
        let positions = Arc::clone(&self.sets[id as usize]);
        if positions.may_end {
            return None;
        }
        let mut only = None;
        for &(state, _) in &positions.at {
            let State::Bytes(ranges) = &self.automaton.states[state as usize] else { return None };
            for &(low, high, _) in ranges.iter() {
                if low != high || only.is_some_and(|byte| byte != low) {
                    return None;
                }
                only = Some(low);
            }
        }
        only.map(|byte| (byte, self.step(id, byte)))
    }

    /// Where a token leads that the grammar names; [`NOWHERE`] if it does not.
    pub(super) fn step_token(&mut self, id: Id, token: u32) -> Id {
        if !self.automaton.has_tokens {
            return NOWHERE;
        }
        let positions = Arc::clone(&self.sets[id as usize]);
        let mut seeds = Vec::new();
        for &(state, stack) in &positions.at {
            match self.automaton.states[state as usize] {
                State::Token { token: named, is_negated, next } if (named == token) != is_negated => {
                    seeds.push((next, stack));
                }
                _ => {}
            }
        }
        self.close(seeds)
    }

    /// The tokens that the grammar names here: each with whether it is this one or any other.
    pub(super) fn named_tokens(&self, id: Id) -> Vec<(u32, bool)> {
        let named =
            self.sets[id as usize].at.iter().filter_map(|&(state, _)| match self.automaton.states[state as usize] {
                State::Token { token, is_negated, .. } => Some((token, is_negated)),
                _ => None,
            });
        named.collect()
    }

    /// Where either leads.
    pub(super) fn union(&mut self, first: Id, second: Id) -> Id {
        match (first, second) {
            (NOWHERE, other) | (other, NOWHERE) => other,
            (first, second) if first == second => first,
            (first, second) => {
                let (first, second) = (&self.sets[first as usize], &self.sets[second as usize]);
                let mut at: Vec<(u32, u32)> = first.at.iter().chain(&second.at).copied().collect();
                at.sort_unstable();
                at.dedup();
                let may_end = first.may_end || second.may_end;
                self.intern(Positions { at: at.into(), may_end })
            }
        }
    }

    /// All positions that the seeds stand for, before the next byte.
    fn close(&mut self, seeds: Vec<(u32, u32)>) -> Id {
        if seeds.is_empty() {
            return NOWHERE;
        }
        let automaton = Arc::clone(&self.automaton);
        let mut pending: Vec<(u32, Stack)> =
            seeds.into_iter().map(|(state, node)| (state, Stack::Node(node))).collect();
        let mut seen: HashSet<(u32, Stack)> = HashSet::with_capacity(2 * pending.len());
        let mut calls: BTreeMap<u32, Calls> = BTreeMap::new();
        let mut reading = Vec::new();
        let mut may_end = false;
        while let Some((state, stack)) = pending.pop() {
            if !seen.insert((state, stack)) {
                continue;
            }
            self.work += 1;
            match &automaton.states[state as usize] {
                State::Split(first, second) => pending.extend([(*second, stack), (*first, stack)]),
                State::Bytes(_) | State::Token { .. } => reading.push((state, stack)),
                State::Call { rule, next } => {
                    if automaton.nullable[*rule as usize] {
                        pending.push((*next, stack));
                    }
                    // The order of ranks is the order in which nodes can be made: a caller's before the called's.
                    let calls = calls.entry(automaton.rank[*rule as usize]).or_default();
                    match automaton.is_end(*next) {
                        true => calls.tails.insert(stack),
                        false => calls.returns.insert((*next, stack)),
                    };
                    pending.push((automaton.starts[*rule as usize], Stack::Called(automaton.rank[*rule as usize])));
                }
                State::Accept => {
                    // A rule called here and complete here was empty, which its call has taken care of.
                    if let Stack::Node(node) = stack {
                        let places = Arc::clone(&self.nodes[node as usize]);
                        for &(place, caller) in places.iter() {
                            match place {
                                END => may_end = true,
                                place => pending.push((place, Stack::Node(caller))),
                            }
                        }
                    }
                }
                State::Dead => {}
            }
        }
        self.freeze(reading, &calls, may_end)
    }

    /// Turns stacks of this point into nodes, and positions into a set.
    fn freeze(&mut self, reading: Vec<(u32, Stack)>, calls: &BTreeMap<u32, Calls>, may_end: bool) -> Id {
        let mut made: HashMap<u32, u32> = HashMap::with_capacity(calls.len());
        for (&rank, calls) in calls {
            let node_of = |stack: &Stack| match stack {
                Stack::Node(node) => *node,
                Stack::Called(caller) => made[caller],
            };
            let mut places: Vec<(u32, u32)> =
                calls.returns.iter().map(|(next, stack)| (*next, node_of(stack))).collect();
            for stack in &calls.tails {
                places.extend(self.nodes[node_of(stack) as usize].iter());
            }
            places.sort_unstable();
            places.dedup();
            self.work += places.len() as u64;
            let node = self.node(places.into());
            made.insert(rank, node);
        }
        let mut at: Vec<(u32, u32)> = reading
            .into_iter()
            .map(|(state, stack)| match stack {
                Stack::Node(node) => (state, node),
                Stack::Called(rank) => (state, made[&rank]),
            })
            .collect();
        at.sort_unstable();
        at.dedup();
        let at = self.merged(at);
        self.intern(Positions { at: at.into(), may_end })
    }

    /// One stack for each state: the places of all its stacks. Without it an ambiguous grammar has ever more of them.
    fn merged(&mut self, at: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
        if at.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            return at;
        }
        let same = at.chunk_by(|first, second| first.0 == second.0).map(<[_]>::to_vec).collect::<Vec<_>>();
        let merge = |group: Vec<(u32, u32)>| {
            if let [only] = group[..] {
                return only;
            }
            let places = group.iter().flat_map(|&(_, node)| self.nodes[node as usize].iter().copied());
            let mut places: Vec<(u32, u32)> = places.collect();
            places.sort_unstable();
            places.dedup();
            (group[0].0, self.node(places.into()))
        };
        same.into_iter().map(merge).collect()
    }

    fn node(&mut self, places: Places) -> u32 {
        if let Some(&id) = self.node_ids.get(&places) {
            return id;
        }
        let id = self.nodes.len() as u32;
        self.n_bytes += 96 + places.len() * 8;
        let places = Arc::new(places);
        self.nodes.push(Arc::clone(&places));
        self.node_ids.insert(places, id);
        id
    }

    fn intern(&mut self, positions: Positions) -> Id {
        if let Some(&id) = self.ids.get(&positions) {
            return id;
        }
        let id = self.sets.len() as Id;
        self.n_bytes += 128 + positions.at.len() * 8 + self.automaton.n_classes * 4;
        let positions = Arc::new(positions);
        // The first set is empty, and nothing leads out of it.
        let unknown = if id == NOWHERE { NOWHERE } else { UNKNOWN };
        self.table.resize(self.table.len() + self.automaton.n_classes, unknown);
        self.sets.push(Arc::clone(&positions));
        self.ids.insert(positions, id);
        id
    }

    pub(super) fn mask(&self, id: Id) -> Option<Arc<[u32]>> {
        self.masks.get(&id).cloned()
    }

    pub(super) fn keep_mask(&mut self, id: Id, mask: Arc<[u32]>) {
        let n_bytes = mask.len() * 4;
        if self.n_mask_bytes + n_bytes > MAX_MASK_BYTES {
            self.masks.clear();
            self.n_mask_bytes = 0;
        }
        self.n_mask_bytes += n_bytes;
        self.masks.insert(id, mask);
    }

    /// The set `id` of `other` in this table.
    pub(super) fn import(&mut self, other: &Memo, id: Id) -> Id {
        // Callers' nodes are older than those of what they call, so ascending numbers visit them first.
        let mut needed: Vec<u32> = other.sets[id as usize].at.iter().map(|&(_, node)| node).collect();
        let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
        while let Some(node) = needed.pop() {
            if nodes.insert(node, 0).is_none() {
                let places = other.nodes[node as usize].iter();
                needed.extend(places.filter(|place| place.0 != END).map(|&(_, caller)| caller));
            }
        }
        let order: Vec<u32> = nodes.keys().copied().collect();
        for node in order {
            let places = other.nodes[node as usize].iter();
            let places = places.map(|&(place, caller)| (place, if place == END { caller } else { nodes[&caller] }));
            let mut places: Vec<(u32, u32)> = places.collect();
            places.sort_unstable();
            let here = self.node(places.into());
            nodes.insert(node, here);
        }
        let positions = &other.sets[id as usize];
        let mut at: Vec<(u32, u32)> = positions.at.iter().map(|&(state, node)| (state, nodes[&node])).collect();
        at.sort_unstable();
        // One deep stack may be larger than a whole table should be; it must not fill every table it is moved to.
        self.limit = self.limit.max(2 * self.n_bytes);
        self.intern(Positions { at: at.into(), may_end: positions.may_end })
    }
}
