//! Plans as people read them.

use std::fmt;

use super::plan::{Action, ConfigChange, Note};
use super::units::for_people;

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self
            .from
            .as_deref()
            .map_or_else(|| "unset".to_owned(), |from| for_people(&self.key, from));
        write!(
            f,
            "{} {from} -> {}",
            self.key,
            for_people(&self.key, &self.to)
        )
    }
}

/// As `terraform plan` prints: `+` new, `~` changed, `!` not done, `.` left alone.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create {
                topic,
                partitions,
                replication,
                config,
            } => {
                write!(
                    f,
                    "+ {topic}: {partitions} partitions, {replication} copies"
                )?;
                for (key, value) in config {
                    write!(f, "\n    {key} = {}", for_people(key, value))?;
                }
                Ok(())
            }
            Self::Alter { topic, changes } => {
                write!(f, "~ {topic}")?;
                changes
                    .iter()
                    .try_for_each(|change| write!(f, "\n    {change}"))
            }
            Self::AddPartitions { topic, from, to } => {
                write!(f, "~ {topic}: partitions {from} -> {to} (keys move)")
            }
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { topic, why, fix } => write!(f, "! {topic}: {why}\n    fix: {fix}"),
            Self::Drift { topic, what } => write!(f, ". {topic}: {what}"),
            Self::Unmanaged { topic } => {
                write!(f, ". {topic}: not declared and in no workspace; left alone")
            }
        }
    }
}
