#!/usr/bin/env python3
"""all-MiniLM-L6-v2: Ingle against onnxruntime, texts a second with tokenizing, in turns.

    pip install onnxruntime onnx tokenizers safetensors numpy
    embeddings.py MEASURE MODELS_PATH [--name NAME] [--threads 1,2] [--pairs 10] [--secs 1.0]

MEASURE is the program of `cargo build --release --workspace --example measure`; MODELS_PATH holds the folder
all-MiniLM-L6-v2. The peer's graph is written here from the same weights, with the fused operators that onnxruntime's own
optimizer puts into such models (EmbedLayerNormalization, Attention, SkipLayerNormalization, BiasGelu), mean and
normalisation included. Both sides must give the same vectors before anything is timed: with --name, a model of the folder
with `options: ["precision:bf16"]`, nearly the same.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MODEL = "all-MiniLM-L6-v2"
N_LAYERS, N_HEADS, N_EMBD, N_FF = 6, 12, 384, 1536
MS = "com.microsoft"


def graph(folder):
    """The model as onnxruntime likes it best."""
    weights = load_file(os.path.join(folder, "model.safetensors"))
    constants, nodes = {}, []

    def put(name, value):
        constants[name] = np.ascontiguousarray(value)
        return name

    def node(op, inputs, outputs, domain="", **attributes):
        nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    emb = "embeddings."
    tables = [put(name, weights[f"{emb}{name}_embeddings.weight"]) for name in ("word", "position", "token_type")]
    norm = [put(f"norm_{kind}", weights[f"{emb}LayerNorm.{kind}"]) for kind in ("weight", "bias")]
    hidden = "h0"
    node("EmbedLayerNormalization", ["ids", "types", *tables, *norm, "mask"], [hidden, "lengths"], MS, epsilon=1e-12)
    for layer in range(N_LAYERS):
        p = f"encoder.layer.{layer}."
        parts = [p + f"attention.self.{kind}." for kind in ("query", "key", "value")]
        qkv = put(f"qkv{layer}", np.concatenate([weights[part + "weight"].T for part in parts], axis=1))
        qkv_bias = put(f"qkvb{layer}", np.concatenate([weights[part + "bias"] for part in parts]))
        seen = node("Attention", [hidden, qkv, qkv_bias, "lengths"], [f"a{layer}"], MS, num_heads=N_HEADS)

        def dense(name, source, label):
            return node("MatMul", [source, put(label, weights[p + name + ".weight"].T)], [label + "_out"])

        def add(name, source, skip, label, norm_name):
            inputs = [source, skip] + [put(f"{label}{k}", weights[f"{p}{norm_name}.{k}"]) for k in ("weight", "bias")]
            inputs.append(put(label + "b", weights[p + name + ".bias"]))
            return node("SkipLayerNormalization", inputs, [label], MS, epsilon=1e-12)

        out = dense("attention.output.dense", seen, f"o{layer}")
        middle = add("attention.output.dense", out, hidden, f"m{layer}", "attention.output.LayerNorm")
        wide = dense("intermediate.dense", middle, f"w{layer}")
        wide = node("BiasGelu", [wide, put(f"wb{layer}", weights[p + "intermediate.dense.bias"])], [f"g{layer}"], MS)
        narrow = dense("output.dense", wide, f"n{layer}")
        hidden = add("output.dense", narrow, middle, f"h{layer + 1}", "output.LayerNorm")
    node("Cast", ["mask"], ["float_mask"], to=TensorProto.FLOAT)
    node("Unsqueeze", ["float_mask", put("two", np.array([2], np.int64))], ["wide_mask"])
    node("Mul", [hidden, "wide_mask"], ["shown"])
    node("ReduceSum", ["shown", put("one", np.array([1], np.int64))], ["sum"], keepdims=0)
    node("ReduceSum", ["float_mask", "one"], ["n"], keepdims=1)
    node("Div", ["sum", "n"], ["mean"])
    node("LpNormalization", ["mean"], ["vector"], axis=1, p=2)
    ints = [helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "s"]) for name in ("ids", "types", "mask")]
    out = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["b", N_EMBD])
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = helper.make_model(helper.make_graph(nodes, MODEL, ints, [out], initial), opset_imports=opsets, ir_version=8)
    return model.SerializeToString()


class Peer:
    """onnxruntime with the tokenizers package."""

    def __init__(self, folder, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = ort.InferenceSession(graph(folder), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def embed(self, texts):
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], np.int32)
        mask = np.array([e.attention_mask for e in encoded], np.int32)
        return self.session.run(["vector"], {"ids": ids, "types": np.zeros_like(ids), "mask": mask})[0]

    def rate(self, texts, batch, secs):
        begun, n, at = time.perf_counter(), 0, 0
        while True:
            chunk = texts[at:at + batch]
            n, at = n + len(self.embed(chunk)), (at + batch) % len(texts)
            took = time.perf_counter() - begun
            if took >= secs:
                return n / took


class Ours:
    """Ingle in its own process, asked over pipes."""

    def __init__(self, program, name, models_path, threads):
        command = [program, "--model", name, "encode", "--models-path", models_path, "--threads", str(threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, texts, batch, secs):
        self.child.stdin.write(json.dumps({"texts": texts, "batch": batch, "secs": secs}) + "\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        self.first = np.array(answer["first"], np.float32)
        return answer["texts"] / answer["secs"]


def text_of(tokenizer, n_tokens, rng):
    """A text of exactly so many tokens, special ones included."""
    words = ["the", "house", "river", "green", "seven", "walk", "paper", "music", "stone", "early", "city", "glass"]
    text = " ".join(rng.choice(words) for _ in range(n_tokens - 2))
    assert len(tokenizer.encode(text).ids) == n_tokens
    return text


def interval(ratios, rng):
    """The middle 95 % of the medians of resampled ratios."""
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def sgemm_rate(threads):
    """Floating-point operations a second of onnxruntime's own product of large matrices."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024, 1024]) for name in "abc"]
    product = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "p", info[:2], info[2:])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    a = np.random.rand(1024, 1024).astype(np.float32)
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        session.run(None, {"a": a, "b": a})
        times.append(time.perf_counter() - begun)
    return 2 * 1024**3 / min(times)


def operations(n_tokens):
    """Floating-point operations of the matrix products of one text."""
    dense = 2 * n_tokens * (4 * N_EMBD * N_EMBD + 2 * N_EMBD * N_FF)
    return N_LAYERS * (dense + 4 * n_tokens * n_tokens * N_EMBD)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("measure")
    parser.add_argument("models_path")
    parser.add_argument("--name", default=MODEL)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--secs", type=float, default=1.0)
    args = parser.parse_args()
    folder, rng = os.path.join(args.models_path, MODEL), random.Random(1)
    print("| threads | tokens | batch | ours, texts/s | onnxruntime | ratio | 95 % | share of sgemm: ours, peer |")
    print("|---|---|---|---|---|---|---|---|")
    for threads in map(int, args.threads.split(",")):
        peer, ours = Peer(folder, threads), Ours(args.measure, args.name, args.models_path, threads)
        sgemm = sgemm_rate(threads)
        for n_tokens in (17, 137):
            texts = [text_of(peer.tokenizer, n_tokens, rng) for _ in range(64)]
            for batch in (1, 8, 32):
                sides = [ours, peer]
                for side in sides:
                    side.rate(texts, batch, 0.3)
                expected = peer.embed(texts[:1])[0]
                error, cosine = float(np.abs(ours.first - expected).max()), float(ours.first @ expected)
                assert cosine >= 0.9999 and (args.name != MODEL or error < 1e-5), f"the vectors differ: {error}, {cosine}"
                rates = {ours: [], peer: []}
                for pair in range(args.pairs):
                    for side in sides if pair % 2 == 0 else sides[::-1]:
                        rates[side].append(side.rate(texts, batch, args.secs))
                ratios = [a / b for a, b in zip(rates[ours], rates[peer])]
                low, high = interval(ratios, rng)
                a, b = statistics.median(rates[ours]), statistics.median(rates[peer])
                shares = [rate * operations(n_tokens) / sgemm for rate in (a, b)]
                print(f"| {threads} | {n_tokens} | {batch} | {a:.1f} | {b:.1f} | {statistics.median(ratios):.3f} |"
                      f" {low:.3f} to {high:.3f} | {shares[0]:.2f}, {shares[1]:.2f} |", flush=True)
        ours.child.stdin.close()
        ours.child.wait()


main()
