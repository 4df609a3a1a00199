//! `mica manifest inspect`: what a registry has under a name, or a list that is put together here.
//!
//! docker's output: a manifest's own bytes, indented with tabs; a list's with three blanks; with `-v`, descriptors and the
//! manifests themselves.

use base64::Engine as _;
use mica_image::{ListMember, ManifestList, remote_manifest};
use mica_oci::{indent_json, media_type};

use crate::commands::remote::{client_for, parse_reference};
use crate::error::CliError;
use crate::format::output::print;
use crate::session::Session;

const TAB: &str = "\t";
const BLANKS: &str = "   ";

/// Flags of `mica manifest inspect`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "mica manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST")]
pub(crate) struct InspectArgs {
    /// Speak plain http to this registry, or take any certificate
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    /// A manifest or list; or a local list, and a manifest of it
    #[arg(value_name = "MANIFEST", required = true, num_args = 1..=2)]
    names: Vec<String>,
}

/// Shows a manifest or list.
pub(crate) fn run(args: InspectArgs, session: &Session) -> Result<u8, CliError> {
    let names = args.names.iter().map(|name| parse_reference(name)).collect::<Result<Vec<_>, _>>()?;
    let text = match names.as_slice() {
        [list, member] => {
            let list = ManifestList::require(&session.read_store()?, list)?;
            let member = list.member(member)?;
            match args.verbose {
                true => verbose_manifest(member)?,
                false => indent_json(member.manifest.as_bytes(), TAB),
            }
        }
        [name, ..] => match ManifestList::find(&session.read_store()?, name)? {
            Some(list) if args.verbose => verbose_list(&list.members)?,
            Some(list) => indent_json(&list.document().1, BLANKS),
            None => {
                let name = name.with_default_tag();
                let client = client_for(args.insecure, std::slice::from_ref(&name))?;
                let remote = remote_manifest(&client, &name, args.verbose)?;
                match (args.verbose, remote.is_index(), remote.members.as_slice()) {
                    (true, false, [member]) => verbose_manifest(member)?,
                    (true, _, members) => verbose_list(members)?,
                    (false, true, _) => indent_json(&remote.bytes, BLANKS),
                    (false, false, _) => indent_json(&remote.bytes, TAB),
                }
            }
        },
        [] => return Ok(0),
    };
    print(&format!("{}\n", String::from_utf8_lossy(&text)))?;
    Ok(0)
}

fn verbose_list(members: &[ListMember]) -> Result<Vec<u8>, CliError> {
    let members = members.iter().map(verbose).collect::<Result<Vec<_>, _>>()?;
    Ok(indent_json(format!("[{}]", members.join(",")).as_bytes(), TAB))
}

fn verbose_manifest(member: &ListMember) -> Result<Vec<u8>, CliError> {
    Ok(indent_json(verbose(member)?.as_bytes(), TAB))
}

/// As docker's `ImageManifest` is written. The manifest is put in as it is, so that fields keep their order.
fn verbose(member: &ListMember) -> Result<String, CliError> {
    let field = match media_type::is_docker(&member.descriptor.media_type) {
        true => "SchemaV2Manifest",
        false => "OCIManifest",
    };
    let raw = base64::engine::general_purpose::STANDARD.encode(&member.manifest);
    Ok(format!(
        r#"{{"Ref":{},"Descriptor":{},"Raw":"{raw}","{field}":{}}}"#,
        serde_json::to_string(&member.reference.canonical())?,
        serde_json::to_string(&member.descriptor)?,
        member.manifest
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::{Descriptor, Platform, Reference};

    #[test]
    fn as_docker_shows_it() {
        let manifest = "{ \"schemaVersion\": 2, \"z\": [], \"a\": 1 }";
        let member = ListMember {
            reference: Reference::parse("example.com/alpine:3.0").unwrap(),
            descriptor: Descriptor {
                platform: Some(Platform::with_variant("linux", "arm", "v7")),
                ..Descriptor::of(media_type::DOCKER_MANIFEST, manifest.as_bytes())
            },
            manifest: manifest.to_owned(),
        };
        let expect = "{
\t\"Ref\": \"example.com/alpine:3.0\",
\t\"Descriptor\": {
\t\t\"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",
\t\t\"digest\": \"DIGEST\",
\t\t\"size\": 39,
\t\t\"platform\": {
\t\t\t\"architecture\": \"arm\",
\t\t\t\"os\": \"linux\",
\t\t\t\"variant\": \"v7\"
\t\t}
\t},
\t\"Raw\": \"eyAic2NoZW1hVmVyc2lvbiI6IDIsICJ6IjogW10sICJhIjogMSB9\",
\t\"SchemaV2Manifest\": {
\t\t\"schemaVersion\": 2,
\t\t\"z\": [],
\t\t\"a\": 1
\t}
}";
        let shown = String::from_utf8(verbose_manifest(&member).unwrap()).unwrap();
        assert_eq!(shown, expect.replace("DIGEST", member.descriptor.digest.as_str()));
        let list = String::from_utf8(verbose_list(&[member.clone(), member]).unwrap()).unwrap();
        assert!(list.starts_with("[\n\t{\n\t\t\"Ref\"") && list.ends_with("\t}\n]"), "{list}");
    }
}
