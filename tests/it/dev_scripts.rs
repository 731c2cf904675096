//! `dev/up` and `dev/test`, with programs that only say how they were called in place of the real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::postgres;

/// What `dev/packages.sh` looks for, as a machine that has all of it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", ""),
    ("c++", ""),
    ("make", ""),
    ("java", "echo 'openjdk version \"21.0.1\" 2023' >&2"),
    ("mvn", ""),
    ("initdb", ""),
    ("postgres", ""),
    ("pg_isready", ""),
    ("python3", ""),
    ("node", "echo v20.1.0"),
    ("npm", ""),
    ("chromium", "echo 'Chromium 140.0.1'"),
    ("apt-get", ""),
    ("apt-cache", "echo '  Candidate: 1'"),
    ("sudo", "if [ \"$1\" = -n ]; then shift; fi; exec \"$@\""),
    ("cargo", "echo \"cargo $*\""),
];

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (name, script) in PROGRAMS {
            machine.has(name, script);
        }
        machine
    }

    /// Puts a program there, or another in its place.
    fn has(&self, name: &str, script: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.0.path().display()))
            .env("HOME", self.0.path());
        command.output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn options_of_dev_up_are_its_own_wherever_they_stand_and_the_rest_is_sluices() {
    let machine = Machine::new();
    for (args, build, passed) in [
        (&["-y", "--data-dir", "x"][..], "", " --data-dir x"),
        (&["--data-dir", "x y", "-y"], "", " --data-dir x y"),
        (
            &["--roles", "gateway", "--release", "-y"],
            " --release",
            " --roles gateway",
        ),
        (
            &["--release", "--", "-y", "--help"],
            " --release",
            " -y --help",
        ),
        (&[], "", ""),
    ] {
        let ran = machine.run("dev/up", args);
        let said = text(&ran.stderr);
        assert!(ran.status.success(), "{args:?}: {said}");
        assert!(
            said.contains(&format!("cargo build{build} --bin sluice")),
            "{args:?}: {said}"
        );
        let run = format!("cargo run{build} --quiet --bin sluice -- dev{passed}\n");
        assert_eq!(text(&ran.stdout), run, "{args:?}");
    }
    let help = machine.run("dev/up", &["--data-dir", "x", "--help"]);
    assert!(text(&help.stdout).starts_with("Usage: dev/up"), "{help:?}");
}

#[test]
fn what_tests_say_they_skipped_is_counted_and_listed() {
    let machine = Machine::new();
    machine.has(
        "cargo",
        "case \"$*\" in *--lib*--) cat <<'END'\n\
         test a ... SKIPPED: no vectors\nok\nSKIPPED: b: no captures\ntest b ... ok\ntest c ... ok\ntest d ... ignored\n\
         test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\nEND\nesac",
    );
    let ran = machine.run("dev/test", &[]);
    let said = text(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", text(&ran.stderr));
    let summary = said.split("== summary").nth(1).unwrap();
    assert!(
        summary.contains("\n1 passed, 0 failed, 3 skipped\n"),
        "{summary}"
    );
    assert!(summary.contains("\nSKIPPED: no vectors\n"), "{summary}");
    assert!(summary.contains("\nSKIPPED: b: no captures\n"), "{summary}");
}

#[test]
fn a_package_that_is_too_old_ends_the_script_with_what_to_do() {
    let machine = Machine::new();
    machine.has("node", "echo v12.22.9");
    let ran = machine.run("dev/test", &["-y", "--packages-only"]);
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    let after = said.split("Installing nodejs").nth(1).expect(&said);
    assert!(
        after.contains("too old") && after.contains("https://nodejs.org"),
        "{said}"
    );

    // The package helps.
    let node = machine.0.path().join("node");
    let install = r"printf '#!/bin/sh\necho v20.1.0\n' >";
    machine.has("apt-get", &format!("{install} {}", node.display()));
    let ran = machine.run("dev/test", &["-y", "--packages-only"]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
}

#[test]
fn the_stub_of_a_snap_is_no_chromium() {
    let machine = Machine::new();
    let has_chromium = |machine: &Machine| {
        let script = "root=$PWD; source dev/packages.sh; has_chromium";
        machine.run("bash", &["-c", script]).status.success()
    };
    assert!(has_chromium(&machine));
    let stub = "echo \"Command '$0' requires the chromium snap to be installed.\"";
    for script in [
        &format!("{stub} >&2; exit 1"),
        "echo 'Chromium 140.0.1 snap'",
    ] {
        for name in [
            "chromium",
            "chromium-browser",
            "google-chrome",
            "google-chrome-stable",
        ] {
            machine.has(name, script);
        }
        assert!(!has_chromium(&machine), "{script}");
    }
}

#[test]
fn scripts_and_tests_agree_on_whether_postgres_is_there() {
    let script = "root=$PWD; source dev/packages.sh; has_postgres";
    let found = Command::new("bash").args(["-c", script]).status().unwrap();
    assert_eq!(found.success(), postgres::programs().is_some());

    // On the path too, but only as a whole.
    let machine = Machine::new();
    let on_path = || machine.run("bash", &["-c", script]).status.success();
    let debian = Path::new("/usr/lib/postgresql").exists();
    assert!(on_path());
    fs::remove_file(machine.0.path().join("pg_isready")).unwrap();
    assert!(debian || !on_path());
}
