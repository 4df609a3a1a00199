# Shared by the workloads; sourced, not run.
#
#   WORKLOAD.sh MICA        MICA is the binary to measure
#
#   DIR=...      where store and contexts go; must not exist yet or be empty. Default: a fresh ext4 on a loop device,
#                made in $TMPDIR and removed at the end (needs root).
#   OUT=...      where the raw numbers go. Default: a new directory in $TMPDIR.
#   ROUNDS=5     the commands of a workload take turns this many times
#   RUNS=...     measured runs in each turn (each workload has its default)
set -eu
bench=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: $0 MICA" >&2; exit 2; }
mica=$(readlink -f "$1")
workload=$(basename "$0" .sh)
rounds=${ROUNDS:-5}
temporary=$(mktemp -d)
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
OUT=$(readlink -f "$OUT")

finish() {
    status=$?
    trap - EXIT
    cd /
    if [ -n "${registry_pid:-}" ]; then
        kill "$registry_pid" 2>/dev/null || true
        wait "$registry_pid" 2>/dev/null || true
    fi
    if [ -n "${device:-}" ]; then
        umount "$DIR" 2>/dev/null || umount -l "$DIR"
        losetup -d "$device"
    elif [ -n "${own:-}" ]; then
        rm -rf "$own"
    fi
    rm -rf "$temporary"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

if [ -z "${DIR:-}" ]; then
    # A file system of its own: on an old one, creating a file may cost ten times as much.
    DIR=$temporary/disk
    mkdir "$DIR"
    truncate -s ${DISK:-8G} "$temporary/ext4"
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$temporary/ext4"
    device=$(losetup --direct-io=on -f --show "$temporary/ext4")
    mount "$device" "$DIR" || { losetup -d "$device"; device=; exit 1; }
else
    mkdir -p "$DIR"
    own=$(mktemp -d "$DIR/mica-bench-XXXXXX")
    DIR=$own
fi
export MICA_ROOT="$DIR/store"

# A base image that needs no network: busybox and a few directories.
make_base() {
    command -v busybox >/dev/null || { echo "needs busybox, statically linked (package busybox-static)" >&2; exit 1; }
    mkdir -p "$DIR/base/bin" "$DIR/base/etc" "$DIR/base/tmp" "$DIR/base/proc" "$DIR/base/dev" "$DIR/base/sys"
    cp "$(readlink -f "$(command -v busybox)")" "$DIR/base/bin/busybox"
    for name in sh true cat ls; do ln -s busybox "$DIR/base/bin/$name"; done
    echo 'root:x:0:0:root:/:/bin/sh' > "$DIR/base/etc/passwd"
    tar -C "$DIR/base" -cf "$DIR/base.tar" .
    "$mica" import "$DIR/base.tar" base:bench >/dev/null
}

# A context of 20,000 files and 200 MB of words, always the same.
make_large_context() {
    awk -v top="$1" 'BEGIN {
        seed = 7
        for (length_ = 0; length_ < 400000; length_ += n + 1) {
            n = 3 + next_(9); word = ""
            for (i = 0; i < n; i++) word = word substr("abcdefghijklmnopqrstuvwxyz_", 1 + next_(27), 1)
            text = text word " "
        }
        for (d = 0; d < 200; d++) {
            directory = sprintf("%s/src/p%02d/m%03d", top, d % 20, d)
            system("mkdir -p " directory)
            for (f = 0; f < 100; f++) {
                size = 200 + int(-log((1 + next_(1000000)) / 1000001) * 9800)
                file = sprintf("%s/f%02d.py", directory, f)
                printf "%s", substr(text, 1 + next_(250000), size) > file
                close(file)
            }
        }
    }
    function next_(n) { seed = (seed * 16807) % 2147483647; return seed % n }'
    mkdir -p "$1/conf"
    echo 'workers = 4' > "$1/conf/app.conf"
    echo 'package==1.0' > "$1/requirements.txt"
}

# Ten instructions; two of their COPY see little, one sees all.
make_ten_instructions() {
    cat > "$1" <<'DOCKERFILE'
FROM base:bench
ENV A=1
WORKDIR /app
COPY requirements.txt /app/
RUN cat requirements.txt > /req
COPY . /app
RUN ls /app > /list
COPY conf /etc/app
RUN cat /etc/app/app.conf
CMD ["/bin/sh"]
DOCKERFILE
}

# measure RUNS [NAME PREPARE COMMAND]...: times the commands in turns. PREPARE is run before each and not timed.
# Output goes to OUT/WORKLOAD-ROUND.json (hyperfine's own form) and, as one line per command, to OUT/WORKLOAD.txt.
measure() {
    runs=$1
    shift
    round=1
    while [ "$round" -le "$rounds" ]; do
        measure_once "$OUT/$workload-$round.json" "$@"
        round=$((round + 1))
    done
    python3 "$bench/summary.py" "$workload" "$OUT/$workload"-*.json | tee "$OUT/$workload.txt"
}

measure_once() {
    json=$1
    shift
    if command -v hyperfine >/dev/null; then
        for argument; do
            case $((index = ${index:-0} + 1)) in
                1) set -- "$@" --command-name "$argument" ;;
                2) set -- "$@" --prepare "${argument:-true}" ;;
                3) set -- "$@" "$argument"; index=0 ;;
            esac
            shift
        done
        hyperfine --shell=none --style=none --warmup=1 --runs="$runs" --export-json "$json" "$@" 2>"$temporary/hyperfine" ||
            { cat "$temporary/hyperfine" >&2; exit 1; }
    else
        python3 "$bench/measure.py" "$runs" "$json" "$@"
    fi
}
