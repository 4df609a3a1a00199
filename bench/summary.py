#!/usr/bin/env python3
"""summary.py WORKLOAD JSON...: medians of hyperfine's results, and their ratios to the first command's."""
import json, statistics, sys

workload, files = sys.argv[1], sys.argv[2:]
times, rounds = {}, {}
for file in files:
    for result in json.load(open(file))["results"]:
        times.setdefault(result["command"], []).extend(result["times"])
        rounds.setdefault(result["command"], []).append(statistics.median(result["times"]))
first = next(iter(times))
for name, all_times in times.items():
    # Rounds are compared with themselves, so that a slow minute of the machine counts for both sides.
    ratio = statistics.median(a / b for a, b in zip(rounds[name], rounds[first]))
    low, high, median = min(all_times), max(all_times), statistics.median(all_times)
    print(f"{workload:14} {name:8} {median * 1e3:9.2f} ms  ({low * 1e3:.2f} .. {high * 1e3:.2f}, "
          f"{len(all_times)} runs)  ratio {ratio:.2f}")
