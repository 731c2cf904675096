//! One live owner for a data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::error::LocalKafkaError;

/// The kernel's lock on a data directory: gone when this value is dropped and when the process ends, however
/// it ends.
#[derive(Debug)]
pub(super) struct Owner {
    _file: File,
}

impl Owner {
    /// Takes the directory, creating it if need be.
    pub(super) fn take(data_dir: &Path) -> Result<Self, LocalKafkaError> {
        fs::create_dir_all(data_dir).map_err(LocalKafkaError::io("create", data_dir))?;
        let path = data_dir.join("owner.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LocalKafkaError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text only helps the message.
                let _read = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let owner = if holder.is_empty() {
                    "another process".to_owned()
                } else {
                    format!("process {holder}")
                };
                return Err(LocalKafkaError::InUse {
                    data_dir: data_dir.to_owned(),
                    owner,
                });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(LocalKafkaError::io("lock", &path)(source));
            }
        }
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(LocalKafkaError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_number_of_the_first_until_that_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Owner::take(dir.path()).unwrap();
        let refused = Owner::take(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("in use by process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        Owner::take(dir.path()).unwrap();
    }
}
