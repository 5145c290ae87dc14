//! Loads a GGUF file and streams one answer, in process: `cargo run --release --example chat MODEL.gguf [QUESTION]`.
//! No server and no async runtime: see `Runtime` for those.

use std::io::Write;

use ingle::ChatEvent;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: chat MODEL.gguf [QUESTION]")?;
    let question = arguments.next().unwrap_or_else(|| "Why is the sky blue?".to_owned());
    let mut chat = ingle::chat_model(file)?;
    chat.options.max_tokens = Some(128);
    for event in chat.ask(question)? {
        match event? {
            ChatEvent::Content(text) | ChatEvent::Reasoning(text) => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            ChatEvent::Tokens(_) | ChatEvent::CallStart { .. } | ChatEvent::CallArguments(_) | ChatEvent::CallEnd => {}
            ChatEvent::Done(end) => println!("\n[{} tokens]", end.completion.usage.completion_tokens),
        }
    }
    Ok(())
}
