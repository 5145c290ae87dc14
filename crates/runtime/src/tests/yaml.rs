//! What the keys of a YAML do, seen in prompts and answers.

use super::*;
use crate::prompter::Prompter;

/// A house whose model `one` has this chat template in its file and these further lines in its configuration.
fn house_of(answers: Answers, yaml: &str) -> House {
    configured(answers, yaml)
}

/// The prompt of a conversation.
fn prompt(house: &House, turns: &[(Role, &str)]) -> String {
    let lease = block_on(house.runtime.lease(Some("one"), Usecase::Chat)).unwrap();
    let messages = turns.iter().map(|(role, text)| Message::text(*role, *text)).collect();
    let conversation = Conversation { messages, tools: Vec::new() };
    Prompter::of(&lease).unwrap().render(&conversation, &TemplateOptions::default()).unwrap().text()
}

fn answer(house: &House) -> (String, String) {
    let mut streams = block_on(house.runtime.chat(call("one", "hi"))).unwrap();
    let (content, reasoning, _) = read(streams.pop().unwrap());
    (content, reasoning)
}

#[test]
fn the_system_prompt_stands_in_for_a_missing_one() {
    let house = house_of(Answers::Hash, "system_prompt: be kind\n");
    assert_eq!(prompt(&house, &[(Role::User, "hi")]), "[system]be kind[user]hi[assistant]");
    assert_eq!(prompt(&house, &[(Role::System, "S"), (Role::User, "hi")]), "[system]S[user]hi[assistant]");
}

#[test]
fn go_templates_take_the_place_of_the_model_s_own() {
    let yaml = "template:\n  chat: '{{.SystemPrompt}}|{{.Input}}|'\n  chat_message: '{{.RoleName}}={{.Content}}'\n  join_chat_messages_by_character: ','\nsystem_prompt: S\n";
    let house = house_of(Answers::Hash, yaml);
    assert_eq!(prompt(&house, &[(Role::User, "a"), (Role::Assistant, "b")]), "S|user=a,assistant=b|");
    let own = house_of(Answers::Hash, &yaml.replace("  chat:", "  use_tokenizer_template: true\n  chat:"));
    assert_eq!(prompt(&own, &[(Role::User, "a")]), "[system]S[user]a[assistant]");
    let broken = house_of(Answers::Hash, "template: {chat: '{{.Input'}\n");
    let error = block_on(broken.runtime.chat(call("one", "hi"))).unwrap_err().to_string();
    assert!(error.contains("template.chat"), "{error}");
}

#[test]
fn a_changed_template_counts_from_the_next_request_on() {
    let house = house_of(Answers::Hash, "template: {chat: 'A{{.Input}}'}\n");
    assert_eq!(prompt(&house, &[(Role::User, "x")]), "Ax");
    let path = house.folder.path().join("one.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("'A{{", "'BB{{")).unwrap();
    assert_eq!(prompt(&house, &[(Role::User, "x")]), "BBx");
}

#[test]
fn template_files_are_read() {
    let house = house_of(Answers::Hash, "template: {chat: mine, completion: mine}\n");
    std::fs::write(house.folder.path().join("mine.tmpl"), "<{{.Input}}>").unwrap();
    assert_eq!(prompt(&house, &[(Role::User, "x")]), "<x>");
    let house = house_of(Answers::Hash, "");
    std::fs::write(house.folder.path().join("one.gguf.tmpl"), "({{.Input}})").unwrap();
    assert_eq!(prompt(&house, &[(Role::User, "x")]), "(x)");
}

#[test]
fn completions_and_edits_have_templates_of_their_own() {
    let yaml = "template:\n  completion: '<{{.SystemPrompt}}{{.Input}}>'\n  edit: '{{.Instruction}}/{{.Input}}'\nsystem_prompt: S\n";
    let house = house_of(Answers::Text("done".into()), yaml);
    let prompt_tokens = |usage: &Usage| usage.prompt_tokens;
    let asked = CompletionCall {
        model: Some("one".into()),
        prompt: PromptInput::Text("abc".into()),
        options: AnswerOptions::default(),
    };
    let mut stream = block_on(house.runtime.complete(asked)).unwrap().pop().unwrap();
    let counted = loop {
        if let GenerationEvent::Done(done) = stream.wait_next().unwrap().unwrap() {
            break prompt_tokens(&done.usage);
        }
    };
    assert_eq!(counted, 1 + "<Sabc>".len());
    let edit = |house: &House| {
        let call = EditCall {
            model: Some("one".into()),
            input: "teh".into(),
            instruction: "fix".into(),
            options: AnswerOptions::default(),
        };
        let (content, _, done) = read(block_on(house.runtime.edit(call)).unwrap().pop().unwrap());
        (content, done.completion.usage.prompt_tokens)
    };
    assert_eq!(edit(&house), ("done".to_owned(), 1 + "fix/teh".len()));
    let plain = house_of(Answers::Text("done".into()), "");
    assert_eq!(edit(&plain), ("done".to_owned(), 1 + "[user]fix\n\nteh[assistant]".len()));
}

#[test]
fn answers_are_edited() {
    for (yaml, expected) in [
        ("cutstrings: ['b+']\n", "Answer: a c"),
        ("extract_regex: ['[a-z]+$']\n", "c"),
        ("trimspace: ['Answer:']\n", "a bb c"),
        ("trimsuffix: ['c']\n", "Answer: a bb"),
        ("template: {reply_prefix: '> '}\n", "> Answer: a bb c"),
        ("cutstrings: ['(']\n", "an error"),
    ] {
        let house = house_of(Answers::Text("Answer: a bb c".into()), yaml);
        match block_on(house.runtime.chat(call("one", "hi"))) {
            Ok(mut streams) => assert_eq!(read(streams.pop().unwrap()).0.replace("a  c", "a c"), expected, "{yaml}"),
            Err(error) => assert!(error.to_string().contains("cutstrings") && expected == "an error", "{error}"),
        }
    }
    // A form is kept as it is.
    let house = house_of(Answers::Text("maybe".into()), "cutstrings: ['e']\n");
    let mut asked = call("one", "hi");
    asked.options.grammar = Some(GrammarSource::Regex("yes|no".into()));
    assert!(["yes", "no"].contains(&read(block_on(house.runtime.chat(asked)).unwrap().pop().unwrap()).0.as_str()));
}

#[test]
fn stopwords_end_answers() {
    let house = house_of(Answers::Text("one two three".into()), "stopwords: [' three']\n");
    assert_eq!(answer(&house).0, "one two");
}

#[test]
fn reasoning_can_be_named_and_hidden() {
    let text = "<plan>why</plan>so";
    let tags = "reasoning:\n  tag_pairs: [{start: '<plan>', end: '</plan>'}]\n";
    assert_eq!(answer(&house_of(Answers::Text(text.into()), "")), (text.to_owned(), String::new()));
    assert_eq!(answer(&house_of(Answers::Text(text.into()), tags)), ("so".to_owned(), "why".to_owned()));
    let hidden = format!("{tags}  strip_reasoning_only: true\n");
    assert_eq!(answer(&house_of(Answers::Text(text.into()), &hidden)), ("so".to_owned(), String::new()));
    let started = "reasoning:\n  thinking_start_tokens: ['[assistant]']\n";
    let house = house_of(Answers::Text("why</think>so".into()), started);
    assert_eq!(answer(&house), ("so".to_owned(), "why".to_owned()));
}

/// The length of a prompt tells which variables its template saw.
fn prompt_tokens(house: &House, template: TemplateOptions) -> usize {
    let asked = ChatCall { template, ..call("one", "hi") };
    let (_, _, done) = read(block_on(house.runtime.chat(asked)).unwrap().pop().unwrap());
    done.completion.usage.prompt_tokens
}

#[test]
fn template_variables_come_from_the_configuration_and_then_from_the_request() {
    let template =
        "{% if enable_thinking is defined and not enable_thinking %}quiet{% endif %}{{ tone }}{{ reasoning_effort }}";
    let with = |yaml: &str| {
        let house = house_of(Answers::Text("ok".into()), yaml);
        let backend: Arc<dyn Backend> =
            Arc::new(FakeBackend { chat_template: Some(template.into()), ..FakeBackend::default() });
        let runtime = Runtime::new(RuntimeConfig {
            catalog: Catalog::open(house.folder.path(), CatalogOptions::default()).unwrap(),
            backends: vec![backend],
            hardware: machine(&house.free),
            defaults: LoadDefaults::default(),
            residency: quick(),
        });
        House { runtime, ..house }
    };
    let plain = || TemplateOptions::default();
    assert_eq!(prompt_tokens(&with("reasoning: {disable: true}\n"), plain()), 1 + "quiet".len());
    assert_eq!(prompt_tokens(&with("reasoning_effort: none\n"), plain()), 1 + "quiet".len());
    let high = with("reasoning_effort: high\n");
    assert_eq!(prompt_tokens(&high, plain()), 1 + "high".len());
    let asked = TemplateOptions { reasoning_effort: Some("low".into()), ..plain() };
    assert_eq!(prompt_tokens(&high, asked), 1 + "low".len());
    let toned = with("chat_template_kwargs: {tone: warm}\n");
    assert_eq!(prompt_tokens(&toned, plain()), 1 + "warm".len());
    let kwargs = serde_json::json!({"tone": "sober"}).as_object().unwrap().clone();
    assert_eq!(prompt_tokens(&toned, TemplateOptions { kwargs, ..plain() }), 1 + "sober".len());
}
