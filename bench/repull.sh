#!/bin/sh
# A pull of what is there. First: the one request that it takes, a HEAD with curl.
. "$(dirname "$0")/lib.sh"
. "$bench/registry.sh"
start_registry
make_big_layers "$DIR/layers" 4 1
put_image "$DIR/layers" big lab
"$mica" pull -q "$registry/big:lab" >/dev/null
measure "${RUNS:-20}" floor '' "curl -sI http://$registry/v2/big/manifests/lab" mica '' "$mica pull -q $registry/big:lab"
