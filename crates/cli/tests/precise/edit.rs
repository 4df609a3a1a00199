//! Random changes of a scenario, each what a person or a base's maintainer would do between two builds.

use mica_testkit::Random;

use crate::scenario::{Extra, Item, Items, Scenario, Stage, put, remove};
use crate::steps::{PLACES, content, item, line, new_path, pick};

const TAR_NAME: &str = "archive.tar";

/// A scenario to start from, with one to three stages.
pub fn first(random: &mut Random, counter: &mut u64) -> Scenario {
    let mut scenario = Scenario::default();
    for place in PLACES {
        put(&mut scenario.base, place, Item::Dir { mode: 0o755 });
    }
    for _ in 0..12 {
        change_base(random, &mut scenario);
    }
    for _ in 0..12 {
        change_context(random, &mut scenario);
    }
    archive(random, &mut scenario);
    let stages = 1 + random.below(3);
    for stage in 0..stages as usize {
        scenario.stages.push(Stage { lines: vec!["COPY . /app".into()] });
        for _ in 0..3 + random.below(5) {
            *counter += 1;
            let line = line(random, &scenario, stage, *counter);
            scenario.stages[stage].lines.push(line);
        }
    }
    scenario
}

/// Changes something; the name of what it was is for failure messages.
pub fn edit(random: &mut Random, scenario: &mut Scenario, counter: &mut u64) -> &'static str {
    match random.below(20) {
        0..=10 => change_context(random, scenario),
        11..=14 => change_base(random, scenario),
        15..=18 => change_dockerfile(random, scenario, counter),
        _ => match random.below(3) {
            0 => {
                scenario.level = random.below(3);
                "build argument"
            }
            1 => {
                scenario.ignored = match random.below(4) {
                    0 => vec!["**/*.txt".into(), "!x.txt".into()],
                    1 => vec!["sub".into()],
                    2 => vec!["Dockerfile".into(), ".dockerignore".into()],
                    _ => Vec::new(),
                };
                ".dockerignore"
            }
            _ => {
                archive(random, scenario);
                "archive"
            }
        },
    }
}

fn any(random: &mut Random, items: &Items) -> Option<String> {
    items.keys().nth(random.below(items.len() as u64) as usize).cloned()
}

fn any_file(random: &mut Random, items: &Items) -> Option<String> {
    let files: Vec<&String> = items
        .iter()
        .filter(|(path, item)| matches!(item, Item::File { .. }) && *path != TAR_NAME)
        .map(|(path, _)| path)
        .collect();
    files.get(random.below(files.len() as u64) as usize).map(|path| (*path).clone())
}

fn change_context(random: &mut Random, scenario: &mut Scenario) -> &'static str {
    if random.below(16) == 0 {
        hard_link(random, &mut scenario.context, "");
        return "hard link in the context";
    }
    change_items(random, scenario, "", true)
}

/// Gives a file another name.
fn hard_link(random: &mut Random, items: &mut Items, place: &str) {
    let Some(target) = any_file(random, items) else { return };
    let path = new_path(random, place);
    if path == target || target.starts_with(&format!("{path}/")) {
        return;
    }
    put(items, &path, Item::Hard(target.clone()));
    // The path may lead through the file, which is a directory now.
    if !matches!(items.get(&target), Some(Item::File { .. })) {
        remove(items, &path);
    }
}

fn change_base(random: &mut Random, scenario: &mut Scenario) -> &'static str {
    let place = pick(random, &PLACES);
    match random.below(8) {
        0 => {
            let Some(path) = any(random, &scenario.base) else { return "nothing" };
            let note = (random.below(2) == 0).then(|| random.below(3) as u8);
            scenario.extra.insert(path, Extra { owner: random.below(3) as u32, note });
            "owner or attribute in the base"
        }
        1 => {
            hard_link(random, &mut scenario.base, place);
            "hard link in the base"
        }
        2 => {
            // Two pairs of equal files; which names belong together is all that changes.
            let same = || Item::File { content: b"content pair\n".to_vec(), mode: 0o644 };
            let names = ["srv/lib/p1", "srv/lib/p2", "srv/lib/p3", "srv/lib/p4"];
            put(&mut scenario.base, "srv/lib", Item::Dir { mode: 0o755 });
            for name in names {
                put(&mut scenario.base, name, same());
            }
            let (one, other) = if random.below(2) == 0 { (1, [2, 3]) } else { (2, [1, 3]) };
            put(&mut scenario.base, names[one], Item::Hard(names[0].into()));
            put(&mut scenario.base, names[other[1]], Item::Hard(names[other[0]].into()));
            "pairs of hard links in the base"
        }
        _ => change_items(random, scenario, place, false),
    }
}

/// Changes the context (at its top, or anywhere) or the base below `place`.
fn change_items(random: &mut Random, scenario: &mut Scenario, place: &str, context: bool) -> &'static str {
    let seen = scenario.clone();
    let items = if context { &mut scenario.context } else { &mut scenario.base };
    match random.below(12) {
        0..=3 => {
            let Some(path) = any_file(random, items) else { return "nothing" };
            let new = content(random, &seen);
            if let Some(Item::File { content, .. }) = items.get_mut(&path) {
                *content = new;
            }
            "content"
        }
        4..=6 => {
            let path = new_path(random, place);
            let item = item(random, &seen);
            put(items, &path, item);
            "new item"
        }
        7 => {
            if let Some(path) = any(random, items).filter(|path| !PLACES.contains(&path.as_str())) {
                remove(items, &path);
            }
            "deletion"
        }
        8 => {
            let Some(path) = any(random, items) else { return "nothing" };
            let new = 0o600 + 0o100 * random.below(2) as u32 + random.below(0o100) as u32;
            match items.get_mut(&path) {
                Some(Item::File { mode, .. }) => *mode = new,
                Some(Item::Dir { mode }) => {
                    *mode = new | [0o111, 0o2111, 0o1111, 0][random.below(4) as usize]
                }
                _ => {}
            }
            "mode"
        }
        9 => {
            // Another spelling of a name.
            let Some(path) = any(random, items).filter(|path| !PLACES.contains(&path.as_str())) else {
                return "nothing";
            };
            let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(one, two)| (one, two));
            let turned: String = name
                .chars()
                .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            let new = if parent.is_empty() { turned } else { format!("{parent}/{turned}") };
            if let Some(item) = items.get(&path).cloned().filter(|item| matches!(item, Item::File { .. })) {
                remove(items, &path);
                put(items, &new, item);
            }
            "case"
        }
        10 => {
            let links: Vec<String> = items
                .iter()
                .filter(|(_, item)| matches!(item, Item::Link(_)))
                .map(|(path, _)| path.clone())
                .collect();
            if links.len() >= 2 {
                let one = links[random.below(links.len() as u64) as usize].clone();
                let other = links[random.below(links.len() as u64) as usize].clone();
                if let (Some(first), Some(second)) = (items.get(&one).cloned(), items.get(&other).cloned()) {
                    items.insert(one, second);
                    items.insert(other, first);
                }
            }
            "links swapped"
        }
        _ => {
            let (one, other) = (any_file(random, items), any_file(random, items));
            if let (Some(one), Some(other)) = (one, other)
                && let (Some(first), Some(second)) = (items.get(&one).cloned(), items.get(&other).cloned())
            {
                items.insert(one, second);
                items.insert(other, first);
            }
            "files swapped"
        }
    }
}

fn change_dockerfile(random: &mut Random, scenario: &mut Scenario, counter: &mut u64) -> &'static str {
    let stage = random.below(scenario.stages.len() as u64) as usize;
    let count = scenario.stages[stage].lines.len() as u64;
    *counter += 1;
    let new = line(random, scenario, stage, *counter);
    let lines = &mut scenario.stages[stage].lines;
    let position = random.below(count.max(1)) as usize;
    match random.below(5) {
        0 => {
            lines.insert(position.min(lines.len()), new);
            "instruction inserted"
        }
        1 if count > 3 => {
            lines.remove(position);
            "instruction removed"
        }
        2 if count > 1 => {
            lines.swap(position, random.below(count) as usize);
            "instructions swapped"
        }
        3 if count > 0 => {
            lines[position] = new;
            "instruction replaced"
        }
        _ => {
            lines.push(new);
            "instruction appended"
        }
    }
}

/// The archive that `ADD` unpacks, of a few random members.
fn archive(random: &mut Random, scenario: &mut Scenario) {
    use mica_testkit::tar::{Entry, Writer};
    let mut tar = Writer::default();
    tar.add(Entry::dir("d"), b"");
    for member in ["d/one", "d/two", "three"] {
        match random.below(4) {
            0 => {
                tar.add(Entry::symlink(member, "one"), b"");
            }
            1 => {}
            _ => {
                let content = content(random, scenario);
                tar.add(Entry::file(member), &content);
            }
        }
    }
    let content = tar.finish();
    put(&mut scenario.context, TAR_NAME, Item::File { content, mode: 0o644 });
}
