//! A frame of a streamed chat answer as bytes.

use criterion::{Criterion, criterion_group};
use ingle_api::openai::ChatChunk;
use serde_json::json;

criterion_group!(benches, frame);

fn frame(c: &mut Criterion) {
    let chunk: ChatChunk = serde_json::from_value(json!({
        "id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m",
        "choices": [{"index": 0, "delta": {"content": " a few \"words\""}, "finish_reason": null}],
    }))
    .expect("a frame");
    let mut buffer = Vec::with_capacity(512);
    c.bench_function("frame of a chat answer", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(b"data: ");
            serde_json::to_writer(&mut buffer, &chunk).expect("wire types serialise");
            buffer.extend_from_slice(b"\n\n");
            buffer.len()
        });
    });
}
