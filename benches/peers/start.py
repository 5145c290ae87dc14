#!/usr/bin/env python3
"""start.py: start to first answer, and memory, of Ingle and llama-server in turn; scripts/compare.sh calls it.

Each run starts a fresh process of each server, the first one alternating; one run before the others warms the file cache
and is not counted. Start: from exec to the end of an answer of one token. Memory: PSS of the process and its children
without the pages of the model file and without the bytes of the KV cache, idle and at its highest under 16 clients.
KV bytes are what each server says in the run before the others: Ingle at /backend/monitor, llama-server in its log.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE = 120
# Seconds after an answer in which idle servers put away what they need no more.
SETTLE = 3
MIB = 1 << 20
# Ingle's own; llama-server's is larger, and memory is compared at equal ones.
BATCH = 512


class Server:
    """A fresh process of one of the two."""

    def __init__(self, kind, args, is_first):
        self.kind, self.args, self.is_first = kind, args, is_first
        self.log = os.path.join(args.logs, f"start-{kind}.log")
        self.url = f"http://127.0.0.1:{18090 if kind == 'ingle' else 18091}"
        self.process = None

    def command(self):
        args, port = self.args, self.url.rsplit(":", 1)[1]
        if self.kind == "ingle":
            return [args.program, "run", "compared", "--models-path", args.models, "--address", f"127.0.0.1:{port}",
                    "--threads", args.threads, "--parallel", args.slots, "--context-size", args.context]
        # The sizes of its buffers are in the log from this level on, which costs time.
        log = ["-lv", "4"] if self.is_first else []
        return [args.peer, "-m", args.model, "--host", "127.0.0.1", "--port", port, "-t", args.threads, "-tb",
                args.threads, "-np", args.slots, "-c", args.context, "-b", str(BATCH), "-ub", str(BATCH),
                "--no-webui", *log, *args.peer_flags.split()]

    def start(self):
        """Seconds to the first answer."""
        body = {"model": "compared", "prompt": "Once upon a time", "max_tokens": 1, "temperature": 0}
        request = urllib.request.Request(f"{self.url}/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with open(self.log, "w", encoding="utf-8") as log:
            begun = time.monotonic()
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    answer.read()
                return time.monotonic() - begun
            except (urllib.error.URLError, ConnectionError):
                # Not listening yet, or loading.
                if self.process.poll() is not None or time.monotonic() - begun > PATIENCE:
                    raise SystemExit(f"{self.kind} does not start: see {self.log}") from None
                time.sleep(0.002)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kv_bytes(self):
        if self.kind == "ingle":
            with urllib.request.urlopen(f"{self.url}/backend/monitor?model=compared") as answer:
                return json.load(answer)["memory"]["breakdown"]["cache"]
        with open(self.log, encoding="utf-8", errors="replace") as log:
            text = log.read()
        # Contexts that were only tried out come before the one that is used.
        text = text[max(text.rfind("constructing llama_context"), 0):]
        sizes = re.findall(r"KV buffer size = +([0-9.]+) MiB", text)
        if not sizes:
            raise SystemExit(f"llama-server does not tell the size of its KV cache: see {self.log}")
        return int(sum(float(size) for size in sizes) * MIB)

    def memory_bytes(self):
        """PSS of the process and its children without the pages of the model file."""
        return sum(pss_bytes(pid, self.args.model) for pid in family(self.process.pid))


def family(pid):
    """A process and everything below it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [one for child in file.read().split() for one in family(int(child))]
        except OSError:
            continue
    return found


def pss_bytes(pid, model):
    total, is_model = 0, False
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
            for line in smaps:
                words = line.split()
                if words[0] == "Pss:":
                    total += 0 if is_model else int(words[1]) << 10
                elif not words[0].endswith(":"):
                    # An address range; the file stands behind five columns, and may have blanks.
                    is_model = line.split(maxsplit=5)[5:] == [model + "\n"]
    except OSError:
        return 0
    return total


def loaded_bytes(server, args):
    """The highest memory while 16 clients are served."""
    command = [args.program, "bench", "serve", server.url, "--model", "compared", "--scenario", "greedy", "--clients",
               "16", "--requests", "48", "--blocks", "1", "--max-seconds", "300"]
    with open(os.path.join(args.logs, "start-load.log"), "w", encoding="utf-8") as log:
        load = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    highest = 0
    while load.poll() is None:
        highest = max(highest, server.memory_bytes())
        time.sleep(0.2)
    if load.returncode != 0:
        raise SystemExit(f"16 clients could not be served by {server.kind}: see start-load.log in {args.logs}")
    return highest


def measure(kind, args, known_kv):
    """Seconds to the first answer; MiB idle and loaded. `known_kv` has the KV bytes of each server that ran before."""
    server = Server(kind, args, kind not in known_kv)
    try:
        secs = server.start()
        time.sleep(SETTLE)
        if kind not in known_kv:
            known_kv[kind] = server.kv_bytes()
        kv_bytes = known_kv[kind]
        idle = server.memory_bytes() - kv_bytes
        loaded = loaded_bytes(server, args) - kv_bytes
    finally:
        server.stop()
    print(f"{kind}: first answer {secs:.3f} s, idle {idle / MIB:.1f} MiB, loaded {loaded / MIB:.1f} MiB "
          f"(without {kv_bytes / MIB:.1f} MiB of KV cache)", flush=True)
    return {"first answer": secs, "memory idle": idle / MIB, "memory loaded": loaded / MIB}


def n_outside(n):
    """Values beyond the interval of 95 % of the median on either side, as in the program's `stats`."""
    probability, total, outside = 0.5**n, 0.5**n, 0
    while outside < n:
        probability *= (n - outside) / (outside + 1)
        total += probability
        if 2 * total > 0.05:
            break
        outside += 1
    return outside


def metric(name, unit, samples):
    ordered, outside = sorted(samples), n_outside(len(samples))
    return {"name": name, "unit": unit, "better": "lower", "shown": "always", "median": statistics.median(ordered),
            "low": ordered[outside], "high": ordered[-1 - outside], "samples": samples}


def report(samples):
    """The rows of a report as scripts/compare.sh's table reads them."""
    units = {"first answer": "s", "memory idle": "MiB", "memory loaded": "MiB"}
    rows = []
    for kind, label in (("ingle", "A"), ("llama-server", "B")):
        metrics = [metric(name, unit, [run[kind][name] for run in samples]) for name, unit in units.items()]
        rows.append({"case": {"scenario": "start", "server": label}, "metrics": metrics})
    pairs = [metric(name, "", [run["ingle"][name] / run["llama-server"][name] for run in samples]) for name in units]
    rows.append({"case": {"scenario": "start", "server": "A / B"}, "metrics": pairs})
    return {"kind": "start", "rows": rows, "notes": []}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("program", "peer", "models", "model", "threads", "slots", "context", "logs", "json"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--peer-flags", default="")
    parser.add_argument("--runs", type=int, default=6)
    args = parser.parse_args()
    samples, known_kv = [], {}
    for idx in range(args.runs + 1):
        order = ("ingle", "llama-server") if idx % 2 == 0 else ("llama-server", "ingle")
        run = {kind: measure(kind, args, known_kv) for kind in order}
        if idx > 0:
            samples.append(run)
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(report(samples), file, indent=1)


if __name__ == "__main__":
    main()
