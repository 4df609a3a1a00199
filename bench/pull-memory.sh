#!/bin/sh
# Peak memory of a pull: of 500 MB and of 5 GB, eight gzip layers each. Not timed.
DISK=${DISK:-24G}
. "$(dirname "$0")/lib.sh"
. "$bench/registry.sh"
start_registry
for copies in 1 10; do
    GZIP_LEVEL=1 make_big_layers "$DIR/layers$copies" 64 $copies
    put_image "$DIR/layers$copies" big $copies
    rm -rf "$DIR/layers$copies"
    python3 - "$mica" "$registry/big:$copies" <<'PYTHON' | tee -a "$OUT/$workload.txt"
import os, subprocess, sys
process = subprocess.Popen([sys.argv[1], "pull", "-q", sys.argv[2]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(f"{sys.argv[2].split(':')[-1]} x 512 MB: peak {usage.ru_maxrss / 1024:.1f} MB, status {status}")
PYTHON
    rm -rf "$DIR/store"
done
