#!/bin/sh
# The same with a context of 20,000 files, 200 MB, unchanged. First: a stat of the context.
. "$(dirname "$0")/lib.sh"
make_base
make_large_context "$DIR/context"
make_ten_instructions "$DIR/Dockerfile"
sleep 0.1
build="$mica build -q --network=host -t cached -f $DIR/Dockerfile $DIR/context"
$build >/dev/null
measure "${RUNS:-10}" floor '' "find $DIR/context -printf %s" mica '' "$build"
if command -v strace >/dev/null; then
    strace -f -qq -e trace=open,openat,openat2 -o "$temporary/opens" $build >/dev/null
    echo "files of the context opened by the cached build: $(grep -c '\.py"' "$temporary/opens" || true)" |
        tee -a "$OUT/$workload.txt"
fi
