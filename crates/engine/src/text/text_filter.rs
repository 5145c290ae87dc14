//! From token bytes to text a client may see: whole characters only, and nothing that belongs to a stop text.

/// What came out of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filtered {
    /// Text that is final; may be empty while something is held back.
    Text(String),
    /// The last text before a stop text; nothing may follow.
    Stopped(String),
}

/// Holds back unfinished characters and possible beginnings of stop texts.
#[derive(Debug)]
pub(super) struct TextFilter {
    /// Non-empty stop texts.
    stop: Vec<String>,
    /// Bytes of a character that is not complete, at most 3.
    partial: Vec<u8>,
    /// Text that may turn out to begin a stop text.
    held: String,
}

impl TextFilter {
    pub(super) fn new(stop: Vec<String>) -> Self {
        let stop = stop.into_iter().filter(|text| !text.is_empty()).collect();
        Self { stop, partial: Vec::new(), held: String::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Filtered {
        self.partial.extend_from_slice(bytes);
        let (text, rest) = split_whole_characters(&self.partial);
        self.held.push_str(&text);
        self.partial = rest.to_vec();
        self.release()
    }

    /// The end: what is held back is final now; an unfinished character becomes U+FFFD.
    pub(super) fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        text
    }

    fn release(&mut self) -> Filtered {
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Filtered::Stopped(std::mem::take(&mut self.held));
        }
        let keep_from = self.held.len() - self.longest_beginning();
        let kept = self.held.split_off(keep_from);
        Filtered::Text(std::mem::replace(&mut self.held, kept))
    }

    /// Bytes at the end of `held` that begin some stop text.
    fn longest_beginning(&self) -> usize {
        let longest = |stop: &String| {
            let most = (stop.len() - 1).min(self.held.len());
            (1..=most).rev().find(|&n| self.held.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        self.stop.iter().map(longest).max().unwrap_or(0)
    }
}

/// Splits `bytes` into text (invalid bytes become U+FFFD) and the bytes of a last, unfinished character.
fn split_whole_characters(bytes: &[u8]) -> (String, &[u8]) {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return (text, &[]);
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                match error.error_len() {
                    Some(n_bad) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &after[n_bad..];
                    }
                    None => return (text, after),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `chunks` one after the other and joins what comes out; `|` marks the end by a stop text.
    fn run(stop: &[&str], chunks: &[&[u8]]) -> String {
        let mut filter = TextFilter::new(stop.iter().map(ToString::to_string).collect());
        let mut text = String::new();
        for chunk in chunks {
            match filter.push(chunk) {
                Filtered::Text(piece) => text += &piece,
                Filtered::Stopped(piece) => return text + &piece + "|",
            }
        }
        text + &filter.finish()
    }

    #[test]
    fn characters_are_whole_and_stop_texts_never_leak() {
        type Case<'a> = (&'a [&'a str], &'a [&'a [u8]], &'a str);
        let cases: &[Case] = &[
            (&[], &[b"a", b"b"], "ab"),
            (&[], &[b"\xe2\x82", b"\xac!"], "€!"),
            (&[], &[b"\xff", b"a"], "\u{fffd}a"),
            (&[], &[b"\xe2\x82"], "\u{fffd}"),
            (&["STOP"], &[b"one ST", b"OP two"], "one |"),
            (&["STOP"], &[b"one ST", b"ART"], "one START"),
            (&["STOP"], &[b"one ST"], "one ST"),
            (&["\n\n", "b"], &[b"a\n", b"b"], "a\n|"),
            (&["ab", "abc"], &[b"xab"], "x|"),
            (&[""], &[b"text"], "text"),
            (&["é"], &[b"caf\xc3", b"\xa9 x"], "caf|"),
            (&["aab"], &[b"a", b"a", b"a", b"b"], "a|"),
        ];
        for (stop, chunks, expected) in cases {
            assert_eq!(run(stop, chunks), *expected, "stop {stop:?}, chunks {chunks:?}");
        }
    }

    #[test]
    fn what_may_begin_a_stop_text_is_held_back_until_it_does_not() {
        let mut filter = TextFilter::new(vec!["END".into()]);
        assert_eq!(filter.push(b"the E"), Filtered::Text("the ".into()));
        assert_eq!(filter.push(b"N"), Filtered::Text(String::new()));
        assert_eq!(filter.push(b"T"), Filtered::Text("ENT".into()));
    }
}
