#!/usr/bin/env python3
"""Drives a running server's embeddings with LlamaIndex and its reranking with Cohere's package and as Jina's users do.

Usage: rag_check.py http://127.0.0.1:PORT EMBEDDER RERANKER
"""

import json
import math
import sys
import urllib.error
import urllib.request

import cohere
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

DOCUMENTS = ["Bananas are yellow.", "To reset the password, open the settings.", "The moon is far away."]
QUERY = "How do I change my password?"
failures = []


def check(name, holds, detail=""):
    print(("ok    " if holds else "FAIL  ") + name + (f"  ({detail})" if detail else ""))
    if not holds:
        failures.append(name)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_ranking(results, n):
    scores = [result.relevance_score for result in results]
    return len(results) == n and scores == sorted(scores, reverse=True) and len({r.index for r in results}) == n


def main():
    url, embedder, reranker = sys.argv[1:4]
    index = OpenAILikeEmbedding(model_name=embedder, api_base=url + "/v1", api_key="unused", embed_batch_size=2)
    query, texts = index.get_query_embedding(QUERY), index.get_text_embedding_batch(DOCUMENTS)
    nearest = max(range(3), key=lambda idx: math.fsum(a * b for a, b in zip(query, texts[idx])))
    check("llama-index: the text that answers is nearest", nearest == 1, str(nearest))

    for name, client in [("v1", cohere.Client("unused", base_url=url)), ("v2", cohere.ClientV2("unused", base_url=url))]:
        ranked = client.rerank(model=reranker, query=QUERY, documents=DOCUMENTS)
        check(f"cohere {name}: all documents in order of their scores", is_ranking(ranked.results, 3), str(ranked.results))
        first = client.rerank(model=reranker, query=QUERY, documents=DOCUMENTS, top_n=1)
        check(f"cohere {name}: top_n", is_ranking(first.results, 1) and first.results[0] == ranked.results[0])

    body = {"model": reranker, "query": QUERY, "documents": DOCUMENTS, "top_n": 2, "return_documents": True}
    status, answer = post(url + "/v1/rerank", body)
    texts = [DOCUMENTS[result["index"]] for result in answer.get("results", [])]
    shown = [result["document"]["text"] for result in answer.get("results", [])]
    check("jina: documents come back", status == 200 and texts == shown and len(shown) == 2, json.dumps(answer)[:200])
    check("jina: usage", answer.get("usage", {}).get("total_tokens", 0) > 0)
    status, answer = post(url + "/v1/rerank", body | {"top_n": 0})
    check("jina: top_n below 1 is 422", status == 422, json.dumps(answer)[:120])
    sys.exit(1 if failures else 0)


main()
