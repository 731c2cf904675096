//! `sluice config …` and what all commands have in common, as a script sees it.

use std::io::Read;
use std::process::Stdio;

use crate::support::command::Bench;

#[test]
fn good_settings_pass_and_wrong_ones_end_with_3_and_name_the_key() {
    let bench = Bench::new("topics: {prefix: shop.}");
    let good = bench.run(&["config", "check"]);
    assert_eq!((good.code, good.stderr.as_str()), (0, ""), "{good:?}");
    assert_eq!(good.stdout, "sluice.yaml: ok\n");
    let wrong = [
        ("gateway: {prot: 1}", "prot"),
        ("topics: {prefix: 'a b'}", "topics.prefix"),
        ("topics: {file: nowhere.yaml}", "nowhere.yaml"),
        ("mode: sometimes", "mode"),
        ("topics: [", "sluice.yaml"),
        ("kafka: {schema_registry: {ulr: 'http://r'}}", "ulr"),
        ("kafka: {schema_registry: {register: true}}", "url"),
        (
            "kafka: {schema_registry: {url: 'registry:8081'}}",
            "kafka.schema_registry.url",
        ),
    ];
    for (settings, names) in wrong {
        bench.write("sluice.yaml", settings);
        let ran = bench.run(&["config", "check"]);
        assert_eq!(ran.code, 3, "{settings}: {ran:?}");
        assert!(
            ran.stdout.is_empty(),
            "{settings}: data on a failure: {ran:?}"
        );
        assert!(ran.stderr.contains(names), "{settings}: {ran:?}");
    }
    let missing = bench.run(&["config", "check", "--config", "absent.yaml"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    assert!(missing.stderr.contains("absent.yaml"), "{missing:?}");
}

#[test]
fn a_topics_file_of_ones_own_is_checked_too() {
    let bench = Bench::new("topics: {file: mine.yaml}");
    bench.write(
        "mine.yaml",
        &sluice::topics::spec::EMBEDDED.replacen(
            "min.insync.replicas: 2",
            "min.insync.replicas: 9",
            1,
        ),
    );
    let ran = bench.run(&["config", "check"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("min.insync.replicas"), "{ran:?}");
}

#[test]
fn a_workspace_file_is_checked_with_the_settings_that_name_its_parts() {
    let exception =
        |name: &str| format!(", router: {{destinations: {{{name}: {{concurrency: 1}}}}}}");
    let hook = "{id: crm, type: WEBHOOK, config: {webhookUrl: 'https://crm.example.com/'}}";
    let broken = "{id: crm, type: WEBHOOK, config: {webhookUrl: nowhere}";
    let cases = [
        (hook.to_owned(), String::new(), None),
        (hook.to_owned(), exception("WEBHOOK"), None),
        (hook.to_owned(), exception("crm"), None),
        (
            hook.to_owned(),
            exception("webhook"),
            Some("router.destinations.webhook"),
        ),
        (
            format!("{broken}}}"),
            String::new(),
            Some("destination crm (WEBHOOK)"),
        ),
        (format!("{broken}, enabled: false}}"), String::new(), None),
        (
            "{id: lake, type: POSTGRES, config: {}}".to_owned(),
            String::new(),
            Some("destination lake (POSTGRES): "),
        ),
        (
            "{id: other, type: NO_SUCH_TYPE}".to_owned(),
            String::new(),
            None,
        ),
        (
            "{type: WEBHOOK}".to_owned(),
            String::new(),
            Some("workspace.yaml"),
        ),
    ];
    for (destination, settings, problem) in cases {
        let bench = Bench::new(&format!(
            "{{workspace: {{file: workspace.yaml}}{settings}}}"
        ));
        bench.write(
            "workspace.yaml",
            &format!("sources: [{{id: web, write_key: KEY}}]\ndestinations: [{destination}]"),
        );
        let ran = bench.run(&["config", "check", "-o", "json"]);
        match problem {
            None => assert_eq!(ran.json()["workspace"], "workspace.yaml", "{destination}"),
            Some(names) => {
                assert_eq!(ran.code, 3, "{destination}: {ran:?}");
                assert!(ran.stderr.contains(names), "{destination}: {ran:?}");
            }
        }
    }
    let ran = Bench::new("workspace: {file: gone.yaml}").run(&["config", "check"]);
    assert!(ran.code == 3 && ran.stderr.contains("gone.yaml"), "{ran:?}");
}

#[test]
fn a_process_that_breaks_its_promises_on_purpose_says_so() {
    let mut bench = Bench::new("admin: {listen: '127.0.0.1:0'}");
    let fault = "router.fault.commit_before_delivery";
    bench.env(
        "SLUICE_FAILPOINTS",
        &format!("{fault}=kill,router.before_send=kill"),
    );
    let said = bench.run(&["router"]).stderr;
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    let named = errors.iter().any(|line| line.contains(fault));
    assert!(named && !said.contains("before_send"), "{said}");
}

#[test]
fn variables_win_over_the_file_and_secrets_print_as_stars() {
    let mut bench = Bench::new(
        "topics: {prefix: file.}\nworkspace: {url: 'http://127.0.0.1:1', token: hunter2}",
    );
    bench.env("SLUICE__TOPICS__PREFIX", "variable.");
    let shown = bench.run(&["config", "show", "-o", "json"]);
    let settings = &shown.json()["settings"];
    assert_eq!(settings["topics"]["prefix"], "variable.");
    assert_eq!(settings["workspace"]["token"], "***");
    let text = bench.run(&["config", "show"]);
    assert!(text.stdout.contains("prefix: variable."), "{text:?}");
    assert!(!text.stdout.contains("hunter2") && !shown.stdout.contains("hunter2"));
    // A section that is not in the file.
    bench.env("SLUICE__KAFKA__SCHEMA_REGISTRY__URL", "http://registry");
    bench.env("SLUICE__KAFKA__SCHEMA_REGISTRY__USERNAME", "sluice");
    bench.env("SLUICE__KAFKA__SCHEMA_REGISTRY__PASSWORD", "hunter3");
    let shown = bench.run(&["config", "show", "-o", "json"]);
    let registry = &shown.json()["settings"]["kafka"]["schema_registry"];
    assert_eq!(registry["url"], "http://registry");
    assert_eq!(registry["register"], true);
    assert_eq!(registry["password"], "***");
    // Text that YAML would read as something else.
    for text in ["0", "12345", "a #b", "a: b"] {
        bench.env("SLUICE__INSTANCE", text);
        let shown = bench.run(&["config", "show", "-o", "json"]);
        assert_eq!(shown.json()["settings"]["instance"], text);
    }
    bench.env("SLUICE__TOPICS__NOPE", "1");
    let wrong = bench.run(&["config", "show"]);
    assert!(
        wrong.code == 3 && wrong.stderr.contains("nope"),
        "{wrong:?}"
    );
}

#[test]
fn what_config_show_prints_is_a_settings_file() {
    let bench = Bench::new("mode: dev");
    let shown = bench.run(&["config", "show"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    bench.write("again.yaml", &shown.stdout);
    let again = bench.run(&["config", "show", "--config", "again.yaml"]);
    assert_eq!(again.stdout, shown.stdout, "{again:?}");
}

#[test]
fn the_reference_lists_every_setting_in_each_format() {
    let bench = Bench::new("");
    let json = bench.run(&["config", "reference", "-o", "json"]).json();
    let settings = json["settings"].as_array().unwrap();
    assert!(settings.len() > 30, "{}", settings.len());
    let (table, markdown) = (
        bench.run(&["config", "reference"]).stdout,
        bench.run(&["config", "reference", "--markdown"]).stdout,
    );
    for setting in settings {
        let key = setting["key"].as_str().unwrap();
        assert!(!setting["meaning"].as_str().unwrap().is_empty(), "{key}");
        assert!(table.contains(key) && markdown.contains(key), "{key}");
    }
}

#[test]
fn the_schemas_are_printed_as_a_registry_gets_them() {
    let bench = Bench::new("");
    let json = bench.run(&["config", "schemas", "-o", "json"]).json();
    let schemas = json["schemas"].as_array().unwrap();
    assert_eq!(schemas.len(), 4, "{schemas:?}");
    let text = bench.run(&["config", "schemas"]).stdout;
    for schema in schemas {
        let subject = schema["subject"].as_str().unwrap();
        let schema = schema["schema"].as_str().unwrap();
        let parsed = apache_avro::Schema::parse_str(schema).unwrap();
        assert_eq!(parsed.name().unwrap().fullname(None), subject);
        assert!(text.contains(schema), "{subject}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_help_with_0() {
    let bench = Bench::new("");
    for wrong in [
        &["gatway"][..],
        &[],
        &["topics", "plan", "--no-such-flag"],
        &["topics", "plan", "-q", "-v"],
    ] {
        let ran = bench.run(wrong);
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{wrong:?}: {ran:?}");
    }
    let help = bench.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Exit codes:") && help.stdout.contains("130  interrupted"));
    let help = bench.run(&["topics", "apply", "--help"]);
    assert!(help.stdout.contains("Examples:"), "{help:?}");
}

#[test]
fn the_version_and_the_completions_are_data() {
    let bench = Bench::new("");
    let version = bench.run(&["version", "-o", "json"]).json();
    assert_eq!(version["sluice"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.run(&["completion", shell]);
        assert!(
            script.code == 0 && script.stdout.contains("warehouse"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let bench = Bench::new("");
    let mut child = bench
        .command(&["config", "reference"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_role_without_a_workspace_ends_with_3_before_it_connects() {
    let bench = Bench::new("admin: {listen: '127.0.0.1:0'}");
    let ran = bench.run(&["router"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("workspace.file or workspace.url"),
        "{ran:?}"
    );
    bench.write(
        "sluice.yaml",
        "admin: {listen: '127.0.0.1:0'}\nworkspace: {file: gone.yaml}",
    );
    let ran = bench.run(&["router"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("gone.yaml"), "{ran:?}");
}
