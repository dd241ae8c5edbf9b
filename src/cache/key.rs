//! What a value is cached under.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{auth::Caller, error::AppError, http::caching::fingerprint, telemetry::labels::CacheName};

/// What cached values are made of, and change with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Cities, types, directions, campaigns and their numbers.
    Dictionaries,
    /// People, their cities and the profiles of masters.
    Users,
}

impl Domain {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Dictionaries, Self::Users];

    /// As the table `cache_versions` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dictionaries => "dictionaries",
            Self::Users => "users",
        }
    }

    /// Where its version is in Redis.
    pub(super) fn shared(self) -> String {
        format!("version:{}", self.as_str())
    }
}

/// What a value is cached under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: CacheName,
    text: String,
}

impl Key {
    /// Of what is the same for everybody.
    #[must_use]
    pub fn common(name: CacheName, what: &str) -> Self {
        Self { name, text: format!("{}:{what}", name.as_str()) }
    }

    /// Of what somebody sees who has asked with these parameters. Those of the same role who see the same share
    /// it; nobody else does.
    ///
    /// # Errors
    /// 500 for parameters that JSON cannot hold.
    pub fn seen_by(
        caller: &Caller,
        name: CacheName,
        what: &str,
        parameters: &impl Serialize,
    ) -> Result<Self, AppError> {
        let cities = caller.city_filter().map(|cities| cities.iter().copied().collect::<BTreeSet<i64>>());
        let scope = (caller.principal.role, cities, caller.master_filter());
        let text = serde_json::to_vec(&(what, scope, parameters)).map_err(AppError::internal)?;
        Ok(Self::common(name, &fingerprint(&text)))
    }

    /// Whose cache it is in.
    pub(super) const fn name(&self) -> CacheName {
        self.name
    }

    /// What it changes with; what has none is served until it is too old.
    pub(super) const fn domain(&self) -> Option<Domain> {
        match self.name {
            CacheName::Dictionaries => Some(Domain::Dictionaries),
            CacheName::Users => Some(Domain::Users),
            CacheName::Reports => None,
        }
    }

    /// In this process.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// In Redis. While one release replaces another, each keeps what it can read.
    pub(super) fn shared(&self) -> String {
        format!("cache:{}:{}", env!("CARGO_PKG_VERSION"), self.text)
    }
}
