//! The command tree as a whole.

use super::*;

fn walk(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
    visit(path, command);
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        walk(sub, &format!("{path} {}", sub.get_name()), visit);
    }
}

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_every_flag_says_what_it_is_for() {
    let mut root = Cli::command();
    root.build();
    let mut seen = 0;
    walk(&root, "sluice", &mut |path, command| {
        seen += 1;
        assert!(command.get_about().is_some(), "{path} has no description");
        for arg in command.get_arguments() {
            let id = arg.get_id();
            assert!(arg.get_help().is_some(), "{path} --{id} has no description");
        }
    });
    assert!(seen >= 12, "only {seen} commands found");
}

#[test]
fn every_command_that_does_something_has_an_example_that_parses() {
    let mut root = Cli::command();
    root.build();
    let mut examples = Vec::new();
    walk(&root, "sluice", &mut |path, command| {
        if command.has_subcommands() {
            return;
        }
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let own: Vec<String> = help
            .lines()
            .filter_map(|line| {
                line.find("sluice ")
                    .filter(|_| line.starts_with("  "))
                    .map(|at| line[at..].to_owned())
            })
            .collect();
        assert!(!own.is_empty(), "{path} has no example in its help");
        examples.extend(own);
    });
    for example in examples {
        let words: Vec<&str> = example
            .split_whitespace()
            .take_while(|word| !matches!(*word, "|" | ">" | "#" | "&&"))
            .collect();
        if let Err(error) = Cli::try_parse_from(&words) {
            panic!("the example {example:?} does not parse: {error}");
        }
    }
}

#[test]
fn the_table_of_exit_codes_names_every_code() {
    let all = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Config,
        Exit::Connect,
        Exit::Partial,
        Exit::Changes,
        Exit::Interrupted,
    ];
    for exit in all {
        let code = (exit as u8).to_string();
        assert!(
            exit::TABLE
                .lines()
                .any(|line| line.trim_start().starts_with(&format!("{code}  "))),
            "{code}"
        );
    }
}
