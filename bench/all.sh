#!/bin/sh
# all.sh MICA: every workload; OUT defaults to a folder of today beside this file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: $0 MICA" >&2; exit 2; }
OUT=${OUT:-$here/results/$(date +%F)}
export OUT
mkdir -p "$OUT"
{
    echo "command: bench/all.sh MICA"
    echo "mica: $("$1" --version), $(stat -c %s "$1") bytes"
    echo "commit: $(git -C "$here" describe --always --dirty 2>/dev/null || echo unknown)"
    echo "kernel: $(uname -sr)"
    echo "cores: $(nproc), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    echo "memory: $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
    echo "crun: $(crun --version 2>/dev/null | head -n 1)"
    echo "load at the start: $(cut -d ' ' -f 1-3 /proc/loadavg)"
} > "$OUT/machine.txt"
for workload in start cached-small cached-large cold-copy run-true precise pull repull push; do
    "$here/$workload.sh" "$1"
done
