//! Values of `--cache-from` and `--cache-to` that make no sense.

use mica_testkit::Mica;

use crate::support::BINARY;

#[test]
fn values_that_make_no_sense() {
    let mica = Mica::new(BINARY);
    let check = |flag: &str, value: &str, expect: &[&str]| {
        let outcome = mica.run(&["build", flag, value, "/nonexistent"]);
        assert!(outcome.code != 0, "{flag} {value}: {outcome}");
        for text in expect {
            assert!(
                outcome.stderr.contains(text),
                "{flag} {value}: does not say `{text}`: {}",
                outcome.stderr
            );
        }
    };
    for flag in ["--cache-from", "--cache-to"] {
        check(flag, "type=s3,region=r", &["`bucket` is missing"]);
        check(flag, "type=s3,bucket=b", &["`region` is missing"]);
        for wrong in [
            "type=s3,bucket=b,region=r,access_key_id=hidden-1,secret_access_key=hidden-2,session_token=hidden-3,x=y",
            "type=s3,bucket=b,region=r,secret_access_key=hidden-2",
            "type=gha,Secret_Access_Key=hidden-2",
            "type=s3,secret_access_key=hidden-2,secret_access_key=hidden-2",
            "type=s3,secret_access_key=hidden-2,nonsense",
            "type=s3,secret_access_key=\"hidden-2\"x",
        ] {
            let outcome = mica.run(&["build", flag, wrong, "/nonexistent"]);
            assert!(outcome.code != 0 && !outcome.stderr.contains("hidden"), "{wrong}: {outcome}");
        }
        for kind in ["gha", "azblob"] {
            check(flag, &format!("type={kind},x=y"), &["not supported", kind, "hint: use `local`"]);
        }
        check(flag, "type=floppy", &["`floppy` is no type of a cache", "`s3`"]);
        check(flag, "type=local", &["is missing"]);
        check(flag, "type=registry", &["`ref` is missing"]);
        check(flag, "type=registry,ref=UPPER", &["lowercase"]);
        check(flag, "src=x,dest=y", &["`type` is missing"]);
        check(flag, "type=local,src=a,dest=b", &["is not known for this type"]);
        check(flag, "type=local,src=a,src=b,dest=c", &["`src` is given twice"]);
    }
    check("--cache-from", "type=inline", &["type=registry,ref=IMAGE"]);
    check("--cache-from", "UPPER", &["lowercase"]);
    check("--cache-from", "type=local,src=a,digest=x", &["`digest`"]);
    check("--cache-from", "type=local,src=a,mode=max", &["`mode` is not known"]);
    check("--cache-to", "type=local,dest=a,mode=all", &["`mode` is `min` or `max`, not `all`"]);
    check("--cache-to", "type=local,dest=a,compression=rar", &["unknown compression `rar`"]);
    check("--cache-to", "type=local,dest=a,ignore-error=perhaps", &["`ignore-error` is `true` or `false`"]);
    check("--cache-to", "type=local,dest=a,image-manifest=false", &["hint: leave"]);
    check("--cache-to", "type=local,dest=a,compression-level=99", &["compression-level"]);
}
