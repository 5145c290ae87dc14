#!/usr/bin/env python3
"""Structured output and tools as real clients ask for them: openai, Instructor, LangChain, pydantic-ai.

Usage: structured_check.py http://127.0.0.1:PORT MODEL [instructor]
With `instructor`, that one alone: it wants another version of the openai package beside it.
A package that is not installed is named and passed over. The model may be tiny: what is checked is that whatever it
says is valid, so every shape here is small enough to end by itself.
"""

import enum
import importlib.util
import json
import sys
from typing import Literal

import openai
import pydantic

failures = []


# Every request has a seed, so that a model's odd mood on one machine does not come and go between runs.
SEED = 7


def check(name, holds, detail=""):
    print(("ok    " if holds else "FAIL  ") + name + (f"  ({detail})" if detail else ""))
    if not holds:
        failures.append(name)


def attempt(name, call):
    """A check that passes when the call ends without an error and what it returns is true."""
    try:
        result = call()
    except Exception as error:  # whatever a client raises is a failure
        check(name, False, f"{type(error).__name__}: {str(error)[:300]}")
        return None
    check(name, bool(result), repr(result)[:100])
    return result


def has(package):
    there = importlib.util.find_spec(package) is not None
    if not there:
        print(f"skip  {package} is not installed here")
    return there


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Animal(pydantic.BaseModel):
    # What a schema does not forbid a model may say, on and on.
    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["cat", "dog", "horse"]
    size: Size
    legs: Literal[2, 4]
    is_tame: bool


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a zone.",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ANIMAL = [{"role": "user", "content": "Describe a tame dog."}]


def valid_call(call):
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        return set(arguments) == {"city", "unit"} and arguments["city"] in ("Paris", "Rome", "Oslo")
    return call.function.name == "get_time" and set(arguments) == {"zone"}


def openai_formats(client, model):
    create = client.chat.completions.create

    def parsed():
        answer = client.chat.completions.parse(
            model=model, messages=ANIMAL, response_format=Animal, max_tokens=400, seed=SEED
        )
        return isinstance(answer.choices[0].message.parsed, Animal) and answer.choices[0].finish_reason == "stop"

    def streamed():
        with client.chat.completions.stream(
            model=model, messages=ANIMAL, response_format=Animal, max_tokens=400, seed=SEED
        ) as stream:
            for _ in stream:
                pass
            return isinstance(stream.get_final_completion().choices[0].message.parsed, Animal)

    def json_object():
        answer = create(
            model=model, messages=ANIMAL, max_tokens=300, temperature=0, response_format={"type": "json_object"}
        ).choices[0]
        return answer.finish_reason == "length" or isinstance(json.loads(answer.message.content), dict)

    def gbnf():
        answer = create(
            model=model, messages=ANIMAL, max_tokens=20, extra_body={"grammar": 'root ::= ("yes" | "no") "!"'}
        ).choices[0]
        return answer.message.content in ("yes!", "no!") and answer.finish_reason == "stop"

    def several():
        answer = create(
            model=model, messages=ANIMAL, max_tokens=400, n=3, temperature=1.3, seed=SEED,
            response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": Animal.model_json_schema()}},
        )
        whole = [choice for choice in answer.choices if choice.finish_reason != "length"]
        return whole and all(Animal.model_validate_json(choice.message.content) for choice in whole)

    attempt("openai: parse", parsed)
    attempt("openai: stream and parse", streamed)
    attempt("openai: json_object", json_object)
    attempt("openai: grammar", gbnf)
    attempt("openai: three answers of one schema", several)


def openai_tools(client, model):
    create = client.chat.completions.create

    def required():
        choice = create(
            model=model, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=200, seed=SEED
        ).choices[0]
        calls = choice.message.tool_calls
        if choice.finish_reason == "length":
            return all(map(valid_call, calls[:-1]))
        return calls and all(map(valid_call, calls)) and choice.finish_reason == "tool_calls"

    def named():
        named_choice = {"type": "function", "function": {"name": "get_time"}}
        choice = create(
            model=model, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice=named_choice, max_tokens=200, seed=SEED
        ).choices[0]
        calls = choice.message.tool_calls
        return len(calls) == 1 and calls[0].function.name == "get_time" and valid_call(calls[0])

    def one_at_most():
        choice = create(
            model=model, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=200,
            parallel_tool_calls=False, temperature=1.5, seed=SEED,
        ).choices[0]
        return len(choice.message.tool_calls) == 1 and valid_call(choice.message.tool_calls[0])

    def streamed():
        calls, text, reason = {}, "", None
        stream = create(
            model=model, messages=QUESTION, tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=200, stream=True,
            seed=SEED,
        )
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
                deltas = choice.delta.tool_calls or []
                assert len(deltas) <= 1, "two calls in one chunk"
                for delta in deltas:
                    call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
                    call["id"] += delta.id or ""
                    call["name"] += delta.function.name or ""
                    call["arguments"] += delta.function.arguments or ""
        names = all(call["name"] in ("get_weather", "get_time") and call["id"] for call in calls.values())
        # A small model may go on calling; then the last call is cut off, and that is said.
        whole = list(calls.values())[: -1 if reason == "length" else None]
        loaded = all(isinstance(json.loads(call["arguments"]), dict) for call in whole)
        ordered = list(calls) == list(range(len(calls)))
        return calls and names and loaded and ordered and not text and reason in ("tool_calls", "length")

    def none():
        choice = create(model=model, messages=QUESTION, tools=[WEATHER], tool_choice="none", max_tokens=16).choices[0]
        return not choice.message.tool_calls and choice.finish_reason in ("stop", "length")

    def old_form():
        choice = create(
            model=model, messages=QUESTION, functions=[WEATHER["function"]], function_call={"name": "get_weather"},
            max_tokens=200, seed=SEED,
        ).choices[0]
        return choice.finish_reason == "function_call" and json.loads(choice.message.function_call.arguments)["city"]

    def results():
        call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome", "unit": "celsius"}'}}
        turns = QUESTION + [
            {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "call_2"}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "21"},
            {"role": "tool", "tool_call_id": "call_2", "content": "22"},
        ]
        choice = create(model=model, messages=turns, tools=[WEATHER, CLOCK], max_tokens=40).choices[0]
        calls = choice.message.tool_calls or []
        return choice.finish_reason == "length" or choice.message.content or all(map(valid_call, calls))

    def beside_a_format():
        choice = create(
            model=model, messages=QUESTION, tools=[WEATHER, CLOCK], max_tokens=400, temperature=1.2, seed=SEED,
            response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": Animal.model_json_schema()}},
        ).choices[0]
        calls = choice.message.tool_calls
        return all(map(valid_call, calls)) if calls else Animal.model_validate_json(choice.message.content)

    def free():
        for seed in range(4):
            choice = create(
                model=model, messages=QUESTION, tools=[WEATHER, CLOCK], max_tokens=60, temperature=1.0, seed=seed
            ).choices[0]
            calls = choice.message.tool_calls or []
            if choice.finish_reason != "length" and not all(map(valid_call, calls)):
                return False
            if "<tool_call>" in (choice.message.content or ""):
                return False
        return True

    attempt("openai: results of calls", results)
    attempt("openai: tools beside a schema", beside_a_format)
    attempt("openai: a free choice", free)
    attempt("openai: a required call", required)
    attempt("openai: a named tool", named)
    attempt("openai: one call at most", one_at_most)
    attempt("openai: a streamed call", streamed)
    attempt("openai: no call", none)
    attempt("openai: functions, the old form", old_form)


def openai_refusals(client, model):
    def refused(name, **request):
        try:
            client.chat.completions.create(model=model, messages=ANIMAL, max_tokens=8, **request)
        except openai.BadRequestError as error:
            check(name, True, str(error)[:120])
        except Exception as error:
            check(name, False, f"{type(error).__name__}: {error}")
        else:
            check(name, False, "no error at all")

    strict = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}}
    refused("refused: a keyword under strict", response_format={"type": "json_schema", "json_schema": strict})
    refused("refused: a broken grammar", extra_body={"grammar": 'root ::= "a'})
    refused("refused: an undefined rule", extra_body={"grammar": "root ::= other"})
    refused("refused: left recursion", extra_body={"grammar": 'root ::= root "a" | "b"'})
    refused(
        "refused: an unknown tool",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "no_such_tool"}},
    )


def instructor_client(url, model):
    import instructor

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none", timeout=300), mode=mode)

        def made():
            animal = client.chat.completions.create(
                model=model, messages=ANIMAL, response_model=Animal, max_retries=0 if mode != instructor.Mode.JSON else 2,
                max_tokens=400, seed=SEED,
            )
            return isinstance(animal, Animal)

        # Instructor's JSON mode sends json_object without the schema: a tiny model need not follow it by itself.
        if mode != instructor.Mode.JSON:
            attempt(f"instructor: {mode}", made)


def langchain_client(url, model):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=url, api_key="none", max_tokens=400, seed=SEED, timeout=300, max_retries=0)
    for method in ("json_schema", "function_calling"):
        structured = chat.with_structured_output(Animal, method=method)
        attempt(f"langchain: with_structured_output({method})", lambda: isinstance(structured.invoke("A tame dog."), Animal))
    bound = chat.bind_tools([WEATHER, CLOCK], tool_choice="any")
    attempt("langchain: bind_tools", lambda: bound.invoke("The weather in Rome?").tool_calls)

    def streamed():
        whole = None
        for chunk in bound.stream("The weather in Rome?"):
            whole = chunk if whole is None else whole + chunk
        return whole.tool_calls

    attempt("langchain: streamed tools", streamed)


def pydantic_ai_client(url, model):
    from pydantic_ai import Agent, ModelSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    chat = OpenAIChatModel(model, provider=OpenAIProvider(base_url=url, api_key="none"))
    settings = ModelSettings(max_tokens=400, seed=SEED, timeout=300)
    agent = Agent(chat, output_type=Animal, model_settings=settings, retries=0)
    attempt("pydantic-ai: output_type", lambda: isinstance(agent.run_sync("Describe a tame dog.").output, Animal))


def main():
    url, model = sys.argv[1:3]
    only = sys.argv[3:]
    url = url.rstrip("/") + "/v1"
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    if not only:
        openai_formats(client, model)
        openai_tools(client, model)
        openai_refusals(client, model)
    if has("instructor"):
        instructor_client(url, model)
    if not only and has("langchain_openai"):
        langchain_client(url, model)
    if not only and has("pydantic_ai"):
        pydantic_ai_client(url, model)
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
