//! The functions `now` and `date`: Go's layouts, which spell the moment 2006-01-02 15:04:05.

use std::cell::Cell;

use chrono::NaiveDateTime;

thread_local! {
    /// The time of the rendering that runs on this thread.
    static NOW: Cell<Option<NaiveDateTime>> = const { Cell::new(None) };
}

/// How a moment is handed from `now` to `date`.
const PLAIN: &str = "%Y-%m-%dT%H:%M:%S";

/// Pieces of a layout, longer ones first, and what `strftime` calls them.
const PIECES: [(&str, &str); 25] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("-07:00", "+00:00"),
    ("Z07:00", "Z"),
    ("-0700", "+0000"),
    ("2006", "%Y"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("_2", "%e"),
    ("15", "%H"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
];

/// Runs `render` with `now` as the time.
pub(super) fn with<T>(now: Option<NaiveDateTime>, render: impl FnOnce() -> T) -> T {
    let before = NOW.replace(now);
    let result = render();
    NOW.set(before);
    result
}

/// The time, where the caller has told it.
pub(super) fn now() -> Option<String> {
    NOW.get().map(|now| now.format(PLAIN).to_string())
}

/// `moment`, as [`now`] writes it, in a layout of Go's.
pub(super) fn date(layout: &str, moment: &str) -> Option<String> {
    let moment = NaiveDateTime::parse_from_str(moment, PLAIN).ok()?;
    let (mut format, mut rest) = (String::new(), layout);
    while let Some(c) = rest.chars().next() {
        match PIECES.iter().find(|(piece, _)| rest.starts_with(piece)) {
            Some((piece, directive)) => {
                format.push_str(directive);
                rest = &rest[piece.len()..];
            }
            None => {
                format.push_str(if c == '%' { "%%" } else { &rest[..c.len_utf8()] });
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(moment.format(&format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_gos() {
        let moment = "2024-03-09T17:05:06";
        for (layout, expected) in [
            ("2006-01-02", "2024-03-09"),
            ("02 Jan 2006 15:04:05", "09 Mar 2024 17:05:06"),
            ("Monday, January 2, 2006 3:04 PM", "Saturday, March 9, 2024 5:05 PM"),
            ("1%", "3%"),
        ] {
            assert_eq!(date(layout, moment).as_deref(), Some(expected), "{layout}");
        }
        assert_eq!(date("2006", "yesterday"), None);
    }
}
