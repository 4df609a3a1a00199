# A registry on loopback with an image in it, for the workloads that pull and push; sourced after lib.sh.

# start_registry: Debian's docker-registry on a free port; sets `registry` to HOST:PORT and `registry_pid`.
start_registry() {
    command -v docker-registry >/dev/null || { echo "needs docker-registry (package docker-registry)" >&2; exit 1; }
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    registry=127.0.0.1:$port
    cat > "$temporary/registry.yml" <<YML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $DIR/registry}, delete: {enabled: true}}
http: {addr: $registry, relativeurls: true}
YML
    docker-registry serve "$temporary/registry.yml" >"$temporary/registry.log" 2>&1 &
    registry_pid=$!
    tries=0
    until curl -sf "http://$registry/v2/" >/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { cat "$temporary/registry.log" >&2; exit 1; }
        sleep 0.05
    done
}

# make_big_layers DIRECTORY MEGABYTES COPIES: eight tars of files of this machine's /usr, each about so many megabytes, as
# gzip -6 writes them. COPIES > 1 puts the same files in so many times under other names.
make_big_layers() {
    mkdir -p "$1"
    find /usr/bin /usr/lib /usr/share -xdev -type f -size -12M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k 2 |
        awk -v out="$1/list" -v bytes="$2" 'BEGIN { n = 1; bytes *= 1000000 }
            # Directories first, as every builder writes them.
            function say(path, above) {
                above = path
                if (sub("/[^/]*$", "", above) && !((n, above) in said)) { said[n, above] = 1; say(above) }
                print path > out n
            }
            { sum += $1; say(substr($0, length($1) + 3)); if (sum > bytes) { sum = 0; if (++n > 8) exit } }'
    for n in 1 2 3 4 5 6 7 8; do
        : > "$1/$n.tar"
        copy=1
        while [ "$copy" -le "$3" ]; do
            tar -C / --transform "s,^usr,usr-$n-$copy," --no-recursion --owner=0 --group=0 -cf "$1/part" -T "$1/list$n" 2>/dev/null
            if [ "$copy" -eq 1 ]; then mv "$1/part" "$1/$n.tar"; else tar --concatenate -f "$1/$n.tar" "$1/part"; rm "$1/part"; fi
            copy=$((copy + 1))
        done
        sha256sum < "$1/$n.tar" | cut -d ' ' -f 1 > "$1/$n.diff"
        gzip -n "-${GZIP_LEVEL:-6}" < "$1/$n.tar" > "$1/$n.gz"
        stat -c %s "$1/$n.tar" >> "$1/sizes"
        rm "$1/$n.tar"
    done
    awk '{ s += $1 } END { printf "%d bytes of tars\n", s }' "$1/sizes" >> "$OUT/$workload-image.txt"
    du -cb "$1"/*.gz | tail -n 1 | sed 's/total/bytes as gzip/' >> "$OUT/$workload-image.txt"
}

# put_image DIRECTORY REPOSITORY TAG: pushes those layers as an image, with curl.
put_image() {
    python3 - "$1" "http://$registry/v2/$2" "$3" <<'PYTHON'
import hashlib, json, os, subprocess, sys, urllib.request
directory, base, tag = sys.argv[1:]

def put_blob(path):
    digest = "sha256:" + subprocess.check_output(["sha256sum", path], text=True).split()[0]
    request = urllib.request.Request(base + "/blobs/uploads/", method="POST", data=b"")
    location = urllib.request.urlopen(request).headers["Location"]
    if location.startswith("/"):
        location = base.split("/v2/")[0] + location
    url = location + ("&" if "?" in location else "?") + "digest=" + digest
    subprocess.check_call(["curl", "-sf", "-X", "PUT", "-H", "Content-Type: application/octet-stream", "-T", path, url])
    return {"digest": digest, "size": os.path.getsize(path)}

layers, diffs = [], []
for n in range(1, 9):
    layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put_blob(f"{directory}/{n}.gz")})
    diffs.append("sha256:" + open(f"{directory}/{n}.diff").read().strip())
config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}
open(f"{directory}/config", "w").write(json.dumps(config))
manifest = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put_blob(f"{directory}/config")},
    "layers": layers,
}
request = urllib.request.Request(f"{base}/manifests/{tag}", method="PUT", data=json.dumps(manifest).encode())
request.add_header("Content-Type", manifest["mediaType"])
urllib.request.urlopen(request)
open(f"{directory}/digests", "w").write("".join(layer["digest"] + "\n" for layer in layers))
PYTHON
}
