//! Strings that know where each of their bytes came from.
//!
//! Every operation on a [`Text`] is a cut or a join, so the origin of a byte survives whatever a template does with the
//! string: splitting, stripping, slicing, replacing, formatting. Comparisons look at the characters alone, so a template
//! behaves as if the origin were not there.

use std::ops::Range;
use std::sync::Arc;

/// Who wrote a byte of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The template's source, or a value the operator configured.
    Template,
    /// Text that came with a request.
    Client,
}

/// A run of bytes with one origin; it ends at byte `end` (exclusive) and begins where the run before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    end: usize,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Runs {
    Uniform(Origin),
    Mixed(Arc<[Run]>),
}

/// An immutable string with origins. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    text: Arc<str>,
    runs: Runs,
    /// jinja2's `Markup`: a `+` or `%` with it escapes the other side.
    pub markup: bool,
}

impl Text {
    pub fn new(text: impl Into<Arc<str>>, origin: Origin) -> Self {
        Self { text: text.into(), runs: Runs::Uniform(origin), markup: false }
    }

    pub fn template(text: impl Into<Arc<str>>) -> Self {
        Self::new(text, Origin::Template)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn shared(&self) -> Arc<str> {
        self.text.clone()
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Runs that overlap `range`, clipped to it, as byte ranges of this text.
    pub fn runs_in(&self, range: Range<usize>) -> Vec<(Range<usize>, Origin)> {
        if range.is_empty() {
            return Vec::new();
        }
        match &self.runs {
            Runs::Uniform(origin) => vec![(range, *origin)],
            Runs::Mixed(runs) => {
                let first = runs.partition_point(|run| run.end <= range.start);
                let mut start = range.start;
                let mut found = Vec::new();
                for run in &runs[first..] {
                    let end = run.end.min(range.end);
                    found.push((start..end, run.origin));
                    start = end;
                    if run.end >= range.end {
                        break;
                    }
                }
                found
            }
        }
    }

    pub fn slice(&self, range: Range<usize>) -> Self {
        if range.start == 0 && range.end == self.len() {
            return self.clone();
        }
        let mut builder = TextBuilder::new();
        builder.push_range(self, range);
        builder.finish().with_markup(self.markup)
    }

    /// The slice that `part`, a subslice of `as_str()`, denotes.
    pub fn slice_of(&self, part: &str) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).min(self.len());
        self.slice(start..(start + part.len()).min(self.len()))
    }

    pub fn with_markup(mut self, markup: bool) -> Self {
        self.markup = markup;
        self
    }

    /// Applies a character mapping run by run.
    pub fn map_runs(&self, map: impl Fn(&str) -> String) -> Self {
        let mut builder = TextBuilder::new();
        for (range, origin) in self.runs_in(0..self.len()) {
            builder.push_str(&map(&self.text[range]), origin);
        }
        builder.finish().with_markup(self.markup)
    }

    /// HTML escaping, as `Markup` does it.
    pub fn escaped(&self) -> Self {
        if self.markup {
            return self.clone();
        }
        let escape = |run: &str| {
            run.replace('&', "&amp;")
                .replace('>', "&gt;")
                .replace('<', "&lt;")
                .replace('\'', "&#39;")
                .replace('"', "&#34;")
        };
        self.map_runs(escape).with_markup(true)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Joins pieces into a [`Text`].
#[derive(Debug, Default)]
pub(crate) struct TextBuilder {
    text: String,
    runs: Vec<Run>,
}

impl TextBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn push_str(&mut self, text: &str, origin: Origin) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.runs.last_mut() {
            Some(run) if run.origin == origin => run.end = end,
            _ => self.runs.push(Run { end, origin }),
        }
    }

    pub fn push(&mut self, text: &Text) {
        self.push_range(text, 0..text.len());
    }

    pub fn push_range(&mut self, text: &Text, range: Range<usize>) {
        for (part, origin) in text.runs_in(range) {
            self.push_str(&text.text[part], origin);
        }
    }

    pub fn finish(self) -> Text {
        let runs = match self.runs.as_slice() {
            [] => Runs::Uniform(Origin::Template),
            [only] => Runs::Uniform(only.origin),
            _ => Runs::Mixed(self.runs.into()),
        };
        Text { text: self.text.into(), runs, markup: false }
    }
}

/// White space as Python's `str.isspace` sees it.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
