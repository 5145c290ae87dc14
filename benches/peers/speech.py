#!/usr/bin/env python3
"""Whisper: Ingle against faster-whisper (CTranslate2), errors, times and memory, in turns.

    pip install faster-whisper jiwer numpy
    speech.py make INGLE MODELS_PATH FOLDER            speech of known text by the voice en_US-joe-medium
    speech.py errors HEAR WHISPER FOLDER               word error rates and the distance of times
    speech.py rate HEAR WHISPER FOLDER [--pairs 10]    real-time factors in turns, and peak memory

HEAR is `cargo build --release --workspace --examples`, program hear; WHISPER the CTranslate2 folder, which both sides read.
"""

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import wave

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RATE = 16_000
# Speed of the voice and loudness of the noise below the speech, in dB.
KINDS = {"plain": (1.0, None), "fast": (1.4, None), "slow": (0.8, None), "noise15": (1.0, 15), "noise5": (1.0, 5)}


def read_wav(path):
    with wave.open(path) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768
        rate = sound.getframerate()
    at = np.arange(int(len(samples) * RATE / rate)) * rate / RATE
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def make(args):
    os.makedirs(args.folder, exist_ok=True)
    lines = open(os.path.join(HERE, "sentences.txt")).read().split("\n")[:-1]
    groups = [lines[at:at + 10] for at in range(0, len(lines), 10)]
    rng = np.random.default_rng(1)
    for kind, (speed, noise) in KINDS.items():
        for idx, group in enumerate(groups):
            path = os.path.join(args.folder, f"{kind}-{idx}")
            subprocess.run([args.ingle, "tts", " ".join(group), "--model", args.voice, "--speed", str(speed), "--output-file",
                            path + ".wav", "--models-path", args.models_path], check=True, capture_output=True)
            samples = read_wav(path + ".wav")
            if noise is not None:
                loudness = np.sqrt(np.mean(samples**2)) * 10 ** (-noise / 20)
                samples = samples + rng.normal(0, loudness, len(samples)).astype(np.float32)
            samples.astype("<f4").tofile(path + ".f32")
            open(path + ".txt", "w").write(" ".join(group))
            os.remove(path + ".wav")


def recordings(folder):
    names = sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".f32"))
    return [os.path.join(folder, name) for name in names]


def hear(program, whisper, path, threads, beams, int8=False, words=False):
    """Ours: segments, words, seconds taken, peak memory in MiB."""
    command = [program, whisper, path + ".f32", "--threads", str(threads), "--beams", str(beams)]
    command += ["--int8"] * int8 + ["--words"] * words
    done = subprocess.run(["/usr/bin/env", "time", "-f", "peak %M", *command], check=True, capture_output=True, text=True)
    segments, found_words = [], []
    for line in done.stdout.splitlines():
        if match := re.match(r"\[([\d.]+) -> ([\d.]+)\](.*)", line):
            segments.append((float(match[1]), float(match[2]), match[3]))
        elif match := re.match(r"  ([\d.]+) ([\d.]+) (.*)", line):
            found_words.append((float(match[1]), float(match[2]), match[3].strip()))
    took = float(re.search(r"([\d.]+) s for", done.stderr)[1])
    return segments, found_words, took, int(re.search(r"peak (\d+)", done.stderr)[1]) / 1024


def peer_main(args):
    """A process of its own, so that its memory is its own."""
    import time
    from faster_whisper import WhisperModel

    kind = "int8" if args.int8 else "float32"
    model = WhisperModel(args.whisper, device="cpu", compute_type=kind, cpu_threads=args.threads)
    samples = np.fromfile(args.recording + ".f32", "<f4")
    begun = time.perf_counter()
    segments, _ = model.transcribe(samples, language="en", beam_size=args.beams, word_timestamps=args.words)
    segments = list(segments)
    took = time.perf_counter() - begun
    rows = [(s.start, s.end, s.text) for s in segments]
    words = [(w.start, w.end, w.word.strip()) for s in segments for w in s.words or []]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([rows, words, took, peak]))


def peer(whisper, path, threads, beams, int8=False, words=False):
    command = [sys.executable, __file__, "peer", whisper, path, "--threads", str(threads), "--beams", str(beams)]
    command += ["--int8"] * int8 + ["--words"] * words
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def plain(text):
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split())


def near(ours, theirs):
    """How many of their times have one of ours within 0.2 s: of the same words, in order."""
    import difflib
    matcher = difflib.SequenceMatcher(a=[plain(w[2]) for w in ours], b=[plain(w[2]) for w in theirs], autojunk=False)
    pairs = [(ours[b.a + k], theirs[b.b + k]) for b in matcher.get_matching_blocks() for k in range(b.size)]
    good = sum(abs(a[0] - b[0]) <= 0.2 for a, b in pairs) + sum(abs(a[1] - b[1]) <= 0.2 for a, b in pairs)
    return good, 2 * len(pairs)


def errors(args):
    import jiwer
    print("| speech | beams | seconds | words | WER ours | WER faster-whisper | words within 0.2 s | segments within 0.2 s |")
    print("|---|---|---|---|---|---|---|---|")
    total = {}
    for beams in (1, 5):
        for kind in KINDS:
            texts, ours, theirs, words, spans, secs = [], [], [], [0, 0], [0, 0], 0.0
            for path in recordings(args.folder):
                if not os.path.basename(path).startswith(kind + "-"):
                    continue
                secs += os.path.getsize(path + ".f32") / 4 / RATE
                texts.append(plain(open(path + ".txt").read()))
                a, a_words, *_ = hear(args.hear, args.whisper, path, 1, beams, words=True)
                b, b_words, *_ = peer(args.whisper, path, 1, beams, words=True)
                ours.append(plain("".join(s[2] for s in a)))
                theirs.append(plain("".join(s[2] for s in b)))
                words = [x + y for x, y in zip(words, near(a_words, b_words))]
                spans = [x + y for x, y in zip(spans, near(a, b))]
            rates = [100 * jiwer.wer(texts, side) for side in (ours, theirs)]
            n = sum(len(text.split()) for text in texts)
            shares = [f"{100 * good / max(1, all_):.1f} % of {all_}" for good, all_ in (words, spans)]
            print(f"| {kind} | {beams} | {secs:.0f} | {n} | {rates[0]:.2f} % | {rates[1]:.2f} % | {shares[0]} | {shares[1]} |",
                  flush=True)
            for key, value in (("t", texts), ("a", ours), ("b", theirs)):
                total.setdefault((beams, key), []).extend(value)
        rates = [100 * jiwer.wer(total[beams, "t"], total[beams, key]) for key in "ab"]
        print(f"| all | {beams} | | | {rates[0]:.2f} % | {rates[1]:.2f} % | | |", flush=True)


def rate(args):
    path = [path for path in recordings(args.folder) if os.path.basename(path).startswith("plain-")][0]
    secs = os.path.getsize(path + ".f32") / 4 / RATE
    rng = random.Random(1)
    print("| precision | threads | beams | RTF ours | RTF faster-whisper | ratio | 95 % | peak MiB ours, peer |")
    print("|---|---|---|---|---|---|---|---|")
    for int8 in (False, True):
        for threads in (1, 2):
            for beams in (1, 5):
                took, peaks = {"a": [], "b": []}, {}
                for pair in range(args.pairs):
                    for side in "ab" if pair % 2 == 0 else "ba":
                        run = hear(args.hear, args.whisper, path, threads, beams, int8) if side == "a" else \
                            peer(args.whisper, path, threads, beams, int8)
                        took[side].append(run[2] / secs)
                        peaks[side] = max(peaks.get(side, 0), run[3])
                ratios = [a / b for a, b in zip(took["a"], took["b"])]
                medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
                print(f"| {'int8' if int8 else 'f32'} | {threads} | {beams} | {statistics.median(took['a']):.4f} |"
                      f" {statistics.median(took['b']):.4f} | {statistics.median(ratios):.3f} | {medians[50]:.3f} to"
                      f" {medians[1949]:.3f} | {peaks['a']:.0f}, {peaks['b']:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    for name in ("ingle", "models_path", "folder"):
        command.add_argument(name)
    command.add_argument("--voice", default="voice-en-us-joe-medium")
    command.set_defaults(run=make)
    for name, run in (("errors", errors), ("rate", rate)):
        command = commands.add_parser(name)
        for argument in ("hear", "whisper", "folder"):
            command.add_argument(argument)
        command.add_argument("--pairs", type=int, default=10)
        command.set_defaults(run=run)
    command = commands.add_parser("peer")
    command.add_argument("whisper")
    command.add_argument("recording")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--beams", type=int, default=1)
    command.add_argument("--int8", action="store_true")
    command.add_argument("--words", action="store_true")
    command.set_defaults(run=peer_main)
    args = parser.parse_args()
    args.run(args)


main()
