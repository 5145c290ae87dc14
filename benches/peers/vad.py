#!/usr/bin/env python3
"""Voice activity: a running server's segments against the reference's rules over the same network in onnxruntime.

    pip install faster-whisper numpy
    vad.py http://127.0.0.1:PORT MODEL silero_vad.onnx FOLDER      FOLDER is what `speech.py make` wrote

The rules are `get_speech_timestamps` as faster-whisper carries them, with Silero's defaults; the network gets 64 samples of
context in front of each frame of 512, as Silero's own wrapper does it.
"""

import glob
import json
import os
import sys
import urllib.request

import faster_whisper.vad as reference
import numpy as np
import onnxruntime as ort

RATE, FRAME, CONTEXT = 16_000, 512, 64


class Network:
    """Probabilities of speech, frame by frame."""

    def __init__(self, path):
        self.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, samples):
        state, context, found = np.zeros((2, 1, 128), np.float32), np.zeros((1, CONTEXT), np.float32), []
        for frame in samples.reshape(-1, FRAME):
            given = np.concatenate([context, frame[None]], 1).astype(np.float32)
            said, state = self.session.run(None, {"input": given, "state": state, "sr": np.array(RATE, np.int64)})
            context = given[:, -CONTEXT:]
            found.append(float(said[0, 0]))
        return np.array(found)


def recording(path):
    """A second of silence, eight of speech, two of faint noise, speech again."""
    speech = np.fromfile(path, "<f4")[: RATE * 25]
    noise = np.random.default_rng(3).normal(0, 1e-3, 2 * RATE).astype(np.float32)
    samples = np.concatenate([np.zeros(RATE, np.float32), speech[: RATE * 8], noise, speech[RATE * 8:]])
    # Where no frame is cut off, faster-whisper's copy of the rules adds one of nothing; Silero's own adds none.
    samples = samples[: len(samples) - (len(samples) % FRAME == 0)]
    return np.array([round(float(value), 6) for value in samples], np.float32)


def main():
    url, model, network, folder = sys.argv[1:5]
    reference.get_vad_model = lambda: Network(network)
    options = reference.VadOptions(threshold=0.5, min_speech_duration_ms=250, min_silence_duration_ms=100, speech_pad_ms=30)
    n_segments, n_other, worst = 0, 0, 0.0
    paths = sorted(glob.glob(os.path.join(folder, "*.f32")))
    for path in paths:
        samples = recording(path)
        body = json.dumps({"model": model, "audio": samples.tolist()}).encode()
        request = urllib.request.Request(url + "/vad", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            ours = [(segment["start"], segment["end"]) for segment in json.load(answer)["segments"]]
        theirs = [(s["start"] / RATE, s["end"] / RATE) for s in reference.get_speech_timestamps(samples, options)]
        n_segments += len(theirs)
        if len(ours) != len(theirs):
            n_other += 1
            print(f"{os.path.basename(path)}: {len(ours)} segments instead of {len(theirs)}")
        worst = max([worst, *(abs(a - b) for pair in zip(ours, theirs) for a, b in zip(*pair))])
    print(f"{len(paths)} files, {n_segments} segments; {n_other} files with another number; largest distance {worst:.3f} s")
    sys.exit(1 if n_other or worst > FRAME / RATE else 0)


if __name__ == "__main__":
    main()
