//! Forms of tool calls, and answers that are free until a call begins.

use super::*;

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

fn json_piece(schema: Value) -> Piece {
    Piece::Json { schema, strictness: Strictness::Lenient }
}

fn compiled(form: Piece) -> Compiled {
    Compiled::new(&environment(), &GrammarSource::Calls { form, schemas: Vec::new(), unenforced: Vec::new() })
        .expect("it compiles")
}

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false})
}

#[test]
fn composed_forms_take_what_they_describe() {
    let call = Piece::Sequence(vec![
        text("<tool_call>\n{\"name\": \""),
        Piece::OneOf(vec![
            Piece::Sequence(vec![text("get_weather\", \"arguments\": "), json_piece(weather())]),
            Piece::Sequence(vec![
                text("ping\", \"arguments\": "),
                json_piece(json!({"type": "object", "maxProperties": 0})),
            ]),
        ]),
        text("}\n</tool_call>"),
    ]);
    let next = Piece::Sequence(vec![text("\n"), call.clone()]);
    let hermes = compiled(Piece::Sequence(vec![call, Piece::Repeated(Box::new(next))]));
    let one = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"</tool_call>\"}}\n</tool_call>";
    assert!(accepts(&hermes, one));
    assert!(accepts(
        &hermes,
        &format!("{one}\n<tool_call>\n{{\"name\": \"ping\", \"arguments\": {{}}}}\n</tool_call>")
    ));
    for wrong in
        [one.replace("city", "town"), one.replace("get_weather", "other"), format!("{one} and"), one[1..].to_owned()]
    {
        assert!(!accepts(&hermes, &wrong), "{wrong}");
    }

    let until = |length| Piece::Until { end: "</parameter>".into(), length };
    let tagged = compiled(Piece::Sequence(vec![
        text("<function=f>\n<parameter=q>\n"),
        until((0, None)),
        Piece::Optional(Box::new(Piece::Sequence(vec![text("\n<parameter=n>\n"), until((1, Some(2)))]))),
        text("\n</function>"),
    ]));
    assert!(accepts(&tagged, "<function=f>\n<parameter=q>\nSELECT a < b </b>\n</parameter>\n</function>"));
    assert!(accepts(
        &tagged,
        "<function=f>\n<parameter=q>\n</parameter>\n<parameter=n>\n12\n</parameter>\n</function>"
    ));
    assert!(!accepts(
        &tagged,
        "<function=f>\n<parameter=q>\n</parameter>\n<parameter=n>\n1234\n</parameter>\n</function>"
    ));
}

#[test]
fn a_tool_whose_schema_nothing_satisfies_is_refused_by_name() {
    let schemas = vec![("fine".to_owned(), weather()), ("endless".to_owned(), json!({"$ref": "#"}))];
    let forms = schemas.iter().map(|(name, schema)| Piece::Sequence(vec![text(name), json_piece(schema.clone())]));
    let form = Piece::OneOf(forms.collect());
    let refused = Compiled::new(&environment(), &GrammarSource::Calls { form, schemas, unenforced: Vec::new() });
    assert!(refused.expect_err("it has no end").to_string().contains("endless: no text satisfies it"));
}

/// The first token that the constraint refuses, or whether the text may end.
fn follow(constraint: &mut dyn Constraint, text: &str) -> Result<bool, usize> {
    for (at, byte) in text.bytes().enumerate() {
        if !allows(&constraint.allowed().expect("no limit"), byte.into()) {
            return Err(at);
        }
        constraint.accept(byte.into()).expect("an allowed token");
    }
    Ok(is_complete(&constraint.allowed().expect("no limit")))
}

#[test]
fn an_answer_is_free_until_a_call_begins() {
    let tokenizer: Arc<dyn Tokenizer> = Arc::new(FakeTokenizer::default());
    let inside = compiled(Piece::Sequence(vec![text("("), json_piece(weather()), text(")")]));
    let trigger = Arc::new(Trigger::new(Arc::clone(&tokenizer), "aab", false));
    let start = || trigger.then(inside.start());
    assert_eq!(follow(&mut *start(), "free text, ab aacb"), Ok(true));
    assert_eq!(follow(&mut *start(), "x aaab({\"city\": \"Rome\"})"), Ok(true));
    assert_eq!(follow(&mut *start(), "aab({\"city\""), Ok(false));
    assert_eq!(follow(&mut *start(), "aab("), Ok(false));
    assert_eq!(follow(&mut *start(), "aab"), Ok(false));
    assert_eq!(follow(&mut *start(), "aab x"), Err(3));
    assert_eq!(follow(&mut *start(), "aab({\"city\": \"Rome\"}) more"), Err(21));

    let mut constraint = start();
    assert_eq!(follow(&mut *constraint, "aab({"), Ok(false));
    let mut fork = constraint.fork();
    constraint.rollback(3).expect("five were accepted");
    assert_eq!(follow(&mut *constraint, "caab("), Ok(false));
    assert_eq!(follow(&mut *fork, "\"city\": \"\"})"), Ok(true));
    assert!(constraint.rollback(100).is_err());

    assert_eq!(follow(&mut *trigger.never(), "ab aa"), Ok(true));
    assert_eq!(follow(&mut *trigger.never(), "ab aab"), Err(5));

    let first = Arc::new(Trigger::new(tokenizer, "{\"n", true));
    let start = || first.then(inside.start());
    assert_eq!(follow(&mut *start(), " \n{\"n({\"city\": \"\"})"), Ok(true));
    assert_eq!(follow(&mut *start(), "x {\"nothing"), Ok(true));
    assert_eq!(follow(&mut *start(), "{\"m"), Ok(true));
}

/// The token of a control token's spelling.
fn control(spelling: &str) -> TokenId {
    let tokenizer = FakeTokenizer::default();
    let mut tokens = 0..tokenizer.n_vocab() as u32;
    tokens.find(|&token| tokenizer.token_bytes(token) == spelling.as_bytes()).expect("a control token")
}

#[test]
fn control_tokens_in_a_form_are_those_tokens_and_no_text() {
    let form = Piece::Sequence(vec![
        Piece::Optional(Box::new(Piece::Sequence(vec![
            text("<|im_start|>hm"),
            Piece::Regex("(?s:.*)".into()),
            text("<|nan|>"),
        ]))),
        text("<|step|>call "),
        Piece::Until { end: "<|panic|>".into(), length: (0, None) },
        json_piece(weather()),
        // The answer is over with its end: what a template prints behind it is no part of it.
        text("</s>never"),
    ]);
    let compiled = compiled(form);
    let say = |constraint: &mut Box<dyn Constraint>, tokens: &[TokenId]| -> Result<(), usize> {
        for (at, &token) in tokens.iter().enumerate() {
            if !allows(&constraint.allowed().expect("no limit"), token) {
                return Err(at);
            }
            constraint.accept(token).expect("an allowed token");
        }
        Ok(())
    };
    let bytes = |text: &str| text.bytes().map(TokenId::from).collect::<Vec<_>>();
    let mut constraint = compiled.start();
    assert_eq!(say(&mut constraint, &bytes("<|step|>")), Err(0), "its spelling is not the token");
    let call = [vec![control("<|step|>")], bytes("call any <|panic|> text"), vec![control("<|panic|>")]].concat();
    assert_eq!(say(&mut constraint, &call), Ok(()));
    assert_eq!(say(&mut constraint, &bytes("{\"city\": \"Rome\"}")), Ok(()));
    assert!(is_complete(&constraint.allowed().expect("no limit")));

    let mut constraint = compiled.start();
    let thought = [vec![control("<|im_start|>")], bytes("hm, <|nan|> is text"), vec![control("<|nan|>")]].concat();
    assert_eq!(say(&mut constraint, &thought), Ok(()));
    assert_eq!(say(&mut constraint, &[control("<|im_start|>")]), Err(0), "thinking is over");
    assert_eq!(say(&mut constraint, &call), Ok(()));
}

#[test]
fn a_model_may_open_its_reasoning_before_what_it_is_held_to() {
    let cache = GrammarCache::new(environment());
    let compiled = cache.get(&GrammarSource::Regex("[0-9]{2}".into())).expect("an expression");
    let opening = cache.opening("</think>", Some("<|step|>")).expect("a tokenizer");
    let start = || opening.then_or_at_once(compiled.start());
    let step = control("<|step|>");

    let mut at_once = start();
    let first = at_once.allowed().expect("no limit");
    assert!(allows(&first, step) && allows(&first, b'4'.into()) && !allows(&first, b'x'.into()));
    assert_eq!(follow(&mut *at_once, "42"), Ok(true));

    let mut reasoned = start();
    reasoned.accept(step).expect("it may be opened");
    assert_eq!(follow(&mut *reasoned, "Hm, 7 </think>\n42"), Ok(true));
    assert_eq!(follow(&mut *reasoned, "1"), Err(0));
    reasoned.rollback(17).expect("all but what opened it");
    assert_eq!(follow(&mut *reasoned, "x"), Ok(false), "inside the reasoning again");

    // Without a token of its own it cannot be told from an answer.
    let other = cache.opening("</think>", Some("<think>")).expect("a tokenizer");
    assert!(!allows(&other.then_or_at_once(compiled.start()).allowed().expect("no limit"), b'<'.into()));
}
