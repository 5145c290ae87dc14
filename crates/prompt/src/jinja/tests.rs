//! The language against tables rendered by Python's jinja2, and against hostile templates.

use serde_json::{Value as Json, json};

use crate::{PromptError, render_row};

/// Tables of one context each, and templates with what jinja2 3.1 rendered under Hugging Face's settings: an immutable
/// sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, and `tojson` without HTML escapes. A case with `differs` says
/// why we do otherwise there: such templates do not occur, and to follow would cost more than it is worth.
const TABLES: [&str; 2] =
    [include_str!("../../testdata/jinja_cases.json"), include_str!("../../testdata/jinja_more_cases.json")];

fn is_equal(context: &Json, case: &Json) -> (bool, Result<String, PromptError>) {
    let mut row = context.clone();
    row["template"] = case["template"].clone();
    row["now"] = json!("2025-01-02T03:04:05");
    let rendered = render_row(&row);
    let equal = match (case["expected"].as_str(), &rendered) {
        (Some(expected), Ok(found)) => expected == found,
        (None, Err(PromptError::Limit { .. })) => false,
        (None, Err(_)) => true,
        _ => false,
    };
    (equal, rendered)
}

#[test]
fn renders_as_python_does() {
    let (mut total, mut known, mut wrong) = (0, 0, Vec::new());
    for table in TABLES {
        let table: Json = serde_json::from_str(table).expect("the table is JSON");
        for case in table["cases"].as_array().expect("cases is a list") {
            total += 1;
            let (equal, rendered) = is_equal(&table["context"], case);
            let expects_equal = case["differs"].is_null();
            known += usize::from(!expects_equal);
            if equal != expects_equal {
                let (template, expected) = (&case["template"], &case["expected"]);
                wrong.push(format!("{template} {}\n  want {expected}\n  have {rendered:?}", case["differs"]));
            }
        }
    }
    eprintln!("{} of {total} cases equal, {known} known to differ", total - known - wrong.len());
    assert!(total - known > 390, "{total} cases, {known} known to differ");
    assert!(wrong.is_empty(), "{} of {total} cases are not as expected:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whole numbers at the edge of 128 bits, wherever one may stand.
#[test]
fn no_integer_is_too_large_to_survive() {
    let max = "170141183460469231731687303715884105727";
    let numbers =
        [max.to_owned(), format!("(-{max} - 1)"), format!("-{max}"), format!("{max}9"), "-1".into(), "0".into()];
    let templates = [
        "{{ A + B }}",
        "{{ A - B }}",
        "{{ A * B }}",
        "{{ A / B }}",
        "{{ A // B }}",
        "{{ A % B }}",
        "{{ A ** B }}",
        "{{ -A }}",
        "{{ A|abs }}",
        "{{ A|int }}",
        "{{ A|float|int }}",
        "{{ A|round(B) }}",
        "{{ A|string|int }}",
        "{{ 'abc'[A] }}",
        "{{ 'abc'[A:B] }}",
        "{{ 'abc'[A:B:A] }}",
        "{{ [1, 2][A] }}",
        "{{ [1, 2][A:B:B] }}",
        "{{ range(9)[A:B:A] }}",
        "{{ range(A, B) }}",
        "{{ range(A, B, A) }}",
        "{{ 'x' * A }}",
        "{{ [1] * A }}",
        "{{ A is divisibleby B }}",
        "{{ A is odd }}",
        "{{ 'abc'.find('c', A, B) }}",
        "{{ 'aa'.replace('a', 'b', A) }}",
        "{{ '%d %x %c' % (A, B, A) }}",
        "{{ '%*d' % (A, B) }}",
        "{{ '{:,} {:e}'.format(A, B) }}",
        "{{ 'a'|indent(A) }}",
        "{{ 'a'|truncate(A, leeway=B) }}",
        "{{ 'a'|center(A) }}",
        "{{ [1]|batch(A)|list }}",
        "{{ [1]|slice(A)|list }}",
        "{{ 'a'.zfill(A) }}",
        "{{ 'a b'.split(' ', A) }}",
        "{{ 'a\t'.expandtabs(A) }}",
        "{{ {A: 1}[B] }}",
        "{{ [A, B, 1.5]|sort }}",
        "{{ [1]|tojson(indent=A) }}",
        "{{ A.bit_length() }}",
        "{{ '9'|int(base=A) }}",
        "{{ [A, B]|sum }}",
        "{{ A == B or A < B }}",
    ];
    for template in templates {
        for a in &numbers {
            for b in &numbers {
                let source = template.replace('A', a).replace('B', b);
                if let Ok(text) = render_row(&json!({"template": source})) {
                    assert!(text.len() < 20_000, "{source}");
                }
            }
        }
    }
}

#[test]
fn values_without_an_order_sort_without_a_panic() {
    let items: Vec<Json> =
        (0..200).map(|idx| if idx % 3 == 0 { json!("nan") } else { json!((idx * 37) % 100) }).collect();
    let row = |template: &str| json!({"template": template, "items": items.clone()});
    assert!(render_row(&row("{{ items|map('float')|sort|length }}{{ items|map('float')|max }}")).is_ok());
    assert!(render_row(&row("{{ items|sort }}")).is_err());
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
        "{% block b %}{{ self.b() }}{% endblock %}".to_owned(),
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
