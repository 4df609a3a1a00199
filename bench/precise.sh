#!/bin/sh
# A naive Dockerfile over a context of 5,000 files, rebuilt after an edit of a file that no step reads: nothing but the COPY
# runs again. First: a stat of the context.
. "$(dirname "$0")/lib.sh"
make_base
for name in sleep cut tr sha256sum; do ln -sf busybox "$DIR/base/bin/$name"; done
tar -C "$DIR/base" -cf "$DIR/base.tar" .
"$mica" import "$DIR/base.tar" base:bench >/dev/null
mkdir -p "$DIR/context/conf"
awk -v top="$DIR/context" 'BEGIN {
    for (d = 0; d < 100; d++) {
        directory = sprintf("%s/src/m%02d", top, d)
        system("mkdir -p " directory)
        for (f = 0; f < 50; f++) {
            file = sprintf("%s/f%02d.py", directory, f)
            for (line = 0; line < 40; line++) printf "value_%d = %d\n", line, d * f + line > file
            close(file)
        }
    }
}'
echo 'workers = 4' > "$DIR/context/conf/app.conf"
# The steps take as long as real ones would; what they would do with the time does not matter here.
cat > "$DIR/Dockerfile" <<'DOCKERFILE'
FROM base:bench
COPY . /app
RUN cat /app/src/m00/f00.py /app/src/m00/f01.py > /first && sleep 5
RUN cat /app/src/m01/f00.py /app/src/m01/f01.py > /second && sleep 3
COPY conf /etc/app
RUN cat /etc/app/app.conf > /third && sleep 1
DOCKERFILE
# Another content each time, or the result of an earlier edit would be used.
cat > "$DIR/edit" <<EDIT
#!/bin/sh
date +%s.%N > $DIR/context/src/m99/f49.py
sleep 0.1
EDIT
chmod +x "$DIR/edit"
build="$mica build -q --network=none -t precise -f $DIR/Dockerfile $DIR/context"
$build >/dev/null
measure "${RUNS:-10}" floor "$DIR/edit" "find $DIR/context -printf %s" mica "$DIR/edit" "$build"
"$DIR/edit"
$mica build --progress=plain --network=none -t precise -f "$DIR/Dockerfile" "$DIR/context" 2>&1 |
    sed -n 's/^#[0-9]* \(\[[0-9].*\)/\1/p; s/^#[0-9]* \(CACHED.*\)/    \1/p; s/^#[0-9]* \(again.*\)/    \1/p' | tee -a "$OUT/$workload.txt"
