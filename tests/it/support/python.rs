//! Tools that are published as Python packages, each set in a virtual environment of its own that outlives the tests.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment with what `tests/python/<name>.txt` lists, made on first use. A changed list makes a new one.
///
/// # Panics
/// When it cannot be made: a test that needs it fails, it is not skipped.
pub fn environment(name: &str) -> PathBuf {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/python/{name}.txt"));
    let wanted = fs::read_to_string(&list).unwrap();
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    let cache = cache();
    fs::create_dir_all(&cache).unwrap();
    let folder = cache.join(format!("python-{name}-{:016x}", hasher.finish()));
    // Tests run side by side, in one process and in several.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("complete");
    if !done.exists() {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder));
        run(Command::new(folder.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                // A list names all that is needed, so that it is the same everywhere.
                "--no-deps",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(&list));
        fs::write(done, "").unwrap();
    }
    folder
}

/// Where downloads are kept, as `dev/packages.sh` and the local Kafka do.
pub fn cache() -> PathBuf {
    let root = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    root.join("sluice")
}

/// Runs a command that must succeed.
///
/// # Panics
/// With its output, unless it does.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; ./dev/test installs what is missing")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
