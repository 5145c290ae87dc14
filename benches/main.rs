//! The hot paths between a request and its bytes, without a model: `make bench`. Each module has one of them. What a model
//! takes is measured by `ingle bench`.
#![forbid(unsafe_code)]

mod masks;
mod prompts;
mod sampler;
mod scheduler;
mod speculation;
mod sse;

criterion::criterion_main!(
    scheduler::benches,
    speculation::benches,
    sampler::benches,
    masks::benches,
    prompts::benches,
    sse::benches
);
