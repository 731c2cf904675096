//! The rules of ARCHITECTURE.md, read off the source: which way modules may use each other, where outside libraries may appear,
//! and that what is declared in two places agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sluice::config::reference;
use sluice::topics::Spec;

/// Modules from the bottom up. A module uses what stands in a row above its own, never its own row or one below.
const ROWS: &[&[&str]] = &[
    &["fault", "clock", "failpoint", "tls"],
    &["event"],
    &["retry", "shutdown", "config", "lock"],
    &["telemetry"],
    &["kafka", "registry"],
    &["control"],
    &["destinations", "topics"],
    &["deps"],
    ROLES,
    &["app"],
    &["dev"],
    &["cli"],
    &["main"],
];

/// They meet only in topics.
const ROLES: &[&str] = &["gateway", "processor", "router", "warehouse"];

/// Outside libraries and the modules that may know them.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka"]),
    ("rdkafka_sys", &["kafka"]),
    ("apache_avro", &["event"]),
    ("serde_avro_fast", &["event"]),
    ("arrow", &["warehouse"]),
    ("parquet", &["warehouse"]),
    ("object_store", &["warehouse"]),
    ("rusqlite", &["warehouse"]),
    ("tokio_postgres", &["warehouse"]),
    ("axum", &["gateway", "telemetry", "dev"]),
    ("utoipa", &["gateway"]),
    (
        "reqwest",
        &["destinations", "control", "gateway", "registry"],
    ),
    ("multer", &["gateway"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("anyhow", &["app", "cli", "main"]),
    ("prometheus", &["telemetry"]),
    ("schemars", &["config"]),
];

/// Longer than this and nobody reads it to the end.
const LINES_MAX: usize = 800;
/// Longer than this deserves a look.
const LINES_TO_NAME: usize = 400;

struct File {
    path: PathBuf,
    module: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect(path)
}

/// Every file under `src`, with its first path element as its module.
fn sources() -> Vec<File> {
    let mut files = Vec::new();
    let mut open = vec![root().join("src")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inner = path.strip_prefix(root().join("src")).unwrap();
                let first = inner.iter().next().unwrap().to_str().unwrap();
                files.push(File {
                    module: first.trim_end_matches(".rs").to_owned(),
                    text: std::fs::read_to_string(&path).unwrap(),
                    path: inner.to_owned(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

/// The lines that end up in the binary: no comments, no unit tests (which stand at the end of a file or in a file of theirs).
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let name = file.path.file_name().unwrap().to_str().unwrap();
    let is_test = name == "tests.rs" || name.ends_with("_tests.rs") || name == "testing.rs";
    let end = if is_test { 0 } else { usize::MAX };
    let lines: Vec<&str> = file.text.lines().take(end).collect();
    let tests = lines.windows(2).position(|two| {
        let module = two[1].contains("mod ") && two[1].ends_with('{');
        two[0].starts_with("#[cfg(test)]") && (module || two[1].starts_with("#[path"))
    });
    lines
        .into_iter()
        .enumerate()
        .take(tests.unwrap_or(usize::MAX))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

/// The words that follow `stem` (which ends in `::`) wherever it begins a path in `line`; for `stem::{a::b, c}` all of them.
fn after<'a>(line: &'a str, stem: &str) -> Vec<&'a str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in line.match_indices(stem) {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| inside(c) || c == ':') {
            continue;
        }
        let rest = &line[at + stem.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(
                group
                    .split(',')
                    .map(|one| one.trim().split(|c| !inside(c)).next().unwrap_or_default())
                    .filter(|one| !one.is_empty()),
            ),
            None => found.extend(rest.split(|c| !inside(c)).next()),
        }
    }
    found
}

#[test]
fn a_file_is_looked_at_up_to_its_unit_tests() {
    let lines = |text: &str| {
        let file = File {
            path: "a/mod.rs".into(),
            module: "a".to_owned(),
            text: text.to_owned(),
        };
        code(&file).map(|(at, _)| at).collect::<Vec<_>>()
    };
    // What is only declared for tests at the top hides nothing of what follows.
    let declared = "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub mod testing;\nuse x;\n";
    assert_eq!(lines(declared), [1, 2, 3, 4, 5]);
    let inline = format!("{declared}// why\n#[cfg(test)]\nmod tests {{\nuse y;\n}}\n");
    assert_eq!(lines(&inline), [1, 2, 3, 4, 5]);
    let elsewhere = format!("{declared}#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n");
    assert_eq!(lines(&elsewhere), [1, 2, 3, 4, 5]);
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

#[test]
fn every_module_has_its_place_among_the_arrows() {
    let known: BTreeSet<&str> = ROWS.iter().flat_map(|row| row.iter().copied()).collect();
    let found: BTreeSet<String> = sources()
        .into_iter()
        .map(|f| f.module)
        .filter(|m| m != "lib")
        .collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(
        found, known,
        "give a new module a row in ROWS, and in ARCHITECTURE.md"
    );
}

#[test]
fn arrows_point_one_way_and_roles_do_not_know_each_other() {
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for file in sources().iter().filter(|f| f.module != "lib") {
        let own = row(&file.module).unwrap();
        for (line, text) in code(file) {
            for used in after(text, "crate::")
                .into_iter()
                .chain(after(text, "sluice::"))
            {
                // The macro is exported at the root of the crate.
                let used = if used == "metrics" { "telemetry" } else { used };
                let Some(other) = row(used).filter(|_| used != file.module) else {
                    continue;
                };
                arrows += 1;
                if other >= own {
                    let both_roles = ROLES.contains(&used) && ROLES.contains(&file.module.as_str());
                    let why = if both_roles {
                        "roles meet only in topics"
                    } else {
                        "the arrow points the wrong way"
                    };
                    wrong.push(format!(
                        "src/{}:{line} uses crate::{used}: {why}",
                        file.path.display()
                    ));
                }
            }
        }
    }
    assert!(
        arrows > 100,
        "only {arrows} arrows found: the scan is broken"
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn an_outside_library_is_known_to_its_own_module_only() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in &sources() {
        for (line, text) in code(file) {
            for (library, homes) in LIBRARIES {
                if after(text, &format!("{library}::")).is_empty() {
                    continue;
                }
                seen.insert(*library);
                if !homes.contains(&file.module.as_str()) {
                    wrong.push(format!(
                        "src/{}:{line} uses {library}, which belongs to {}",
                        file.path.display(),
                        homes.join(" and ")
                    ));
                }
            }
        }
    }
    assert!(
        seen.contains("rdkafka") && seen.contains("clap"),
        "{seen:?}: the scan is broken"
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_path_is_found_where_it_begins_and_only_there() {
    assert_eq!(after("use crate::event::Topic;", "crate::"), ["event"]);
    assert_eq!(
        after("    let x: crate::a::B = crate::c::d();", "crate::"),
        ["a", "c"]
    );
    assert_eq!(
        after(
            "use crate::{clock::Clock, event, fault::{A, B}};",
            "crate::"
        ),
        ["clock", "event", "fault", "B"]
    );
    assert!(after("use super::arrow::x; use my_arrow::y;", "arrow::").is_empty());
}

#[test]
fn every_error_answers_what_now() {
    let files = sources();
    let all: String = files.iter().map(|f| f.text.as_str()).collect();
    let mut silent = Vec::new();
    let mut found = 0;
    for file in &files {
        let mut derived = false;
        for (_, line) in code(file) {
            derived |= line.contains("thiserror::Error");
            // A struct is the detail of an enum, or is turned into one by its caller.
            derived &= !line.contains("struct ");
            let Some(name) = line.split("enum ").nth(1).filter(|_| derived) else {
                continue;
            };
            derived = false;
            found += 1;
            let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            if !all.contains(&format!("Classify for {name} ")) {
                silent.push(format!("src/{}: {name}", file.path.display()));
            }
        }
    }
    assert!(found > 5, "only {found} errors found: the scan is broken");
    assert!(
        silent.is_empty(),
        "implement fault::Classify for:\n{}",
        silent.join("\n")
    );
}

#[test]
fn topics_in_code_and_topics_yaml_are_the_same() {
    let text = read("src/event/topic.rs");
    let body = text
        .split("fn family")
        .nth(1)
        .unwrap()
        .split("\n    }\n")
        .next()
        .unwrap();
    let families: BTreeSet<&str> = body.split('"').skip(1).step_by(2).collect();
    let spec = Spec::load(None).unwrap();
    assert_eq!(families, spec.names().collect());
}

#[test]
fn every_schema_parses_and_is_used() {
    let codec: String = sources()
        .into_iter()
        .filter(|f| f.module == "event")
        .map(|f| f.text)
        .collect();
    let mut schemas = Vec::new();
    for entry in std::fs::read_dir(root().join("schemas")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            codec.contains(&format!("schemas/{name}\"")),
            "{name} is not included by src/event"
        );
        schemas.push(std::fs::read_to_string(&path).unwrap());
    }
    assert!(schemas.len() >= 5);
    // Together, because they name each other.
    let texts: Vec<&str> = schemas.iter().map(String::as_str).collect();
    let parsed = apache_avro::Schema::parse_list(&texts).unwrap();
    assert_eq!(parsed.len(), schemas.len());
}

#[test]
fn every_setting_says_what_it_means_and_what_its_unit_is() {
    for setting in reference::settings() {
        let key = &setting.key;
        assert!(setting.doc.len() > 10, "{key} has no doc comment");
        let last = key.rsplit('_').next().unwrap();
        let units = BTreeMap::from([("ms", "millisecond"), ("seconds", "second")]);
        if let Some(word) = units.get(last) {
            assert!(
                setting.doc.contains(word),
                "{key}: say {word}s in its doc comment"
            );
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut long: Vec<(usize, PathBuf)> = sources()
        .into_iter()
        .map(|f| (f.text.lines().count(), f.path))
        .filter(|(lines, _)| *lines > LINES_TO_NAME)
        .collect();
    long.sort();
    for (lines, path) in long.iter().rev() {
        println!("{lines:5} src/{}", path.display());
    }
    assert!(
        long.iter().all(|(lines, _)| *lines <= LINES_MAX),
        "split what is above {LINES_MAX} lines: {long:?}"
    );
}
