use super::*;

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Sample {
    name: String,
    inner: Inner,
    list: Vec<Inner>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Inner {
    number: Option<f64>,
}

#[test]
fn unknown_keys_come_with_their_lines() {
    let text = "# head\nname: a\ncolour: red\ninner:\n  number: 1\n  nummer: 2\nlist:\n  - number: 3\n  - x: 4\n";
    let (sample, unknown) = parse(text).unwrap().decode::<Sample>().unwrap();
    assert_eq!(sample.name, "a");
    assert_eq!(sample.inner.number, Some(1.0));
    assert_eq!(sample.list.len(), 2);
    let found: Vec<(&str, u64)> = unknown.iter().map(|key| (key.key.as_str(), key.line)).collect();
    assert_eq!(found, [("colour", 3), ("inner.nummer", 6), ("list.1.x", 9)]);
}

#[test]
fn a_wrong_type_names_key_and_line() {
    let error = parse("name: a\ninner:\n  number: hot\n").unwrap().decode::<Sample>().unwrap_err();
    assert_eq!(error.line, 3);
    assert!(error.message.starts_with("inner.number: invalid type: string \"hot\""), "{}", error.message);
}

#[test]
fn broken_texts_are_refused_with_a_line() {
    let deep = "[".repeat(5000);
    let bomb = {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let previous = level - 1;
            let refs = vec![format!("*a{previous}"); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        text
    };
    let cases: [(&str, u64); 5] =
        [("a: [1\n", 0), ("a: b: c\n", 1), ("a: 1\na: 2\n", 2), (deep.as_str(), 0), (bomb.as_str(), 0)];
    for (text, line) in cases {
        let error = parse(text).unwrap_err();
        assert!(line == 0 || error.line == line, "{error:?}");
        assert!(!error.message.contains('\n'));
    }
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    let node = parse("- &base\n  a: 1\n  b: {c: 2}\n- !!merge <<: *base\n  a: 3\n").unwrap();
    assert_eq!(node.to_json(), serde_json::json!([{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {"c": 2}}]));
}

#[test]
fn merging_goes_deep() {
    let mut base = serde_json::json!({"a": {"x": 1, "y": [1]}, "b": 1});
    merge(&mut base, &serde_json::json!({"a": {"y": [2], "z": 3}, "b": {"n": 0}}));
    assert_eq!(base, serde_json::json!({"a": {"x": 1, "y": [2], "z": 3}, "b": {"n": 0}}));
}
