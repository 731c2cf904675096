//! What the documents say is what the code does: commands parse, files in them can be read, generated tables are up to date, and
//! every function that is named exists.
//!
//! `SLUICE_UPDATE_DOCS=1 cargo test --test it docs::` writes the generated ones anew.

use std::path::{Path, PathBuf};

use clap::Parser;
use sluice::cli::Cli;
use sluice::config::{self, reference};
use sluice::control::parse_workspace;

use crate::support::command::Bench;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect(name)
}

/// Compares the file with what was generated, or writes it.
fn generated(name: &str, text: &str) {
    if std::env::var_os("SLUICE_UPDATE_DOCS").is_some() {
        std::fs::write(path(name), text).expect(name);
    }
    let found = std::fs::read_to_string(path(name)).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        found == text,
        "{name} is out of date, first at {differs:?}; write it with SLUICE_UPDATE_DOCS=1 cargo test --test it docs::"
    );
}

/// The fenced blocks of a Markdown text with their language.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language, String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((language, mut body))) => {
                body.push_str(line);
                body.push('\n');
                open = Some((language, body));
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_command_in_the_readme_parses() {
    let mut seen = 0;
    for (language, body) in blocks(&read("README.md")) {
        for line in body
            .lines()
            .filter(|line| language == "sh" && line.starts_with("sluice "))
        {
            let words = line.split_whitespace().take_while(|word| *word != "#");
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} commands found");
}

#[test]
fn the_files_in_the_readme_can_be_used() {
    let (mut settings, mut workspaces) = (0, 0);
    for (_, body) in blocks(&read("README.md")) {
        if body.starts_with("# sluice.yaml") {
            let parsed = config::parse("README.md", &body, std::iter::empty()).unwrap();
            parsed.validate().unwrap();
            sluice::topics::fit(&sluice::topics::Spec::load(None).unwrap(), &parsed).unwrap();
            settings += 1;
        }
        if body.starts_with("# workspace.yaml") {
            let workspace = parse_workspace("README.md", &body, 1).unwrap();
            assert_eq!(workspace.destinations().count(), 2);
            workspaces += 1;
        }
    }
    assert_eq!((settings, workspaces), (1, 1));
}

#[test]
fn the_readme_has_the_exit_codes_of_the_command_line() {
    let help = Bench::new("").run(&["--help"]).stdout;
    let table = help.split("Exit codes:").nth(1).unwrap();
    let readme = read("README.md");
    let mut seen = 0;
    for (code, meaning) in table
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
    {
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "the README lacks {row}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md"] {
        for link in read(name).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(path(target).exists(), "{name} links to {target}");
            }
        }
    }
}

#[test]
fn the_list_of_settings_is_up_to_date() {
    let head = "# Settings\n\nEvery key of the settings file; the output of `sluice config reference --markdown`. A variable sets a key too:\n`SLUICE__GATEWAY__LISTEN` sets `gateway.listen`.\n\n";
    generated(
        "docs/configuration.md",
        &format!("{head}{}", reference::markdown()),
    );
}

#[test]
fn the_list_of_metrics_is_up_to_date() {
    let head = "# Metrics\n\nServed as `/metrics` on `admin.listen`, for Prometheus. Times are in seconds. The process's own (CPU, memory, file descriptors) come on top.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n";
    let rows: Vec<String> = metrics().into_iter().map(|metric| metric.row()).collect();
    assert!(rows.len() > 10, "only {} metrics found", rows.len());
    generated("docs/metrics.md", &format!("{head}{}\n", rows.join("\n")));
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    name: String,
    kind: String,
    labels: String,
    meaning: String,
}

impl Metric {
    fn row(&self) -> String {
        let Self {
            name,
            kind,
            labels,
            meaning,
        } = self;
        let labels = labels.replace('"', "`");
        format!(
            "| `{name}` | {kind} | {labels} | {} |",
            meaning.replace('|', "\\|")
        )
    }
}

/// The fields of every `metrics!` block of the source, as the macro names them.
fn metrics() -> Vec<Metric> {
    let mut found = Vec::new();
    let mut open = vec![path("src")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                open.push(file);
            } else {
                found.extend(in_file(&std::fs::read_to_string(file).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn in_file(text: &str) -> Vec<Metric> {
    let mut found = Vec::new();
    let mut role: Option<String> = None;
    let mut meaning = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            meaning.push_str(doc);
            continue;
        }
        let name = line
            .strip_suffix("\") {")
            .and_then(|l| l.strip_prefix("pub struct "));
        if let Some((_, word)) = name.and_then(|l| l.split_once("(\"")) {
            role = Some(word.to_owned());
        } else if line == "}" {
            role = None;
        } else if let Some(role) = &role
            && let Some((field, rest)) = line.split_once(": ")
            && let Some((kind, labels)) = rest
                .trim_end_matches(',')
                .trim_end_matches(']')
                .split_once('[')
        {
            found.push(Metric {
                name: format!("sluice_{role}_{field}"),
                kind: kind.to_owned(),
                labels: labels.to_owned(),
                meaning: meaning.trim().to_owned(),
            });
        }
        meaning.clear();
    }
    found
}

#[test]
fn every_function_on_the_walk_exists() {
    let text = read("ARCHITECTURE.md");
    let mut missing = vec!["gateway/", "processor/", "router/", "warehouse/"];
    let mut seen = 0;
    for name in text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains(".rs::"))
    {
        let (file, function) = name.split_once("::").unwrap();
        let source = read(&format!("src/{file}"));
        let function = function.rsplit("::").next().unwrap();
        let found = ["(", "<"]
            .iter()
            .any(|open| source.contains(&format!("fn {function}{open}")));
        assert!(found, "ARCHITECTURE.md names {name}, which does not exist");
        missing.retain(|role| !file.starts_with(role));
        seen += 1;
    }
    assert!(seen >= 55, "only {seen} functions named");
    assert!(missing.is_empty(), "no function of {missing:?} is named");
}
