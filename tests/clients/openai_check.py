#!/usr/bin/env python3
"""Drives a running server with the official `openai` package: every line printed is one thing a real client relies on.

Usage: openai_check.py http://127.0.0.1:PORT MODEL
"""

import json
import sys
import time
from typing import Literal

import openai
import pydantic

failures = []


def check(name, holds, detail=""):
    print(("ok    " if holds else "FAIL  ") + name + (f"  ({detail})" if detail else ""))
    if not holds:
        failures.append(name)


def refuses(name, error_class, call, **expected):
    try:
        call()
    except error_class as error:
        wrong = {key: getattr(error, key, None) for key, value in expected.items() if getattr(error, key, None) != value}
        check(name, not wrong, f"{type(error).__name__}: {str(error)[:90]}" + (f" but {wrong}" if wrong else ""))
    except Exception as error:  # the class is what is tested
        check(name, False, f"{type(error).__name__}: {error}")
    else:
        check(name, False, "no error at all")


def chats(client, model):
    messages = [{"role": "user", "content": "Write one sentence about the sea."}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0)
    choice = whole.choices[0]
    check("chat: text and finish reason", bool(choice.message.content) and choice.finish_reason in ("stop", "length"))
    check("chat: usage adds up", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens)
    check("chat: object and id", whole.object == "chat.completion" and whole.id.startswith("chatcmpl-"))
    check("chat: request id", bool(whole._request_id))

    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("stream: equals the whole answer", text == choice.message.content, repr(text[:40]))
    check("stream: role first", chunks[0].choices[0].delta.role == "assistant")
    check("stream: usage in the last chunk", chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0)
    check("stream: one id", len({c.id for c in chunks}) == 1)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    check("stream: one finish reason, at the end", reasons[-1] is not None and not any(reasons[:-1]))

    plain = list(client.chat.completions.create(model=model, messages=messages, max_tokens=8, stream=True))
    check("stream: no empty choices without include_usage", all(c.choices for c in plain))

    several = client.chat.completions.create(model=model, messages=messages, max_tokens=12, n=3, temperature=1.2, seed=5)
    check("n: three choices by index", [c.index for c in several.choices] == [0, 1, 2])
    check("n: they differ", len({c.message.content for c in several.choices}) > 1)

    seeded = [
        client.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=1.0, seed=42)
        for _ in range(2)
    ]
    check("seed: twice the same", len({answer.choices[0].message.content for answer in seeded}) == 1)

    logprobs = client.chat.completions.create(
        model=model, messages=messages, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    ).choices[0].logprobs.content
    check("logprobs: one entry a token with three alternatives", all(len(t.top_logprobs) == 3 for t in logprobs))
    check("logprobs: greedy takes the likeliest", all(t.logprob == t.top_logprobs[0].logprob for t in logprobs))

    counting = [{"role": "user", "content": "Count from one to ten in words."}]
    stopped = client.chat.completions.create(
        model=model, messages=counting, max_tokens=60, temperature=0, stop=["five", " 5"]
    ).choices[0]
    check("stop: not part of the text", "five" not in stopped.message.content, repr(stopped.message.content[:50]))


def completes(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=12, temperature=0)
    check("completion: text and usage", bool(answer.choices[0].text) and answer.usage.completion_tokens > 0)
    echoed = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4, temperature=0, echo=True)
    check("completion: echo", echoed.choices[0].text.startswith("Once upon a time"))
    chunks = list(client.completions.create(model=model, prompt="One two", max_tokens=8, temperature=0, stream=True))
    check("completion: stream", "".join(c.choices[0].text for c in chunks) != "" and chunks[-1].choices[0].finish_reason)
    two = client.completions.create(model=model, prompt=["A b", "C d"], max_tokens=3, temperature=0)
    check("completion: two prompts", [c.index for c in two.choices] == [0, 1])
    scored = client.completions.create(model=model, prompt="One two", max_tokens=3, temperature=0, logprobs=2)
    check("completion: logprobs", len(scored.choices[0].logprobs.token_logprobs) == 3)


class Animal(pydantic.BaseModel):
    kind: Literal["cat", "dog", "horse"]
    legs: Literal[2, 4]
    is_tame: bool


def forms(client, model):
    messages = [{"role": "user", "content": "Describe a tame dog."}]
    parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Animal, max_tokens=120)
    check("parse: a valid object", isinstance(parsed.choices[0].message.parsed, Animal))
    check("parse: ended by itself", parsed.choices[0].finish_reason == "stop")
    with client.chat.completions.stream(
        model=model, messages=messages, response_format=Animal, max_tokens=120, temperature=1.5
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0].message.parsed
    check("parse: streamed", isinstance(final, Animal) and len(events) > 3)
    any_object = client.chat.completions.create(
        model=model, messages=messages, max_tokens=200, response_format={"type": "json_object"}
    ).choices[0]
    check(
        "json_object: an object, or cut and said so",
        any_object.finish_reason == "length" or isinstance(json.loads(any_object.message.content), dict),
    )
    matched = client.completions.create(model=model, prompt="A colour: ", max_tokens=20, extra_body={"regex": "(red|blue)!"})
    spelled = client.chat.completions.create(
        model=model, messages=messages, max_tokens=20, extra_body={"grammar": 'root ::= "a " ("good" | "bad") " dog"'}
    ).choices[0]
    check("grammar: matched", spelled.message.content in ("a good dog", "a bad dog"), repr(spelled.message.content))
    check("regex: matched", matched.choices[0].text in ("red!", "blue!"), repr(matched.choices[0].text))


def refusals(client, model):
    user = [{"role": "user", "content": "hi"}]
    create = client.chat.completions.create
    refuses("error: unknown model", openai.NotFoundError, lambda: create(model="no-such", messages=user), status_code=404)
    refuses("error: no messages", openai.BadRequestError, lambda: create(model=model, messages=[]))
    refuses("error: temperature", openai.BadRequestError, lambda: create(model=model, messages=user, temperature=-1))
    unenforceable = {"name": "s", "strict": True, "schema": {"type": "object", "not": {"required": ["a"]}}}
    refuses(
        "error: a schema that cannot be enforced",
        openai.BadRequestError,
        lambda: create(
            model=model, messages=user, response_format={"type": "json_schema", "json_schema": unenforceable}
        ),
        param="response_format",
    )
    refuses("error: n", openai.BadRequestError, lambda: create(model=model, messages=user, n=10000))
    long = [{"role": "user", "content": "word " * 400_000}]
    refuses(
        "error: prompt over the context",
        openai.BadRequestError,
        lambda: create(model=model, messages=long),
        code="context_length_exceeded",
    )


def cancels(client, model):
    messages = [{"role": "user", "content": "Write a very long story."}]
    stream = client.chat.completions.create(model=model, messages=messages, max_tokens=2000, stream=True)
    for _, _chunk in zip(range(3), stream):
        pass
    stream.close()
    begun = time.time()
    client.chat.completions.create(model=model, messages=messages, max_tokens=2)
    check("cancel: the next request is not held up", time.time() - begun < 20, f"{time.time() - begun:.1f} s")


def main():
    url, model = sys.argv[1:3]
    client = openai.OpenAI(base_url=url.rstrip("/") + "/v1", api_key="none", max_retries=0, timeout=300)
    check("models: listed", model in [m.id for m in client.models.list()])
    check("models: one", client.models.retrieve(model).id == model)
    chats(client, model)
    completes(client, model)
    forms(client, model)
    refusals(client, model)
    cancels(client, model)
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
