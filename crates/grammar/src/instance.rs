//! Reads an answer as JSON for a look at its schema.

use serde_json::Value;

/// The value of a JSON text. A number beyond what a float holds is valid JSON and stands for the largest float.
pub(crate) fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&clamped(text)).ok())
}

/// `text` with the largest float in place of each number that is larger.
fn clamped(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => string_len(rest),
            '-' | '0'..='9' => rest.find(|c| !is_number(c)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        let (token, behind) = rest.split_at(len);
        match token.parse::<f64>() {
            Ok(number) if number.is_infinite() && first != '"' => {
                out.push_str(&f64::MAX.copysign(number).to_string());
                out.push_str(".0");
            }
            _ => out.push_str(token),
        }
        rest = behind;
    }
    out
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().enumerate().skip(1).find(|&(_, byte)| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn large_numbers_are_numbers() {
        assert_eq!(parse("[1, 2.5e3]"), Some(json!([1, 2500.0])));
        let value = parse(r#"{"a": 9e86887, "b": [-1E+400, "1e999 \" 1e999"], "c": 1e-999}"#).expect("valid JSON");
        assert_eq!(value["a"].as_f64(), Some(f64::MAX));
        assert_eq!(value["b"], json!([f64::MIN, "1e999 \" 1e999"]));
        for broken in ["[1e999", "{\"a\": 1e999,}", "\"1e999", "é1e999", ""] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
