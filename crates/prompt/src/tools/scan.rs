//! Finds the end of a JSON value that arrives in pieces.

/// Where in a value the scan is.
#[derive(Debug, Clone, Default)]
pub(crate) struct JsonScan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Something of the value has come.
    begun: bool,
}

impl JsonScan {
    /// Looks at more of the value: the bytes of `text` up to its end, or `None` while it goes on.
    ///
    /// A number or a word ends before what follows it.
    pub fn end(&mut self, text: &str) -> Option<usize> {
        for (at, c) in text.char_indices() {
            if self.in_string {
                match c {
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match c {
                '"' => self.in_string = true,
                '{' | '[' => self.depth += 1,
                '}' | ']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                ',' | '}' | ']' | ')' if self.depth == 0 && self.begun => return Some(at),
                c if c.is_whitespace() && self.depth == 0 && self.begun => return Some(at),
                _ => {}
            }
            self.begun |= !c.is_whitespace();
        }
        None
    }
}

/// The JSON value that `text` begins with, blanks before it included: its bytes, or `None` while it is not whole.
pub(crate) fn value_end(text: &str) -> Option<usize> {
    JsonScan::default().end(text)
}

/// The first of `marks` in `text`.
pub(crate) fn first_of(text: &str, marks: &[String]) -> Option<(usize, usize)> {
    let found = marks.iter().enumerate().filter_map(|(idx, mark)| text.find(mark.as_str()).map(|at| (at, idx)));
    // Of two that begin at one place the longer one is meant.
    found.min_by_key(|&(at, idx)| (at, usize::MAX - marks[idx].len()))
}

/// Bytes at the end of `text` that may begin one of `marks`.
pub(crate) fn partial(text: &str, marks: &[String]) -> usize {
    let longest = |mark: &String| {
        let lens = (1..mark.len()).rev();
        lens.filter(|&len| mark.is_char_boundary(len)).find(|&len| text.ends_with(&mark[..len]))
    };
    marks.iter().filter_map(longest).max().unwrap_or(0)
}

/// Could `text` be the beginning of `mark`, or begin with it? `Some(true)`: it begins with it; `Some(false)`: it may yet.
pub(crate) fn begins(text: &str, mark: &str) -> Option<bool> {
    if text.starts_with(mark) {
        return Some(true);
    }
    mark.starts_with(text).then_some(false)
}
