#!/bin/sh
# A push of a pulled image, 500 MB in eight gzip layers, to a registry on loopback that has nothing of it: the kept bytes go as
# they are. First: what any tool must do, the same bytes with curl, five blobs at a time.
. "$(dirname "$0")/lib.sh"
. "$bench/registry.sh"
start_registry
make_big_layers "$DIR/layers" ${MEGABYTES:-64} 1
put_image "$DIR/layers" big lab
"$mica" pull -q "$registry/big:lab" >/dev/null
# What is pushed goes to another registry: in the first one, mica would ask for a mount, and get it.
kill "$registry_pid"
wait "$registry_pid" 2>/dev/null || true
rm -rf "$DIR/registry"
start_registry
"$mica" tag "$("$mica" images -q | head -n 1)" "$registry/pushed:lab"
cat > "$temporary/forget" <<'FORGET'
#!/bin/sh
# The registry has nothing, and nothing of the run before waits to be written.
rm -rf "$1/registry/docker"
sync -f "$1"
FORGET
cat > "$temporary/send" <<'SEND'
#!/bin/sh
# send REPOSITORY-URL FILE: one blob.
location=$(curl -si -X POST -H 'Content-Length: 0' "$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //p')
case $location in /*) location=${1%%/v2/*}$location ;; esac
digest=$(basename "$2")
location=$(curl -si -X PATCH -H 'Expect:' -H 'Content-Type: application/octet-stream' -T "$2" "$location" |
    tr -d '\r' | sed -n 's/^Location: //p')
case $location in /*) location=${1%%/v2/*}$location ;; esac
curl -sf -X PUT -H 'Content-Length: 0' "$location&digest=sha256:$digest"
SEND
cat > "$temporary/floor" <<'FLOOR'
#!/bin/sh
sed 's/^sha256://' "$1/layers/digests" | xargs -P 5 -I {} "$3" "http://$2/v2/floor" "$1/store/blobs/sha256/{}"
FLOOR
chmod +x "$temporary/forget" "$temporary/floor" "$temporary/send"
forget="$temporary/forget $DIR"
measure "${RUNS:-3}" floor "$forget" "$temporary/floor $DIR $registry $temporary/send" \
    mica "$forget" "$mica push -q $registry/pushed:lab"
