"""Writes encoders.json: what transformers computes with tiny models of every architecture.

    pip install torch transformers numpy
    python encoders.py > encoders.json

The weights follow from a formula over name and place, so that none are stored: the tests fill the same tensors. Hidden
states are those of three token sequences, one by one; none holds a padding token, which texts never have. Jina BERT has
no class in transformers: its numbers come from the formulas of the paper, written down here in numpy.
"""

import json
import math
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers import (
    BertConfig, DistilBertConfig, GteConfig, ModernBertConfig, MPNetConfig, NomicBertConfig, Qwen3Config, RobertaConfig,
    XLMRobertaConfig,
)

TOKENS = [[5, 17, 3, 29, 11, 8, 2], [7], [4, 4, 30, 12, 9, 21, 13, 6, 24, 25, 18, 22, 14, 10, 16, 19, 28, 23, 27, 15]]
SMALL = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)


def fill(name, shape):
    """Numbers between -0.25 and 0.25 that look random; around 1 for the weights of norms."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = (np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(2654435761) + np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    numbers = (x >> np.uint64(8)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    numbers *= np.float32(0.5)
    if len(shape) == 1 and name.endswith("weight"):
        numbers += np.float32(1)
    return numbers.reshape(shape)


def rounded(array):
    return [float(f"{number:.7g}") for number in np.asarray(array, dtype=np.float64).ravel()]


def of_transformers(config, auto):
    """Config, tensors under their stored names, and the model with the formula's weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        auto.from_config(config).save_pretrained(folder)
        tensors = load_file(folder + "/model.safetensors")
        from safetensors.numpy import save_file
        save_file({name: fill(name, tensor.shape) for name, tensor in tensors.items()}, folder + "/model.safetensors",
                  metadata={"format": "pt"})
        model = auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        written = json.load(open(folder + "/config.json"))
    return written, {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}, model


def encoder(config):
    written, tensors, model = of_transformers(config, AutoModel)
    with torch.no_grad():
        hidden = [rounded(model(torch.tensor([tokens])).last_hidden_state[0]) for tokens in TOKENS]
    return dict(config=written, tensors=tensors, tokens=TOKENS, hidden=hidden)


def scorer(config, types):
    written, tensors, model = of_transformers(config, AutoModelForSequenceClassification)
    scores = []
    with torch.no_grad():
        for tokens in TOKENS:
            second = (len(tokens) + 1) // 2
            more = {"token_type_ids": torch.tensor([[0] * second + [1] * (len(tokens) - second)])} if types else {}
            scores.append(float(model(torch.tensor([tokens]), **more).logits[0, 0]))
    return dict(config=written, tensors=tensors, tokens=TOKENS, scores=rounded(scores))


def jina():
    n, heads, inner, eps = 16, 2, 24, 1e-12
    tensors = {
        "embeddings.word_embeddings.weight": [32, n], "embeddings.token_type_embeddings.weight": [2, n],
        "embeddings.LayerNorm.weight": [n], "embeddings.LayerNorm.bias": [n],
    }
    for layer in range(2):
        base = f"encoder.layer.{layer}."
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]:
            tensors |= {f"{base}{part}.weight": [n, n], f"{base}{part}.bias": [n]}
        tensors |= {f"{base}mlp.gated_layers.weight": [2 * inner, n], f"{base}mlp.wo.weight": [n, inner]}
        tensors |= {f"{base}mlp.wo.bias": [n]}
        for part in ["attention.output.LayerNorm", "mlp.layernorm"]:
            tensors |= {f"{base}{part}.weight": [n], f"{base}{part}.bias": [n]}
    w = {name: fill(name, shape).astype(np.float64) for name, shape in tensors.items()}
    linear = lambda x, name: x @ w[name + ".weight"].T + w.get(name + ".bias", 0)

    def norm(x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + eps) * w[name + ".weight"] + w[name + ".bias"]

    gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))
    slopes = [2 ** (-8 * (head + 1) / heads) for head in range(heads)]
    hidden = []
    for tokens in TOKENS:
        x = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, "embeddings.LayerNorm")
        distance = np.abs(np.subtract.outer(np.arange(len(tokens)), np.arange(len(tokens))))
        for layer in range(2):
            base = f"encoder.layer.{layer}."
            q, k, v = (linear(x, f"{base}attention.self.{part}") for part in ["query", "key", "value"])
            mixed = []
            for head in range(heads):
                part = slice(head * n // heads, (head + 1) * n // heads)
                scores = q[:, part] @ k[:, part].T / math.sqrt(n // heads) - slopes[head] * distance
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
            mixed = linear(np.concatenate(mixed, -1), base + "attention.output.dense")
            x = norm(mixed + x, base + "attention.output.LayerNorm")
            up = linear(x, base + "mlp.gated_layers")
            x = norm(linear(gelu(up[:, :inner]) * up[:, inner:], base + "mlp.wo") + x, base + "mlp.layernorm")
        hidden.append(rounded(x))
    config = dict(architectures=["JinaBertModel"], model_type="bert", position_embedding_type="alibi",
                  feed_forward_type="geglu", max_position_embeddings=64, layer_norm_eps=eps, **SMALL)
    return dict(config=config, tensors=tensors, tokens=TOKENS, hidden=hidden)


modern = dict(SMALL, num_hidden_layers=4, max_position_embeddings=64, local_attention=6, global_attn_every_n_layers=3,
              pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
one = dict(num_labels=1)
models = {
    "bert": encoder(BertConfig(max_position_embeddings=64, **SMALL)),
    "roberta": encoder(RobertaConfig(max_position_embeddings=64, type_vocab_size=1, **SMALL)),
    "xlm-roberta": encoder(XLMRobertaConfig(max_position_embeddings=64, type_vocab_size=1, **SMALL)),
    "distilbert": encoder(DistilBertConfig(vocab_size=32, dim=16, n_layers=2, n_heads=2, hidden_dim=24)),
    "mpnet": encoder(MPNetConfig(max_position_embeddings=64, **SMALL)),
    "nomic": encoder(NomicBertConfig(max_position_embeddings=64, **SMALL)),
    "modernbert": encoder(ModernBertConfig(**modern)),
    "gte": encoder(GteConfig(max_position_embeddings=64, **SMALL)),
    "qwen3": encoder(Qwen3Config(max_position_embeddings=64, num_key_value_heads=1, head_dim=8, **SMALL)),
    "jina": jina(),
    "bert-scorer": scorer(BertConfig(max_position_embeddings=64, **SMALL, **one), True),
    "xlm-roberta-scorer": scorer(XLMRobertaConfig(max_position_embeddings=64, type_vocab_size=1, **SMALL, **one), False),
    "distilbert-scorer": scorer(DistilBertConfig(vocab_size=32, dim=16, n_layers=2, n_heads=2, hidden_dim=24, **one), False),
    "modernbert-scorer": scorer(ModernBertConfig(**modern, **one), False),
}
dropped = ["transformers_version", "dtype", "torch_dtype"]
for model in models.values():
    model["config"] = {key: value for key, value in model["config"].items() if key not in dropped and value is not None}
json.dump(models, sys.stdout, separators=(",", ":"))
