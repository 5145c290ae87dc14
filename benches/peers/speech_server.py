#!/usr/bin/env python3
"""Speech through a running server: an hour's file, a client that leaves, eight clients, there and back again.

    pip install jiwer numpy
    speech_server.py http://127.0.0.1:PORT PID FOLDER [--whisper NAME] [--voice NAME]

PID is the server's, whose memory and processor time are looked at; FOLDER is what `speech.py make` wrote.
"""

import argparse
import glob
import io
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
import wave

import jiwer
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RATE = 16_000
EDGE = "edge-of-a-part"


def memory(pid):
    """MiB that the process holds."""
    status = open(f"/proc/{pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def processor_secs(pid):
    words = open(f"/proc/{pid}/stat").read().rsplit(") ")[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def form(args, sound, fields):
    parts = [f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    head = "".join(parts) + f'--{EDGE}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = head.encode() + sound + f"\r\n--{EDGE}--\r\n".encode()
    return urllib.request.Request(args.url + "/v1/audio/transcriptions", body,
                                  {"content-type": f"multipart/form-data; boundary={EDGE}"})


def hear(args, sound):
    request = form(args, sound, {"model": args.whisper, "response_format": "json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["text"]


def speak(args, text, form="wav"):
    """A sound, and the seconds until its first byte and until its last."""
    body = json.dumps({"model": args.voice, "input": text, "response_format": form}).encode()
    request = urllib.request.Request(args.url + "/v1/audio/speech", body, {"content-type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        first = answer.read(1)
        after_first = time.perf_counter() - started
        return first + answer.read(), after_first, time.perf_counter() - started


def wav(samples):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def an_hour(args, speech):
    sound = wav(np.resize(speech, 3600 * RATE))
    before, seen, ended = memory(args.pid), [], threading.Event()

    def watch():
        while not ended.wait(0.5):
            seen.append(memory(args.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.time()
    text = hear(args, sound)
    took = time.time() - started
    ended.set()
    watcher.join()
    quarter = max(1, len(seen) // 4)
    highest = [round(max(seen[at * quarter:(at + 1) * quarter] or [0])) for at in range(4)]
    print(f"an hour: {took:.1f} s, {len(text)} letters; MiB before {before:.0f}, highest in each quarter {highest}")

    # The file is sent whole, the client leaves while it is heard.
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(sound)
        file.flush()
        curl = f"exec curl -s -F file=@{file.name} -F model={args.whisper} {args.url}/v1/audio/transcriptions > /dev/null"
        client = subprocess.Popen(["sh", "-c", curl])
        time.sleep(4)
        client.kill()
    left, before = time.time(), processor_secs(args.pid)
    while True:
        time.sleep(0.1)
        now = processor_secs(args.pid)
        if now - before < 0.02:
            break
        before = now
    print(f"a client left: idle after {time.time() - left:.2f} s")


def eight_clients(args, speech):
    sound = wav(speech[: 60 * RATE])
    hear(args, sound)
    started = time.time()
    for _ in range(3):
        hear(args, sound)
    one = 180 / (time.time() - started)
    clients = [threading.Thread(target=hear, args=(args, sound)) for _ in range(8)]
    started = time.time()
    [client.start() for client in clients]
    [client.join() for client in clients]
    eight = 480 / (time.time() - started)
    print(f"one client: {one:.1f} s of speech a second, eight: {eight:.1f}, {eight / one:.2f} times as much")


def there_and_back(args):
    lines = open(os.path.join(HERE, "sentences.txt")).read().split("\n")[:50]
    plain = lambda text: " ".join(re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split())
    speak(args, "Warm up.")
    heard, secs, took = [], 0, 0
    for line in lines:
        sound, _, whole = speak(args, line)
        took += whole
        with wave.open(io.BytesIO(sound)) as file:
            secs += file.getnframes() / file.getframerate()
        heard.append(hear(args, sound))
    wrong = 100 * jiwer.wer([plain(line) for line in lines], [plain(text) for text in heard])
    print(f"{len(lines)} sentences there and back: {wrong:.2f} % of the words wrong; the voice takes {took / secs:.4f} of real time")
    alone, many = [], []
    for at in range(12):
        alone.append(speak(args, lines[at], "pcm")[2])
        many.append(speak(args, " ".join(lines[at:at + 6]), "pcm")[1])
    later = [1e3 * (b - a) for a, b in zip(alone, many)]
    print(f"first sound of six sentences {1e3 * statistics.median(many):.0f} ms, first sentence alone "
          f"{1e3 * statistics.median(alone):.0f} ms; later by {statistics.median(later):.1f} ms, at most {max(later):.1f}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url")
    arguments.add_argument("pid", type=int)
    arguments.add_argument("folder")
    arguments.add_argument("--whisper", default="whisper-tiny.en")
    arguments.add_argument("--voice", default="voice-en-us-joe-medium")
    args = arguments.parse_args()
    paths = sorted(glob.glob(os.path.join(args.folder, "plain-*.f32")) + glob.glob(os.path.join(args.folder, "slow-*.f32")))
    speech = np.concatenate([np.fromfile(path, "<f4") for path in paths])
    hear(args, wav(speech[: 60 * RATE]))
    an_hour(args, speech)
    eight_clients(args, speech)
    there_and_back(args)


if __name__ == "__main__":
    main()
