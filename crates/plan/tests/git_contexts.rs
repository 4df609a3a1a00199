//! Addresses of git against recorded answers of BuildKit.

mod common;

use mica_plan::{GitAddress, GitTimes};
use serde_json::{Value, json};

#[test]
fn addresses_of_git_are_read_as_recorded() {
    let Some(vectors) = common::corpus("vectors/git-contexts.json") else { return };
    let vectors: Value = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    let mut wrong = Vec::new();
    for case in cases {
        let found = answer(case["in"].as_str().unwrap());
        if found != *case {
            wrong.push(format!("expected {case}\n   found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What mica makes of a text, written as the vectors are.
fn answer(text: &str) -> Value {
    let address = match GitAddress::parse(text) {
        Ok(address) => address,
        Err(error) => return json!({ "in": text, "is_git": error.is_git(), "error": error.to_string() }),
    };
    let times = match address.times {
        GitTimes::Unsaid => "",
        GitTimes::Checkout => "checkout",
        GitTimes::Commit => "commit",
    };
    json!({
        "in": text,
        "is_git": true,
        "ref": {
            "Checksum": address.checksum,
            "FetchByCommit": address.fetch_by_commit,
            "IndistinguishableFromLocal": address.could_be_path,
            "KeepGitDir": address.keep_git_dir,
            "MTime": times,
            "Ref": address.reference,
            "Remote": address.remote,
            "ShortName": address.short_name,
            "SubDir": address.subdirectory,
            "Submodules": address.submodules,
            "UnencryptedTCP": address.is_unencrypted,
        }
    })
}
