#!/bin/sh
# What it costs to know the inputs of a step: user and system time of everything in a build whose steps are traced, server
# included, and of the same build over a plain overlay. First: the plain one.
#
#   BASE=...     a root filesystem tar of Debian 12. Default: the one that the tests made in the build directory. Compiler,
#                make, python3 and pip are installed from its mirror.
#   STEPS=...    which of: apt pip make find tar
#
# The plain side runs in a mount namespace where /dev/fuse is another device: mica then falls back to a plain overlay.
. "$(dirname "$0")/lib.sh"
base=${BASE:-$(ls "$bench"/../target/bases/debian-*.tar "$bench"/../target/*/bases/debian-*.tar 2>/dev/null | head -n 1)}
[ -e "$base" ] || { echo "needs BASE, a root filesystem tar of Debian 12" >&2; exit 2; }
"$mica" import "$base" debian:12 >/dev/null
mkdir "$DIR/tools"
cat > "$DIR/tools/Dockerfile" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make python3 python3-pip
DOCKERFILE
"$mica" build -q -t debian:bench "$DIR/tools" >/dev/null
# What `apt-get install` needs stands in the image, so that the step needs no network.
cat > "$DIR/tools/fetched" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --download-only gcc make libc6-dev
DOCKERFILE
"$mica" build -q -t debian:fetched -f "$DIR/tools/fetched" "$DIR/tools" >/dev/null
context=$DIR/context
mkdir -p "$context/wheels" "$context/project"

# 300 sources that include a few headers of the system and some of their own.
awk -v top="$context/project" 'BEGIN {
    for (h = 0; h < 20; h++) {
        file = sprintf("%s/h%02d.h", top, h)
        for (f = 0; f < 40; f++) printf "static inline int h%d_%d(int x) { return x * %d + %d; }\n", h, f, h + 1, f > file
        close(file)
    }
    for (s = 0; s < 300; s++) {
        file = sprintf("%s/s%03d.c", top, s)
        print "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>" > file
        for (h = 0; h < 20; h++) printf "#include \"h%02d.h\"\n", h > file
        printf "int s%d(int x) { char b[64]; snprintf(b, sizeof b, \"%%d\", h%d_%d(x)); return (int)strlen(b); }\n", s, s % 20, s % 40 > file
        close(file)
    }
    print "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nall.a: $(OBJECTS)\n\tar rc $@ $^\n%.o: %.c\n\t$(CC) -O1 -c -o $@ $<" > (top "/Makefile")
}'

# Packages from the machine's own index, fetched once, so that the step needs no network.
steps=${STEPS:-apt pip make find tar}
case " $steps " in *" pip "*)
    python3 -m pip download -q -d "$context/wheels" --only-binary=:all: --python-version 3.11 ${WHEELS:-flask requests jinja2 sqlalchemy django pygments rich} >/dev/null 2>&1 ||
        { echo "pip is left out: packages could not be fetched" >&2; steps=$(echo "$steps" | sed 's/pip//'); } ;;
esac

write_step() {
    from=debian:bench
    case $1 in
        apt) from=debian:fetched run='apt-get install -y --no-download gcc make libc6-dev' ;;
        pip) run='python3 -m pip install -q --break-system-packages --no-index --find-links=/pkg/wheels /pkg/wheels/*.whl' ;;
        make) run='cd /pkg/project && make -s -j2' ;;
        find) run='find / -xdev -printf %s%m >/dev/null' ;;
        tar) run='tar c -f - -C / usr | sha256sum' ;;
    esac
    printf 'FROM %s\nCOPY . /pkg\nARG TURN=0\nRUN %s # $TURN\n' $from "$run" > "$DIR/Dockerfile.$1"
}

# User and system seconds of a command and of all that it waited for.
cpu() {
    python3 - "$@" <<'PYTHON'
import os, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
if code.returncode:
    sys.exit(code.stderr.decode(errors="replace"))
times = os.times()
print(f"{times.children_user + times.children_system:.3f} {time.perf_counter() - began:.3f}")
PYTHON
}

: > "$OUT/$workload.raw"
for step in $steps; do
    write_step "$step"
    build="$mica build -q --network=none -t cost -f $DIR/Dockerfile.$step"
    # The COPY is a hit from here on, and the files are in the page cache.
    $build --build-arg TURN=warm "$context" >/dev/null
    turn=1
    while [ "$turn" -le "${RUNS:-5}" ]; do
        plain=$(cpu unshare --mount --propagation private sh -c "mount --bind /dev/null /dev/fuse && exec $build --build-arg TURN=p$turn $context")
        traced=$(cpu $build --build-arg "TURN=t$turn" "$context")
        echo "$step $plain $traced" >> "$OUT/$workload.raw"
        turn=$((turn + 1))
    done
done
python3 - "$OUT/$workload.raw" <<'PYTHON' | tee "$OUT/$workload.txt"
import statistics, sys
rows = [line.split() for line in open(sys.argv[1])]
print(f"{'step':6} {'plain cpu':>10} {'traced cpu':>10} {'ratio':>6} {'plain wall':>10} {'traced wall':>11} {'ratio':>6}")
for step in dict.fromkeys(row[0] for row in rows):
    columns = [[float(row[i]) for row in rows if row[0] == step] for i in range(1, 5)]
    plain, plain_wall, traced, traced_wall = map(statistics.median, columns)
    ratio = statistics.median(t / p for p, t in zip(columns[0], columns[2]))
    wall = statistics.median(t / p for p, t in zip(columns[1], columns[3]))
    print(f"{step:6} {plain:9.2f}s {traced:9.2f}s {ratio:6.2f} {plain_wall:9.2f}s {traced_wall:10.2f}s {wall:6.2f}")
PYTHON
