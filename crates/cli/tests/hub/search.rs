use mica_testkit::{FakeOptions, Found};

use crate::support::{World, check_says};

fn world() -> World {
    let found = |name: &str, description: &str, stars: u64, official: bool| Found {
        name: name.to_owned(),
        description: description.to_owned(),
        stars,
        official,
    };
    World::with(FakeOptions {
        search: vec![
            found("node", "Node.js is a JavaScript-based platform for server-side use", 13_000, true),
            found("me/node", "mine", 3, false),
            found("other/node-red", "", 0, false),
        ],
        ..FakeOptions::default()
    })
}

#[test]
fn tables_filters_and_templates() {
    let world = world();
    let check = |words: &[&str], expect: &str| {
        assert_eq!(world.stdout(&[&["search"], words].concat()), expect, "{words:?}");
    };
    check(
        &["node"],
        "NAME             DESCRIPTION                                     STARS     OFFICIAL\n\
         node             Node.js is a JavaScript-based platform for s…   13000     [OK]\n\
         me/node          mine                                            3         \n\
         other/node-red                                                   0         \n",
    );
    check(
        &["--filter", "is-official=true", "--no-trunc", "node"],
        "NAME      DESCRIPTION                                                  STARS     OFFICIAL\n\
         node      Node.js is a JavaScript-based platform for server-side use   13000     [OK]\n",
    );
    check(&["--format", "{{.Name}} {{.StarCount}}", "-f", "stars=3", "node"], "node 13000\nme/node 3\n");
    check(
        &["--format", "table {{.Name}}\\t{{.IsOfficial}}", "--limit", "1", "node"],
        "NAME      OFFICIAL\nnode      [OK]\n",
    );
    check(
        &["--format", "json", "-f", "is-official=false", "-f", "stars=1", "node"],
        "{\"Description\":\"mine\",\"IsAutomated\":\"false\",\"IsOfficial\":\"false\",\"Name\":\"me/node\",\"StarCount\":\"3\"}\n",
    );
    check(&["nothing-like-it"], "NAME      DESCRIPTION   STARS     OFFICIAL\n");
    // The same registry under its own name: names are such as `pull` takes.
    let own = format!("{}/node", world.hub.host());
    check(&["--format", "{{.Name}}", "-f", "is-official=1", &own], &format!("{own}\n"));
}

#[test]
fn refused_searches() {
    let world = world();
    let check = |words: &[&str], code: i32, expect: &[&str]| {
        check_says(&world.mica.fails(&[&["search"], words].concat(), code), expect);
    };
    check(&["-f", "name=x", "node"], 1, &["invalid filter `name=x`", "is-official, stars"]);
    check(&["--limit", "101", "node"], 1, &["limit 101 is outside the range of [1, 100]"]);
    check(&["--format", "{{.Nope}}", "node"], 1, &["`Nope`"]);
    check(&[], 2, &["TERM"]);
    let without = World::new();
    check_says(
        &without.mica.fails(&["search", "node"], 1),
        &["error: registry `docker.io` cannot be searched: ", "hint: `mica tags NAME`"],
    );
    check(&["127.0.0.1:1/x"], 1, &["127.0.0.1:1", "does a registry listen at"]);
}
