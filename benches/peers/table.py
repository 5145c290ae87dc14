#!/usr/bin/env python3
"""table.py REPORT.json…: the ratios of scripts/compare.sh beside their bars.

A bar is met when the interval reaches it. Of reports against several settings of the peer the one counts in which the
peer did better. Fewer than six pairs have a range instead of an interval of 95 %.
"""

import json
import os
import sys

# Case, measure, direction, bar, and the model it is for when it is not for all.
BARS = [
    ("single", "out", ">=", 1.0, ""),
    ("single", "ttft p50", "<=", 1.0, ""),
    ("unrelated", "out", ">=", 1.0, ""),
    ("unrelated", "gap p99", "<=", 0.5, ""),
    ("unrelated", "gap longest", "<=", 0.3, ""),
    ("shared-prefix", "out", ">=", 3.0, ""),
    ("shared-prefix", "ttft p50", "<=", 0.3, ""),
    ("branches", "ttft p50", "<=", 0.25, ""),
    ("greedy", "out", ">=", 1.05, ""),
    ("sampling", "out", ">=", 1.8, "gemma"),
    ("json-schema", "out", ">=", 1.8, "gemma"),
    ("multi-turn", "ttft p95", "<=", 0.8, ""),
    ("start", "first answer", "<=", 1.0, ""),
    ("start", "memory idle", "<=", 0.6, ""),
    ("start", "memory loaded", "<=", 0.6, ""),
]


def ratios(path):
    """Each ratio of a report: case, measure, the metric."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    for row in report["rows"]:
        if row["case"].get("server") == "A / B":
            for metric in row["metrics"]:
                yield row["case"]["scenario"], metric["name"], metric


def notes(path):
    """What a reader of the table should know: failures, and prompts that were not the same."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    telling = ("failed", "differ", "not measured", "no usage")
    return [note for note in report.get("notes", []) if any(word in note for word in telling)]


def main():
    paths = sys.argv[1:]
    found = [(os.path.basename(path)[:-5], *ratio) for path in paths for ratio in ratios(path)]
    rows = [["CASE", "MEASURE", "BAR", "OURS / PEER", "INTERVAL", "PAIRS", "VERDICT", "REPORT"]]
    for case, measure, direction, bar, only in BARS:
        reports = [(name, metric) for name, of, what, metric in found if (of, what) == (case, measure)]
        if not reports:
            continue
        pick = min if direction == ">=" else max
        name, metric = pick(reports, key=lambda entry: entry[1]["median"])
        low, high, n_pairs = metric["low"], metric["high"], len(metric["samples"])
        is_met = high >= bar if direction == ">=" else low <= bar
        verdict = "met" if is_met else "NOT MET"
        if only and only not in name.lower():
            verdict = f"(bar of {only})"
        elif n_pairs < 5:
            verdict += "?"
        rows.append([case, measure, f"{direction} {bar}", f"{metric['median']:.3f}", f"{low:.3f} to {high:.3f}",
                     str(n_pairs), verdict, name])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if any(int(row[5]) < 6 for row in rows[1:]):
        print("\nof fewer than 6 pairs the interval is a range; of fewer than 5 the verdict says little")
    for path in paths:
        for note in notes(path):
            print(f"\n{os.path.basename(path)}: {note}")


if __name__ == "__main__":
    main()
