#!/bin/sh
# Rebuild of a ten-instruction Dockerfile in which nothing changed, small context. First: a stat of the context.
. "$(dirname "$0")/lib.sh"
make_base
mkdir -p "$DIR/context/conf"
echo 'package==1.0' > "$DIR/context/requirements.txt"
echo 'workers = 4' > "$DIR/context/conf/app.conf"
make_ten_instructions "$DIR/Dockerfile"
# A file as young as its hashing is hashed once more by the next build.
sleep 0.1
build="$mica build -q --network=host -t cached -f $DIR/Dockerfile $DIR/context"
$build >/dev/null
measure "${RUNS:-20}" floor '' "find $DIR/context -printf %s" mica '' "$build"
