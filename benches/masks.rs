//! The mask for the next token, and the step to the one behind it. The vocabulary is that of bytes: `ingle grammar bench`
//! measures a model's.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group};
use ingle::{Compiled, GrammarEnvironment, GrammarSource, Strictness};
use ingle_engine::fake::FakeTokenizer;

criterion_group!(benches, masks);

const GBNF: &str = r#"root ::= "[" item ("," item)* "]"
item ::= "\"" [^"\\]* "\"" | [0-9]+
"#;
const TEXT: &[u8] = br#"["alpha",12,"beta",345,"gamma"]"#;

fn masks(c: &mut Criterion) {
    let environment = Arc::new(GrammarEnvironment::new(Arc::new(FakeTokenizer::default())).expect("bytes are enough"));
    let schema = serde_json::json!({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}});
    let sources = [
        ("GBNF", GrammarSource::Gbnf(GBNF.into())),
        ("JSON schema", GrammarSource::JsonSchema { schema, strictness: Strictness::Lenient }),
    ];
    let mut group = c.benchmark_group("masks along 31 tokens");
    for (name, source) in sources {
        let compiled = Compiled::new(&environment, &source).expect("the grammar is sound");
        group.bench_function(name, |bencher| {
            let follow = |constraint: &mut Box<dyn ingle_engine::Constraint>| {
                for &byte in TEXT {
                    std::hint::black_box(constraint.allowed().expect("the text is allowed"));
                    constraint.accept(byte.into()).expect("the text is allowed");
                }
            };
            bencher.iter_batched_ref(|| compiled.start(), follow, BatchSize::SmallInput);
        });
    }
}
