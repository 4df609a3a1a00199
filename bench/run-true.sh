#!/bin/sh
# A container that runs /bin/true and is removed. First: crun with an unpacked bundle of the same image.
#
# crun refuses a machine that has both versions of cgroups mounted, so the second is unmounted, for both, in a mount
# namespace of our own.
if [ -z "${MICA_BENCH_INSIDE:-}" ]; then
    MICA_BENCH_INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
fi
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
. "$(dirname "$0")/lib.sh"
make_base
mkdir "$DIR/bundle"
cp -a "$DIR/base" "$DIR/bundle/rootfs"
(cd "$DIR/bundle" && crun spec)
# Limits that an unprivileged root may not raise are no part of this.
python3 - "$DIR/bundle/config.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))
config["process"].update(args=["/bin/true"], terminal=False)
config["process"].pop("rlimits", None)
json.dump(config, open(sys.argv[1], "w"))
PYTHON
measure "${RUNS:-20}" crun '' "crun --root $DIR/crun run -b $DIR/bundle mica-bench" \
    mica '' "$mica run --rm --network=none base:bench /bin/true"
