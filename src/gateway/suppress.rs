//! Users whose events must not be kept: answered with 200 and dropped, as RudderStack does for deletion requests.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::event::event_key;
use crate::shutdown::Shutdown;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Hashes of suppressed users: 16 bytes each, however long the ids are. For 10^6 users the chance that another id has one
/// of their hashes is below 2^-108.
#[derive(Debug, Default)]
pub(super) struct Suppressed {
    users: HashSet<u128>,
}

impl Suppressed {
    /// Reads `<user id>` and `<source id><tab><user id>` lines. Empty lines and lines that begin with `#` are passed.
    ///
    /// # Errors
    /// When there are more than `most`.
    pub(super) fn parse(text: &str, most: usize) -> Result<Self, String> {
        let mut users = HashSet::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (source, user) = line.split_once('\t').unwrap_or(("", line));
            users.insert(event_key(source.trim(), user.trim()));
            if users.len() > most {
                return Err(format!("more than {most} users"));
            }
        }
        Ok(Self { users })
    }

    /// Whether events of `user` from `source` are dropped.
    pub(super) fn holds(&self, source: &str, user: &str) -> bool {
        !self.users.is_empty()
            && !user.is_empty()
            && (self.users.contains(&event_key("", user))
                || self.users.contains(&event_key(source, user)))
    }
}

/// The suppressed users as they are now.
#[derive(Debug, Default)]
pub(super) struct Suppression {
    current: ArcSwap<Suppressed>,
}

impl Suppression {
    /// Reads `file` and follows its changes until shutdown. A file that cannot be read later leaves the list as it was.
    ///
    /// # Errors
    /// When it cannot be read now.
    pub(super) fn follow(
        file: Option<PathBuf>,
        most: usize,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, String> {
        let Some(file) = file else {
            return Ok(Arc::default());
        };
        let mut seen = changed_at(&file);
        let suppression = Arc::new(Self {
            current: ArcSwap::from_pointee(read(&file, most)?),
        });
        let (following, stopping) = (Arc::clone(&suppression), shutdown.clone());
        drop(shutdown.spawn("gateway-suppression", async move {
            loop {
                tokio::select! {
                    () = stopping.begun() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                following.look(&file, most, &mut seen).await;
            }
        }));
        Ok(suppression)
    }

    /// Reads `file` again if it is not as it was `seen`.
    async fn look(&self, file: &Path, most: usize, seen: &mut Option<Stamp>) {
        let now = changed_at(file);
        if now == *seen {
            return;
        }
        let path = file.to_owned();
        let result = tokio::task::spawn_blocking(move || read(&path, most)).await;
        match result {
            Ok(Ok(list)) => {
                tracing::info!(users = list.users.len(), "suppression list changed");
                self.current.store(Arc::new(list));
                *seen = now;
            }
            Ok(Err(error)) => tracing::warn!(%error, "suppression list kept as it was"),
            Err(error) => tracing::error!(%error, "suppression list not read"),
        }
    }

    pub(super) fn now(&self) -> arc_swap::Guard<Arc<Suppressed>> {
        self.current.load()
    }
}

fn read(file: &Path, most: usize) -> Result<Suppressed, String> {
    let named = |what: String| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    Suppressed::parse(&text, most).map_err(named)
}

/// What tells a changed file: time and length.
type Stamp = (SystemTime, u64);

fn changed_at(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(LOOK_EVERY * 10, waiting).await;
        assert!(within.is_ok(), "{what}");
    }

    #[tokio::test]
    async fn a_changed_file_is_followed_and_one_that_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("suppressed");
        std::fs::write(&file, "u1").unwrap();
        let shutdown = Shutdown::new(Duration::ZERO);
        let suppression = Suppression::follow(Some(file.clone()), 2, &shutdown).unwrap();
        let holds = |user: &str| suppression.now().holds("web", user);
        assert!(holds("u1") && !holds("u22"));
        // More than may be: what was known stays, and the next good file counts.
        std::fs::write(&file, "a\nb\nc\n").unwrap();
        suppression.look(&file, 2, &mut None).await;
        assert!(holds("u1") && !holds("a"));
        std::fs::write(&file, "u22\n").unwrap();
        until("the new list is in use", || holds("u22")).await;
        assert!(!holds("u1"));
        assert!(Suppression::follow(Some(dir.path().join("none")), 2, &shutdown).is_err());
        shutdown.begin();
    }

    #[test]
    fn a_user_is_dropped_everywhere_or_for_one_source() {
        let list = Suppressed::parse("# asked us to\nu1\n\nweb\tu 2\n", 2).unwrap();
        assert!(list.holds("web", "u1") && list.holds("app", "u1"));
        assert!(list.holds("web", "u 2") && !list.holds("app", "u 2"));
        assert!(!list.holds("web", "") && !list.holds("web", "u3"));
        assert!(Suppressed::parse("a\nb\nc", 2).is_err());
    }
}
