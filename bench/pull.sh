#!/bin/sh
# A pull of 500 MB in eight gzip layers from a registry on loopback into an empty store. First: what any tool must do,
# curl | gzip -d | tar x, two layers at a time.
. "$(dirname "$0")/lib.sh"
. "$bench/registry.sh"
start_registry
make_big_layers "$DIR/layers" 64 1
put_image "$DIR/layers" big lab
cat > "$temporary/forget" <<'FORGET'
#!/bin/sh
# What the run before left is removed, and nothing of it waits to be written.
rm -rf "$1/unpacked" "$1/store"
mkdir "$1/unpacked"
sync -f "$1"
FORGET
cat > "$temporary/floor" <<'FLOOR'
#!/bin/sh
xargs -a "$1/layers/digests" -P 2 -I {} sh -c "mkdir $1/unpacked/{}; curl -s http://$2/v2/big/blobs/{} | gzip -dc | tar -xC $1/unpacked/{}"
FLOOR
chmod +x "$temporary/forget" "$temporary/floor"
forget="$temporary/forget $DIR"
set -- floor "$forget" "$temporary/floor $DIR $registry" mica "$forget" "$mica pull -q $registry/big:lab"
if command -v skopeo >/dev/null && [ -n "${SKOPEO:-}" ]; then
    set -- "$@" skopeo-to-layout "$forget" "skopeo copy -q --src-tls-verify=false docker://$registry/big:lab oci:$DIR/unpacked/layout:lab"
fi
measure "${RUNS:-3}" "$@"
