#!/usr/bin/env python3
"""measure.py RUNS JSON [NAME PREPARE COMMAND]...: what hyperfine would do, where it is not installed."""
import json, shlex, subprocess, sys, time

runs, path, rest = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
results = []
for name, prepare, command in zip(rest[0::3], rest[1::3], rest[2::3]):
    times = []
    for run in range(runs + 1):
        if prepare:
            subprocess.run(shlex.split(prepare), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.perf_counter()
        subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if run > 0:
            times.append(time.perf_counter() - began)
    results.append({"command": name, "times": times})
json.dump({"results": results}, open(path, "w"), indent=1)
