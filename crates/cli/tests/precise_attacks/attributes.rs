//! Extended attributes and access control lists.

use std::fs;

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Need, bases};

use crate::bench::Bench;

/// `user::rw-`, `user:65534:` with these permissions, `group::---`, `mask::rwx`, `other::---`, as acl(5) has it on disk.
fn access_control_list(permissions: u16) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, permissions, id) in
        [(1_u16, 7_u16, none), (2, permissions, 65534), (4, 0, none), (16, 7, none), (32, 0, none)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// An image with these extended attributes of `/d` (a directory), `/d/e` (one inside) and `/f` (a file of root alone).
fn import_with_xattrs(mica: &Mica, name: &str, xattrs: &[(&str, &str, Vec<u8>)]) {
    let busybox = fs::read(bases::busybox().expect("a base")).expect("a base");
    let mut tar = Writer::from_archive(busybox);
    let of = |path: &str| {
        let of_path = xattrs.iter().filter(|(of, ..)| *of == path);
        of_path.map(|(_, name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    tar.add(Entry { xattrs: of("d"), mode: 0o770, ..Entry::dir("d") }, b"");
    tar.add(Entry { xattrs: of("d/e"), ..Entry::dir("d/e") }, b"");
    tar.add(Entry { xattrs: of("f"), mode: 0o670, ..Entry::file("f") }, b"f\n");
    let file = mica.root().with_extension("tar");
    fs::write(&file, tar.finish()).expect("a tar");
    mica.import(&file, name);
}

/// Name, attributes at first, attributes after the edit, the steps, whether the last has to run again.
type Attributed<'a> =
    (&'a str, &'a [(&'a str, &'a str, Vec<u8>)], &'a [(&'a str, &'a str, Vec<u8>)], &'a str, bool);

#[test]
fn root_extended_attributes_are_inputs_and_kept() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    check_attributes(&bench);
}

#[test]
fn rootless_extended_attributes_are_inputs_and_kept() {
    let Some(bench) = Bench::new(Need::Unprivileged) else { return };
    check_attributes(&bench);
}

fn check_attributes(bench: &Bench) {
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    let (may, may_not) = (access_control_list(7), access_control_list(0));
    let read = "USER nobody\nRUN cat /f >/tmp/out || echo no >/tmp/out";
    let cases: &[Attributed<'_>] = &[
        ("a list that lets in", &[("f", access, may_not.clone())], &[("f", access, may.clone())], read, true),
        ("a list that is not there", &[("f", access, may.clone())], &[], read, true),
        (
            "a list of another file",
            &[("f", access, may.clone())],
            &[("f", access, may.clone()), ("d", access, may.clone())],
            read,
            false,
        ),
        (
            "a list that is inherited",
            &[("d", default, may_not.clone())],
            &[("d", default, may.clone())],
            "RUN touch /d/new; mkdir /d/sub",
            true,
        ),
        (
            "a list that is taken up",
            &[("d", access, may.clone())],
            &[("d", access, may_not.clone())],
            "RUN touch /d/new",
            true,
        ),
        (
            "a list on the way",
            &[("d", access, may.clone())],
            &[("d", access, may_not.clone())],
            "USER nobody\nRUN ls /d >/tmp/out || echo no >/tmp/out",
            true,
        ),
        (
            "an attribute of a file that is written to",
            &[("f", "user.a", b"1".to_vec())],
            &[("f", "user.a", b"2".to_vec())],
            "RUN echo >>/f",
            true,
        ),
        (
            "an attribute of a file that is copied",
            &[("f", "user.a", b"1".to_vec())],
            &[("f", "user.a", b"2".to_vec())],
            "COPY --from=attributed /f /out",
            true,
        ),
        (
            "an attribute of a directory that is copied",
            &[("d/e", "user.a", b"1".to_vec())],
            &[("d/e", "user.a", b"2".to_vec())],
            "COPY --from=attributed /d /out",
            true,
        ),
        (
            "an attribute of a directory that a file is copied into",
            &[("d/e", "user.a", b"1".to_vec())],
            &[("d/e", "user.a", b"2".to_vec())],
            "COPY f /d/e/",
            true,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, before, after, steps, runs) in cases {
        let dockerfile = format!("FROM attributed\n{steps}\n");
        import_with_xattrs(&bench.mica, "attributed", before);
        let again = bench.ran_again_after(name, &dockerfile, "echo >f", || {
            import_with_xattrs(&bench.mica, "attributed", after);
        });
        if again != *runs {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "ran again, or did not: {wrong:?}");
}
