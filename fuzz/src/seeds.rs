//! Where the search begins: a few inputs of our own, and those of the shared corpus where it is there, read in place.

use std::fs;
use std::io;
use std::path::Path;

use mica_tree::{Entry, Index, Kind, Time};
use serde_json::Value;

/// Most seeds of one target: libFuzzer runs them all before it begins.
const SEEDS_MAX: usize = 600;
const SEED_BYTES_MAX: usize = 64 << 10;

/// Writes the seeds of a target into a directory.
pub fn write(target: &str, directory: &Path, corpus: &Path) -> io::Result<()> {
    let mut seeds = own(target);
    if corpus.is_dir() {
        seeds.extend(foreign(target, corpus));
    }
    seeds.retain(|seed| seed.len() <= SEED_BYTES_MAX);
    fs::create_dir_all(directory)?;
    for (number, seed) in seeds.iter().take(SEEDS_MAX).enumerate() {
        fs::write(directory.join(number.to_string()), seed)?;
    }
    Ok(())
}

fn own(target: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match target {
        "challenge" => &[
            "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\", Basic realm=\"x\\\"y\"",
            "Negotiate abc==, Digest a=b",
            "</v2/_catalog?n=2&last=a>; rel=\"next\"; title=x",
        ],
        "docker_config" => &[
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"r.io/a":{"identitytoken":"t"},"localhost:5000":{"username":"u","password":"p"}},"credHelpers":{"x.io":"y"},"credsStore":"","HttpHeaders":{"a":"b"}}"#,
        ],
        "docker_daemon" => &[
            r#"{"insecure-registries":["10.0.0.0/8","r.io:5000","::1/128"],"registry-mirrors":["https://m.io/p"]}"#,
        ],
        "dockerfile" => &[
            "# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM a:${V} AS b\nONBUILD RUN x\nFROM b\nCOPY --from=b --chmod=u=rwX,go-w --exclude=*.o --parents <<A <<-\"B\" c/ ./d/\nx $V\nA\n\ty\nB\n",
            "FROM scratch\nADD --checksum=sha256:0 --keep-git-dir=true https://a/b.git?ref=c#d /e\nHEALTHCHECK --interval=1m30s CMD [\"a\"]\nEXPOSE 1-3/udp\nSTOPSIGNAL SIGTERM\nSHELL [\"a\",\"b\"]\nVOLUME [\"/a\"]\nUSER a:b\nLABEL \"a b\"=c d='e'\n# mica: ttl=1h\nRUN --mount=type=cache,target=/a,sharing=locked,mode=0755 --network=none --security=insecure <<E\n#!/bin/sh\necho ${a:-b}\nE\n",
            "# check=skip=all;error=true\nFROM --platform=$BUILDPLATFORM a\nENV a=$a$a b=${a#x*}\nARG c=${b//x/y}\nWORKDIR ../x\nCMD a\nENTRYPOINT [\"b\", \"\\u00e9\"]\nMAINTAINER x\n",
        ],
        "dockerignore" => &["# x\n*.o\n!a/**/b.o\n/c/[a-z]?\n**\0a/x/b.o", "**/d/*\n!d/\\*\0c/d/e"],
        "documents" => &[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"annotations":{"a":"b"}}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}"#,
            r#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{"Env":["A=b"],"Cmd":["x"],"Healthcheck":{"Test":["NONE"],"Interval":1}},"rootfs":{"type":"layers","diff_ids":["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"]},"history":[{"created_by":"x","empty_layer":true},{"created_by":"y"}]}"#,
            r#"[{"Config":"a.json","RepoTags":["a:b"],"Layers":["c/layer.tar"]}]"#,
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        ],
        "duration" => &["1h30m", "90s", "7d", "1.5ms", "-1us"],
        "fields" => &["type=local,dest=a", "\"a,b\"\"c\",d=e"],
        "git" => &[
            "https://u:pass@h/a.git?ref=b&subdir=c&keep-git-dir=true&submodules=false&checksum=0123#d:e",
            "git@h:a/b.git#c",
            "ssh://git@h:22/a",
            "git://h/a.git",
            "github.com/a/b",
        ],
        "glob" => &["a[^b-d]*?\\*\naxyz*"],
        "hosts_toml" => &[
            "server = \"https://r.io\"\n[host.\"http://m.io:5000/v2\"]\ncapabilities = [\"pull\", \"resolve\"]\nskip_verify = true\nca = [\"a.pem\"]\nclient = [[\"a\", \"b\"]]\noverride_path = true\n[host.\"http://m.io:5000/v2\".header]\na = [\"b\"]\n",
        ],
        "limits" => &["64m", "1.5GiB", "0.25", "nofile=1024:2048", "core=-1", "SIGRTMIN+3", "9"],
        "mount" => &[
            "type=cache,id=a,target=/b,sharing=private,mode=0755,uid=1,ro",
            "type=secret,id=a,env=B,required",
            "type=tmpfs,target=\"/a,b\",size=1.5g",
            "src=$a,from=x,rw",
        ],
        "platform" => &["linux/arm/v7", "windows(10.0.1)/amd64", "amd64", "linux"],
        "published" => &[
            "127.0.0.1:8000-8002:80-82/udp",
            "[::1]::53",
            "target=80,published=8080,protocol=tcp",
            "a:host-gateway",
            "b=::1",
        ],
        "ranges" => &["bytes=0-9", "bytes=-5", "bytes 0-9/10", "0-9", "bytes=18446744073709551615-"],
        "reference" => &[
            "a",
            "docker.io/library/a:b",
            "[::1]:5000/a/b__c@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "localhost/a-b.c:D",
        ],
        "registries_conf" => &[
            "unqualified-search-registries = [\"r.io\"]\nshort-name-mode = \"permissive\"\ncredential-helpers = [\"containers-auth.json\"]\n[aliases]\n\"a\" = \"r.io/x/a\"\n[[registry]]\nprefix = \"*.io\"\nlocation = \"m.io/p\"\ninsecure = true\nblocked = false\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"n.io\"\npull-from-mirror = \"tag-only\"\n",
            "[registries.search]\nregistries = [\"r.io\"]\n[registries.insecure]\nregistries = []\n[registries.block]\nregistries = [\"x\"]\n",
        ],
        "replies" => &[
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"m","detail":[{"Type":"repository"}]}]}"#,
            r#"{"token":"t","access_token":"u","expires_in":300,"issued_at":"2024-01-01T00:00:00Z","refresh_token":"r"}"#,
        ],
        "route" => &[
            "/v2/",
            "/v2/a/b/manifests/c",
            "/v2/a/blobs/uploads/?mount=sha256:0&from=b%2Fc",
            "/v2/_catalog?n=2&last=a",
            "/v2/a/tags/list",
            "/v2/a/referrers/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a?artifactType=x",
        ],
        "volume" => &[
            "a:/b:ro,z",
            "type=bind,source=/a,target=/b,readonly,bind-propagation=rshared",
            "/a:size=64m,mode=1777",
            "type=volume,volume-subpath=a,dst=/b",
        ],
        "words" => &[
            "a=b c\tv=x/y\n${a:-${v}} $a'$v'\"\\$v\"",
            "v=xxyx\n${v#x*}${v%%x}${v/x/z}${v//x?/}${w:?e}${w+x}",
        ],
        _ => &[],
    };
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "tar" => seeds.push(archive()),
        "compressed" => {
            seeds.push(zstd::bulk::compress(b"aaaaaaaaaaaaaaaaab", 1).unwrap_or_default());
            seeds.push(GZIP.to_vec());
            seeds.push(BZIP2.to_vec());
            seeds.push(XZ.to_vec());
        }
        "index" => {
            let encoded = Index::new(entries()).map(|index| index.encode()).unwrap_or_default();
            let start = Index::from_sorted(Vec::new()).encode().len() - 33;
            seeds.push(encoded.get(start..encoded.len() - 32).unwrap_or_default().to_vec());
        }
        _ => {}
    }
    seeds
}

/// `a` and its end of line, by gzip, bzip2 and xz.
const GZIP: &[u8] = &[31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 75, 228, 2, 0, 7, 161, 234, 221, 2, 0, 0, 0];
const BZIP2: &[u8] = &[
    66, 90, 104, 57, 49, 65, 89, 38, 83, 89, 99, 62, 214, 226, 0, 0, 0, 193, 0, 0, 16, 32, 0, 32, 0, 33, 0,
    130, 177, 119, 36, 83, 133, 9, 6, 51, 237, 110, 32,
];
const XZ: &[u8] = &[
    253, 55, 122, 88, 90, 0, 0, 4, 230, 214, 180, 70, 2, 0, 33, 1, 22, 0, 0, 0, 116, 47, 229, 163, 1, 0, 1,
    97, 10, 0, 0, 0, 19, 71, 63, 184, 147, 157, 69, 212, 0, 1, 26, 2, 220, 46, 165, 126, 31, 182, 243, 125,
    1, 0, 0, 0, 0, 4, 89, 90,
];

fn entries() -> Vec<Entry> {
    let entry = |path: &str, kind: Kind| Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Time { seconds: -5, nanoseconds: 7 },
        xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
    };
    vec![
        entry("", Kind::Directory { opaque: false, implied: false }),
        entry("a", Kind::File { size: 3, content: Some([7; 32]) }),
        entry("b", Kind::Symlink { target: b"a".to_vec() }),
        entry("c", Kind::Hardlink { target: b"a".to_vec() }),
        entry("d", Kind::CharDevice { rdev: (1, 3) }),
        entry("e", Kind::Whiteout),
    ]
}

/// A tar with a file, a link, a header of PAX and a long name of GNU.
fn archive() -> Vec<u8> {
    let mut out = Vec::new();
    let mut member = |name: &str, flag: u8, content: &[u8]| {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| {
            for (to, from) in block.iter_mut().skip(at).zip(text) {
                *to = *from;
            }
        };
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000001\0");
        put(116, b"0000001\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[flag]);
        put(157, if flag == b'1' || flag == b'2' { b"a" } else { b"" });
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        for (to, from) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *to = from;
        }
        out.extend_from_slice(&block);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    };
    member("a", b'0', b"content");
    member("b", b'1', b"");
    member("c", b'2', b"");
    member("x", b'x', b"12 path=d/e\n24 SCHILY.xattr.user.a=b\n20 mtime=1234567.5\n");
    member("d", b'0', b"");
    member("././@LongLink", b'L', b"long/name\0");
    member("l", b'0', b"x");
    member("f/", b'5', b"");
    out.resize(out.len() + 1024, 0);
    out
}

/// Inputs of foreign projects' tests.
fn foreign(target: &str, corpus: &Path) -> Vec<Vec<u8>> {
    let cases = |name: &str| -> Vec<Value> {
        let text = fs::read(corpus.join("vectors").join(name)).unwrap_or_default();
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        value.get("cases").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let texts = |name: &str| -> Vec<Vec<u8>> {
        let text = |case: &Value| Some(case.get("in")?.as_str()?.as_bytes().to_vec());
        cases(name).iter().filter_map(text).collect()
    };
    match target {
        "reference" => texts("image-references.json"),
        "platform" => texts("platforms.json"),
        "documents" => texts("image-spec-json.json"),
        "limits" => [texts("size-strings.json"), texts("ulimits.json")].concat(),
        "git" => texts("git-contexts.json"),
        "dockerignore" => {
            let mut seeds = texts("ignorefile.json");
            for case in cases("ignore-patterns.json") {
                let list = |key: &str| -> Vec<String> {
                    let values = case.get(key).and_then(Value::as_array).into_iter().flatten();
                    values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
                };
                let rules = list("patterns").join("\n");
                seeds
                    .extend(list("paths").iter().take(2).map(|path| format!("{rules}\0{path}").into_bytes()));
            }
            seeds
        }
        "words" => {
            let word = |case: &Value| {
                let variables = case.get("env").and_then(Value::as_array).into_iter().flatten();
                let variables: Vec<&str> = variables.filter_map(Value::as_str).collect();
                Some(format!("{}\n{}", variables.join("\t"), case.get("in")?.as_str()?).into_bytes())
            };
            cases("shell-words.json").iter().filter_map(word).collect()
        }
        "dockerfile" => dockerfiles(&corpus.join("dockerfiles")),
        "tar" => files(&corpus.join("archives")),
        _ => Vec::new(),
    }
}

fn dockerfiles(directory: &Path) -> Vec<Vec<u8>> {
    let mut seeds = files(&directory.join("real"));
    for kind in ["parser-testfiles", "parser-testfiles-negative"] {
        let cases = fs::read_dir(directory.join(kind)).into_iter().flatten().flatten();
        seeds.extend(cases.filter_map(|case| fs::read(case.path().join("Dockerfile")).ok()));
    }
    let text = fs::read(directory.join("inline.json")).unwrap_or_default();
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    let cases = value.get("cases").and_then(Value::as_array).cloned().unwrap_or_default();
    let strings = cases.iter().filter_map(|case| case.as_object()).flatten();
    seeds.extend(
        strings
            .filter_map(|(_, value)| Some(value.as_str()?.as_bytes().to_vec()))
            .filter(|text| text.contains(&b'\n')),
    );
    seeds
}

fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read(entry.path()).ok()).collect()
}
