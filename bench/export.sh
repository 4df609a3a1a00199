#!/bin/sh
# A built layer of 200 MB of words goes out compressed: as zstd and as gzip, on all cores. First: the same tar through
# `zstd -T0`; beside it `pigz`, or where that is not installed `gzip`.
. "$(dirname "$0")/lib.sh"
make_large_context "$DIR/context"
printf 'FROM scratch\nCOPY src /src\n' > "$DIR/Dockerfile"
"$mica" build -q -f "$DIR/Dockerfile" -o "type=tar,dest=$DIR/layer.tar" "$DIR/context" >/dev/null
cat > "$temporary/through" <<'THROUGH'
#!/bin/sh
# through FILE COMMAND...: a file through a command into nothing.
file=$1; shift
exec "$@" < "$file" > /dev/null
THROUGH
chmod +x "$temporary/through"
gzip=$(command -v pigz || command -v gzip)
build="$mica build -q -f $DIR/Dockerfile"
measure "${RUNS:-3}" "zstd -T0" "" "$temporary/through $DIR/layer.tar zstd -3 -T0 -q" \
    "mica zstd" "" "$build -o type=oci,dest=/dev/null,compression=zstd $DIR/context" \
    "$(basename "$gzip")" "" "$temporary/through $DIR/layer.tar $gzip -6" \
    "mica gzip" "" "$build -o type=oci,dest=/dev/null $DIR/context"
