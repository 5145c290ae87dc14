//! `strftime_now`.

use std::fmt::Write;

use chrono::NaiveDateTime;

use super::value::{Outcome, fail};

/// Longest format and so, within a small factor, longest result.
const MAX_FORMAT_BYTES: usize = 1000;

/// Python's `datetime.strftime` of a time without zone.
pub(super) fn strftime(now: NaiveDateTime, format: &str) -> Outcome<String> {
    if format.len() > MAX_FORMAT_BYTES {
        return fail(format!("a time format may be at most {MAX_FORMAT_BYTES} bytes long"));
    }
    // A time without zone prints nothing for its zone; Python's %f is microseconds.
    let mut plain = String::with_capacity(format.len());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '%' { chars.clone().next() } else { None }) {
            ('%', Some('z' | 'Z')) => {
                chars.next();
            }
            ('%', Some('f')) => {
                chars.next();
                plain.push_str("%6f");
            }
            ('%', Some(next)) => {
                chars.next();
                plain.push('%');
                plain.push(next);
            }
            (c, _) => plain.push(c),
        }
    }
    let mut out = String::new();
    match write!(out, "{}", now.format(&plain)) {
        Ok(()) => Ok(out),
        Err(_) => fail(format!("strftime_now cannot format {format:?}")),
    }
}
