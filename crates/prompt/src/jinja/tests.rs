//! The language against tables rendered by Python's jinja2, and against hostile templates.

use serde_json::{Value as Json, json};

use crate::{PromptError, render_row};

/// Tables of one context each, and templates with what jinja2 3.1 rendered under Hugging Face's settings: an immutable
/// sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, and `tojson` without HTML escapes.
const TABLES: [&str; 2] =
    [include_str!("../../testdata/jinja_cases.json"), include_str!("../../testdata/jinja_more_cases.json")];

fn differs(context: &Json, case: &Json) -> Option<String> {
    let mut row = context.clone();
    row["template"] = case["template"].clone();
    row["now"] = json!("2025-01-02T03:04:05");
    let rendered = render_row(&row);
    let right = match (case["expected"].as_str(), &rendered) {
        (Some(expected), Ok(found)) => expected == found,
        (None, Err(PromptError::Limit { .. })) => false,
        (None, Err(_)) => true,
        _ => false,
    };
    (!right).then(|| format!("{}\n  want {}\n  have {rendered:?}", case["template"], case["expected"]))
}

#[test]
fn renders_as_python_does() {
    let (mut total, mut wrong) = (0, Vec::new());
    for table in TABLES {
        let table: Json = serde_json::from_str(table).expect("the table is JSON");
        let cases = table["cases"].as_array().expect("cases is a list");
        total += cases.len();
        wrong.extend(cases.iter().filter_map(|case| differs(&table["context"], case)));
    }
    assert!(total > 300, "{total} cases");
    assert!(wrong.is_empty(), "{} of {total} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn hostile_templates_end_with_an_error() {
    let deep =
        |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(100_000), close.repeat(100_000));
    let templates = [
        format!("{{{{ {} x }}}}", "not ".repeat(100_000)),
        format!("{{{{ a{} }}}}", "+a".repeat(100_000)),
        format!("{{{{ {} }}}}", deep("(", "1", ")")),
        format!("{{{{ {} }}}}", deep("[", "1", "]")),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ a{} }}}}", ".b".repeat(100_000)),
        format!("{{{{ a{} }}}}", "|string".repeat(100_000)),
        deep("{% if 1 %}", "", "{% endif %}"),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}".to_owned(),
        "{{ 'x' * 99999999999 }}".to_owned(),
        "{{ '%99999999d' % 1 }}".to_owned(),
        "{{ 'x'.center(99999999999) }}".to_owned(),
        "{{ [1] * 99999999999 }}".to_owned(),
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}".to_owned(),
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}".to_owned(),
        "{% set ns = namespace(l=1) %}{% for i in range(9999) %}{% for j in [ns.l] %}{% set ns.l = loop %}{% endfor %}\
         {% endfor %}{{ [ns.l] }}"
            .to_owned(),
        "{{ 9 ** 9 ** 9 ** 9 }}".to_owned(),
        "{{ '".to_owned(),
        "{% if".to_owned(),
        "{#".to_owned(),
        "{% raw %}".to_owned(),
        "{{ '\\ud800' }}{{ '\\x4' }}".to_owned(),
    ];
    for template in templates {
        let rendered = render_row(&json!({"template": template}));
        assert!(rendered.is_err(), "{}", template.chars().take(60).collect::<String>());
    }
}

/// The deepest source that is taken must fit the stack of a small thread.
#[test]
fn the_nesting_limit_fits_a_small_stack() {
    let nest = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
    };
    let sources: Vec<String> = (40..200)
        .step_by(3)
        .flat_map(|levels| {
            [
                format!("{{{{ {} }}}}", nest("(", "1", ")", levels)),
                format!("{{{{ {} }}}}", nest("{'a':[", "1", "]}", levels)),
                format!("{{{{ {} }}}}", nest("f(x|default(", "1", "))", levels)),
                nest("{% for x in [1] %}", "x", "{% endfor %}", levels),
                format!(
                    "{{% macro f(n) %}}{}{{% endmacro %}}{{{{ f(9) }}}}",
                    nest("{% if 1 %}", "{{ f(n) }}", "{% endif %}", levels)
                ),
            ]
        })
        .collect();
    let run = move || sources.iter().filter(|source| render_row(&json!({"template": source})).is_ok()).count();
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread starts");
    assert!(thread.join().expect("no template overflows the stack") > 0);
}
