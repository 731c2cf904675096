//! A folder that one process has for itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fault::{Classify, Fault};

/// The kernel's lock on a folder: gone when this value is dropped and when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("{} is in use by {owner}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who has it, as far as known ("process 1234").
        owner: String,
    },
    /// The disk or the file system.
    #[error("could not {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, one word.
        operation: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl Classify for LockError {
    fn fault(&self) -> Fault {
        match self {
            Self::InUse { .. } => Fault::RETRY,
            Self::Io { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "lock_in_use",
            Self::Io { .. } => "lock_io",
        }
    }
}

impl FolderLock {
    /// Takes `dir`, creating it if need be, by a lock on the file `name` in it. Blocks.
    ///
    /// # Errors
    /// When somebody has it, or when it cannot be created or locked.
    pub fn take(dir: &Path, name: &str) -> Result<Self, LockError> {
        create(dir)?;
        let path = dir.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LockError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text only helps the message.
                let _read = file.read_to_string(&mut holder);
                let owner = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                let dir = dir.to_owned();
                return Err(LockError::InUse { dir, owner });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(LockError::io("lock", &path)(source));
            }
        }
        // On a full disk there is no room for it, and what the folder holds may be what fills the disk.
        let _named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Creates `dir` and what is missing above it, so that a power cut does not take their names away again.
fn create(dir: &Path) -> Result<(), LockError> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create(above)?;
    match fs::create_dir(dir) {
        // Somebody else did it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other.map_err(LockError::io("create", dir))?,
    }
    let synced = File::open(above).and_then(|above| above.sync_all());
    synced.map_err(LockError::io("fsync", above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_number_of_the_first_until_that_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("not/there/yet");
        let first = FolderLock::take(&deep, "lock").unwrap();
        let refused = FolderLock::take(&deep, "lock").unwrap_err();
        assert!(
            matches!(&refused, LockError::InUse { owner, .. } if *owner == format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        FolderLock::take(&deep, "lock").unwrap();
    }

    #[test]
    fn a_disk_without_room_for_the_owners_number_is_taken_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("lock")).unwrap();
        FolderLock::take(dir.path(), "lock").unwrap();
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = FolderLock::take(&file.join("folder"), "lock").unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("create") && text.contains("file"), "{text}");
    }
}
