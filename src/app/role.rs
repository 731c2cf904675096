//! The roles a process can take.

use std::str::FromStr;

use crate::deps::{Deps, Role, RoleError};
use crate::event::{SchemaName, Topic};
use crate::gateway;
use crate::processor;
use crate::router;
use crate::warehouse;

/// One of the four roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// HTTP to `events`.
    Gateway,
    /// `events` to destination topics.
    Processor,
    /// `deliver.*` to destinations.
    Router,
    /// `warehouse.*` to tables.
    Warehouse,
}

impl RoleName {
    /// All roles, in the order in which they are started: consumers before the one that lets events in.
    pub const ALL: [RoleName; 4] = [
        RoleName::Warehouse,
        RoleName::Router,
        RoleName::Processor,
        RoleName::Gateway,
    ];

    /// Word on the command line, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Processor => "processor",
            Self::Router => "router",
            Self::Warehouse => "warehouse",
        }
    }

    /// Reads a comma list such as `gateway,processor`.
    ///
    /// # Errors
    /// The word that is not a role, with those that are.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let mut roles = text
            .split(',')
            .map(|word| word.trim().parse())
            .collect::<Result<Vec<Self>, _>>()?;
        roles.sort_by_key(|role| Self::ALL.iter().position(|r| r == role));
        roles.dedup();
        Ok(roles)
    }

    /// Whether the role reads or writes `topic`.
    pub(super) fn uses(self, topic: &Topic) -> bool {
        match topic {
            Topic::Events => matches!(self, Self::Gateway | Self::Processor),
            Topic::Seen => matches!(self, Self::Processor),
            Topic::Deliver(_) => matches!(self, Self::Processor | Self::Router),
            Topic::Parked(_) => matches!(self, Self::Router),
            Topic::Warehouse(_) => matches!(self, Self::Processor | Self::Warehouse),
            Topic::Dlq(stage) => stage.name() == self.name(),
            Topic::Ledger => matches!(self, Self::Processor | Self::Router | Self::Warehouse),
            Topic::Config => false,
        }
    }

    /// The schemas of the records that the role writes or reads. Those it only reads are in it so that it knows their ids before it
    /// meets them.
    fn schemas(self) -> &'static [SchemaName] {
        use SchemaName::{Delivery, Envelope, LedgerEntry, WarehouseSource};
        match self {
            Self::Gateway => &[Envelope],
            Self::Processor => &[Envelope, Delivery, WarehouseSource, LedgerEntry],
            Self::Router => &[Delivery, LedgerEntry],
            Self::Warehouse => &[WarehouseSource, LedgerEntry],
        }
    }

    /// The schemas of the records that any of `roles` writes or reads, each once.
    pub fn schemas_of(roles: &[Self]) -> impl Iterator<Item = SchemaName> {
        SchemaName::ALL
            .into_iter()
            .filter(|name| roles.iter().any(|role| role.schemas().contains(name)))
    }

    pub(super) async fn start(self, deps: Deps) -> Result<Role, RoleError> {
        match self {
            Self::Gateway => Ok(gateway::start(deps).await?),
            Self::Processor => Ok(processor::start(deps).await?),
            Self::Router => Ok(router::start(deps).await?),
            Self::Warehouse => Ok(warehouse::start(deps).await?),
        }
    }
}

impl FromStr for RoleName {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == word)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().rev().map(|role| role.name()).collect();
                format!("{word:?} is not a role; there are {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_roles_is_put_in_starting_order_without_doubles() {
        let roles = RoleName::list("gateway, router,gateway").unwrap();
        assert_eq!(roles, [RoleName::Router, RoleName::Gateway]);
        let error = RoleName::list("gateway,rooter").unwrap_err();
        assert!(
            error.contains("rooter") && error.contains("router"),
            "{error}"
        );
    }
}
