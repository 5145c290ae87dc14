//! From a conversation to the prompt, and from the pieces of an answer to text and calls.

use std::sync::Arc;

use criterion::{Criterion, criterion_group};
use ingle::prompt::{
    AnswerParser, ChatTemplate, Conversation, Message, ReasoningFormat, Role, TemplateOptions, TemplateVocabulary, Tool,
};
use serde_json::json;

criterion_group!(benches, template, calls);

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
    '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn template(c: &mut Criterion) {
    let template = ChatTemplate::compile(CHATML, TemplateVocabulary::default()).expect("the template is sound");
    for n_turns in [2, 40] {
        let roles = [Role::User, Role::Assistant].into_iter().cycle().take(n_turns);
        let messages = roles.map(|role| Message::text(role, "Some words that somebody says. ".repeat(8))).collect();
        let conversation = Conversation { messages, tools: Vec::new() };
        let options = TemplateOptions::default();
        c.bench_function(&format!("template, {n_turns} turns"), |bencher| {
            bencher.iter(|| template.render(&conversation, &options).expect("the template renders"));
        });
    }
}

fn calls(c: &mut Criterion) {
    let parameters =
        json!({"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}});
    let raw = json!({"type": "function", "function": {"name": "weather", "parameters": parameters}});
    let tool = Tool { name: "weather".into(), description: None, parameters, strict: false, raw };
    let tools: Arc<[Tool]> = Arc::new([tool]);
    // A template that knows no calls gets the form that most models know.
    let template = ChatTemplate::compile(CHATML, TemplateVocabulary::default()).expect("the template is sound");
    let format = template.call_format();
    let text = "I look it up. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Oslo\", \"days\": 3}}\n</tool_call>";
    let pieces: Vec<&str> = text.split_inclusive(' ').collect();
    c.bench_function("answer with a call", |bencher| {
        bencher.iter(|| {
            let mut parser = AnswerParser::with_calls(ReasoningFormat::None, Arc::clone(format), Arc::clone(&tools));
            let n_deltas: usize = pieces.iter().map(|piece| parser.push(piece).len()).sum();
            n_deltas + parser.finish().len()
        });
    });
}
