//! Who changed what about people, rights, money and settings, and who took personal data out: one row
//! each, written in the transaction that does it ([`record`]). The database lets nobody change a row, and
//! nobody remove one of the last year. What service requests go through is in their own history.
//! Administrators read it in [`crate::security`].

pub mod store;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::{
    auth::Caller,
    db::{DbError, Tx},
    telemetry::trace::TraceIds,
    wire_enum,
};

wire_enum! {
    /// What was done.
    pub enum AuditAction {
        /// A user was created.
        UserCreated = "user_created",
        /// A user was changed.
        UserChanged = "user_changed",
        /// A user was deleted.
        UserDeleted = "user_deleted",
        /// Somebody read a passport.
        PassportRead = "passport_read",
        /// Somebody changed their own password.
        PasswordChanged = "password_changed",
        /// Somebody ended all their sessions.
        SignedOutEverywhere = "signed_out_everywhere",
        /// A refresh token was presented after its use, or by another way than it was given out; its session was
        /// ended.
        RefreshTokenReused = "refresh_token_reused",
        /// The locks of a login were lifted.
        AccountUnlocked = "account_unlocked",
        /// A dictionary has a new entry.
        DictionaryEntryCreated = "dictionary_entry_created",
        /// An entry of a dictionary was changed.
        DictionaryEntryChanged = "dictionary_entry_changed",
        /// A campaign was created.
        CampaignCreated = "campaign_created",
        /// A campaign was changed.
        CampaignChanged = "campaign_changed",
        /// A number was given to a campaign.
        CampaignNumberAdded = "campaign_number_added",
        /// A number was taken from a campaign.
        CampaignNumberRemoved = "campaign_number_removed",
        /// A promise to clients was changed.
        SlaPolicyChanged = "sla_policy_changed",
        /// A cash transaction was booked by hand.
        TransactionBooked = "transaction_booked",
        /// A cash transaction was reversed by hand.
        TransactionReversed = "transaction_reversed",
        /// A service request was deleted.
        RequestDeleted = "request_deleted",
        /// Service requests were exported, with names and numbers.
        RequestsExported = "requests_exported",
        /// A file was removed.
        FileDeleted = "file_deleted",
        /// Rows of the old system were imported.
        Imported = "imported",
        /// The database was replaced by a backup, and this log with it.
        DatabaseRestored = "database_restored",
    }
}

wire_enum! {
    /// What it was done to: a table.
    pub enum AuditSubject {
        /// People.
        Users = "users",
        /// Sessions; their ids are no numbers, so the entry names the user.
        Sessions = "sessions",
        /// Cities.
        Cities = "cities",
        /// Request types.
        RequestTypes = "request_types",
        /// Directions.
        Directions = "directions",
        /// Transaction types.
        TransactionTypes = "transaction_types",
        /// Campaigns and their numbers.
        Campaigns = "advertising_campaigns",
        /// Promises to clients.
        SlaPolicies = "sla_policies",
        /// The ledger.
        Transactions = "transactions",
        /// Service requests.
        Requests = "requests",
        /// Files.
        Files = "files",
        /// All of it.
        Database = "database",
    }
}

wire_enum! {
    /// How somebody reached the data.
    pub enum Via {
        /// Over HTTP.
        Api = "api",
        /// By a command on the server.
        Cli = "cli",
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug)]
pub struct By {
    via: Via,
    actor_id: Option<i64>,
    address: Option<IpAddr>,
}

impl By {
    /// Whoever is signed in.
    #[must_use]
    pub fn caller(caller: &Caller) -> Self {
        let principal = &caller.principal;
        Self { via: Via::Api, actor_id: Some(principal.user_id), address: Some(principal.address) }
    }

    /// Somebody at an address who is not signed in, or not known to be who they say.
    #[must_use]
    pub const fn stranger(address: IpAddr) -> Self {
        Self { via: Via::Api, actor_id: None, address: Some(address) }
    }

    /// A command on the server.
    pub const CLI: Self = Self { via: Via::Cli, actor_id: None, address: None };
}

/// One deed.
#[derive(Clone, Debug)]
pub struct Entry {
    action: AuditAction,
    subject: AuditSubject,
    subject_id: Option<i64>,
    detail: Map<String, Value>,
}

impl Entry {
    /// An action on a row.
    #[must_use]
    pub fn new(action: AuditAction, subject: AuditSubject, subject_id: i64) -> Self {
        Self { action, subject, subject_id: Some(subject_id), detail: Map::new() }
    }

    /// An action on many rows.
    #[must_use]
    pub fn of_many(action: AuditAction, subject: AuditSubject) -> Self {
        Self { action, subject, subject_id: None, detail: Map::new() }
    }

    /// Adds a detail. Never a secret, a name, a phone or an address: the log outlives the person's data.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// Names a field if it was changed, in `fields`, and says no more about it: for personal data.
    #[must_use]
    pub fn field(mut self, name: &str, changed: bool) -> Self {
        let fields = self.detail.entry("fields").or_insert_with(|| Value::Array(Vec::new()));
        if let (true, Value::Array(fields)) = (changed, fields) {
            fields.push(name.into());
        }
        self
    }

    /// Names a field if it was changed, with what it was and what it is. The same caution as for
    /// [`Entry::with`].
    #[must_use]
    pub fn change<T: Into<Value> + PartialEq>(self, name: &str, before: T, after: T) -> Self {
        if before == after {
            return self.field(name, false);
        }
        self.field(name, true).with(name, vec![before.into(), after.into()])
    }
}

/// Writes an entry, in the transaction of what it tells of.
///
/// # Errors
/// As the database.
pub async fn record(tx: &mut Tx, by: By, entry: Entry, now: DateTime<Utc>) -> Result<(), DbError> {
    let trace_id = TraceIds::current().map(|ids| ids.trace_id.to_string());
    store::insert(tx, by, entry, trace_id.as_deref(), now).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_names_its_fields_and_tells_only_values_that_it_was_given() {
        let entry = Entry::new(AuditAction::UserChanged, AuditSubject::Users, 1)
            .change("role", "operator", "manager")
            .change("status", "active", "active")
            .field("phone", true)
            .field("email", false);
        let expected = json!({ "fields": ["role", "phone"], "role": ["operator", "manager"] });
        assert_eq!(Value::Object(entry.detail), expected);
        let unchanged =
            Entry::new(AuditAction::SlaPolicyChanged, AuditSubject::SlaPolicies, 1).change("target_s", 1, 1);
        assert_eq!(Value::Object(unchanged.detail), json!({ "fields": [] }));
    }
}
