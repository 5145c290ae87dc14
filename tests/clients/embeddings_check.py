#!/usr/bin/env python3
"""Drives a running server's embeddings with the official `openai` package, and with LangChain where it is installed.

Usage: embeddings_check.py http://127.0.0.1:PORT MODEL
"""

import math
import sys

import openai

failures = []


def check(name, holds, detail=""):
    print(("ok    " if holds else "FAIL  ") + name + (f"  ({detail})" if detail else ""))
    if not holds:
        failures.append(name)


def refuses(name, call, **expected):
    try:
        call()
    except openai.BadRequestError as error:
        wrong = {key: getattr(error, key, None) for key, value in expected.items() if getattr(error, key, None) != value}
        check(name, not wrong, f"{str(error)[:90]}" + (f" but {wrong}" if wrong else ""))
    else:
        check(name, False, "no error at all")


class Tokenizer:
    """What LangChain needs of a tokenizer, with BERT's tokens of two texts."""

    @staticmethod
    def encode(text, **_):
        return {"A text": [1037, 3793], "Another text": [2178, 3793]}[text]

    encode_ordinary = encode


def main():
    url, model = sys.argv[1:3]
    client = openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=0)
    # Without an encoding the package asks for base64 and decodes it.
    usual = client.embeddings.create(model=model, input=["A text", "Another text"])
    check("base64: two vectors in order", [entry.index for entry in usual.data] == [0, 1])
    vector = usual.data[0].embedding
    check("base64: of length 1", abs(math.fsum(x * x for x in vector) - 1) < 1e-5)
    check("usage", usual.usage.prompt_tokens == usual.usage.total_tokens > 0, str(usual.usage))
    check("object and model", usual.object == "list" and usual.model == model and usual.data[0].object == "embedding")
    floats = client.embeddings.create(model=model, input="A text", encoding_format="float").data[0].embedding
    check("float equals base64", max(abs(a - b) for a, b in zip(floats, vector)) < 1e-6)
    tokens = client.embeddings.create(model=model, input=[[101, 1037, 3793, 102], [1037, 3793]])
    same = [max(abs(a - b) for a, b in zip(entry.embedding, vector)) < 1e-6 for entry in tokens.data]
    check("token arrays, with and without special tokens", all(same), str(same))
    whole = client.embeddings.create(model=model, input="A text", dimensions=len(vector))
    check("dimensions: the model's own", len(whole.data[0].embedding) == len(vector))
    refuses("dimensions: others", lambda: client.embeddings.create(model=model, input="A", dimensions=7), param="dimensions")
    refuses("empty text", lambda: client.embeddings.create(model=model, input=""), param="input")
    refuses("empty list", lambda: client.embeddings.create(model=model, input=[]), param="input")
    refuses("token out of range", lambda: client.embeddings.create(model=model, input=[10**9]), param="input")
    try:
        from langchain_openai import OpenAIEmbeddings
    except ImportError:
        print("passed over: langchain-openai is not installed")
    else:
        import tiktoken

        # Its default sends the ids of its own tokenizer. That tokenizer's file comes from the net, so the model's stands in.
        tiktoken.encoding_for_model = lambda _: Tokenizer()
        arrays = OpenAIEmbeddings(model=model, base_url=url + "/v1", api_key="unused")
        found = arrays.embed_documents(["A text", "Another text"])
        expected = [entry.embedding for entry in usual.data]
        near = [max(abs(a - b) for a, b in zip(*pair)) < 1e-6 for pair in zip(found, expected)]
        check("langchain: token arrays", len(near) == 2 and all(near), str(near))
        plain = OpenAIEmbeddings(model=model, base_url=url + "/v1", api_key="unused", check_embedding_ctx_length=False)
        check("langchain: texts", max(abs(a - b) for a, b in zip(plain.embed_query("A text"), vector)) < 1e-6)
    sys.exit(1 if failures else 0)


main()
