#!/usr/bin/env python3
"""Kokoro: Ingle's voice against the same network in onnxruntime, time in turns and how alike the sounds are.

    pip install onnxruntime numpy
    kokoro.py SPEAK FOLDER [--pairs 10]

SPEAK is `cargo build --release --workspace --examples`, program speak, which prints the symbols it says; FOLDER holds the
network and voices-v1.0.bin. The network rounds what goes in and out of every product to 8 bits by the range that it finds,
so that the last digit of one number changes lengths of sounds by a frame: spectra are compared, where lengths agree.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime as ort

HERE = os.path.dirname(os.path.abspath(__file__))
SPEAKERS = ["af_heart", "bm_george", "am_onyx", "bf_emma", "af_bella"]
SOURCE = os.path.join(HERE, "../../crates/candle/src/speech/kokoro/symbols.rs")


def numbers():
    """The numbers of the symbols, as the source has them."""
    table = open(SOURCE).read().split("const IDS", 1)[1].split("];", 1)[0]
    found = re.findall(r"\('(\\u\{[0-9a-f]+\}|[^']+)', (\d+)\)", table)
    letter = lambda text: chr(int(text[3:-1], 16)) if text.startswith("\\u") else text
    return {letter(text): int(number) for text, number in found}


def trimmed(sound, silence=0.005, margin=960):
    heard = np.flatnonzero(np.abs(sound) > silence)
    return sound[max(0, heard[0] - margin): heard[-1] + 1 + margin]


def spectrum(sound):
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::256] * np.hanning(1024)
    return np.log(np.abs(np.fft.rfft(frames)) + 1e-3).ravel()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("speak")
    arguments.add_argument("folder")
    arguments.add_argument("--pairs", type=int, default=10)
    args = arguments.parse_args()
    network = os.path.join(args.folder, "kokoro-v1.0.int8.onnx")
    styles = np.load(os.path.join(args.folder, "voices-v1.0.bin"))
    lines = open(os.path.join(HERE, "sentences.txt")).read().split("\n")[: args.pairs]
    ids_of = numbers()
    for threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        ratios, lengths, alike, rates = [], [], [], []
        for at, line in enumerate(lines):
            speaker = SPEAKERS[at % len(SPEAKERS)]
            with tempfile.NamedTemporaryFile() as file:
                command = [args.speak, network, file.name, str(threads), speaker]
                said = subprocess.run(command, input=line + "\n", capture_output=True, text=True, check=True).stderr.split("\n")
                ours = np.fromfile(file.name, "<f4")
            ids = [ids_of[symbol] for symbol in said[1] if symbol in ids_of]
            feed = {"tokens": np.array([[0, *ids, 0]], np.int64), "style": styles[speaker][len(ids) - 1].reshape(1, 256),
                    "speed": np.ones(1, np.float32)}
            started = time.perf_counter()
            theirs = session.run(None, feed)[0].ravel()
            took = time.perf_counter() - started
            theirs = trimmed(np.clip(theirs, -1, 1))
            ratios.append(float(said[2].split()[0]) / took)
            rates.append(float(said[2].split()[0]) / (len(ours) / 24_000))
            lengths.append(len(ours) / len(theirs))
            n = min(len(ours), len(theirs))
            if abs(len(ours) - len(theirs)) < 300:
                alike.append(np.corrcoef(spectrum(ours[:n]), spectrum(theirs[:n]))[0, 1])
        print(f"{threads} threads: {statistics.median(rates):.3f} of real time, {statistics.median(ratios):.2f} of onnxruntime's "
              f"({min(ratios):.2f} to {max(ratios):.2f}); lengths {min(lengths):.3f} to {max(lengths):.3f} of its; "
              f"spectra of {len(alike)} equal lengths correlate {min(alike, default=0):.2f} to {max(alike, default=0):.2f}")


if __name__ == "__main__":
    main()
