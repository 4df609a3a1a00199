#!/bin/sh
# `COPY . /app` of 20,000 files, 200 MB, never seen before, into a finished image. First: cp -a of the same tree.
. "$(dirname "$0")/lib.sh"
make_base
make_large_context "$DIR/context"
printf 'FROM base:bench\nCOPY . /app\n' > "$DIR/Dockerfile"
cat > "$temporary/forget" <<'FORGET'
#!/bin/sh
# What the run before left is removed, and nothing of it waits to be written.
rm -rf "$1/copy"
"$2" rmi -f copied >/dev/null 2>&1
"$2" system prune -af >/dev/null 2>&1
"$2" import "$1/base.tar" base:bench >/dev/null
rm -f "$1"/store/context/*
sync -f "$1"
FORGET
chmod +x "$temporary/forget"
forget="$temporary/forget $DIR $mica"
measure "${RUNS:-3}" floor "$forget" "cp -a $DIR/context $DIR/copy" \
    mica "$forget" "$mica build -q --no-cache -t copied -f $DIR/Dockerfile $DIR/context"
