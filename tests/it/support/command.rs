//! Runs the real binary as a person or a script would.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output as the one JSON object that `-o json` promises.
    pub fn json(&self) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.stdout).expect(&self.stdout);
        assert_eq!(value["version"], 1);
        value
    }
}

/// A folder with a settings file, and the binary run on it. Nothing of the caller's environment gets in.
pub struct Bench {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Bench {
    /// A folder whose `sluice.yaml` holds `settings`.
    pub fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            dir,
            env: Vec::new(),
        };
        bench.write("sluice.yaml", settings);
        bench
    }

    /// Sets an environment variable for the commands that follow.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file into the folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    /// The binary with `args`, in the folder, with `SLUICE_CONFIG` naming its settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("SLUICE_CONFIG", "sluice.yaml")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end, without a terminal.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
