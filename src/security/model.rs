//! What the API takes and gives about sign-ins, locks and the audit log.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    audit::{AuditAction, AuditSubject, Via},
    bounds::check_period,
    http::extract::{FieldErrors, Validate},
    wire_enum,
};

wire_enum! {
    /// How a try to sign in ended.
    pub enum AttemptResult {
        /// Signed in.
        Success = "success",
        /// Wrong, unknown or disabled.
        Rejected = "rejected",
        /// Nobody looked: this login had failed too often from this address.
        Locked = "locked",
    }
}

/// A try to sign in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 8811, "at": "2026-06-01T07:00:00Z", "user_id": 12, "login": "ivan", "address": "203.0.113.7", "result": "rejected"
}))]
pub struct LoginAttempt {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Whose login it was; null when nobody has it, and then it is not kept: people type passwords there.
    pub user_id: Option<i64>,
    /// That login.
    pub login: Option<String>,
    /// The client's IP address.
    pub address: String,
    /// How it ended.
    pub result: AttemptResult,
}

/// Filters of the tries to sign in.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AttemptParams {
    /// User id.
    pub user_id: Option<i64>,
    /// A user's login.
    #[param(example = "ivan")]
    pub login: Option<String>,
    /// How they ended.
    pub result: Option<AttemptResult>,
    /// An IP address, or a network.
    #[param(example = "203.0.113.0/24")]
    pub address: Option<String>,
    /// At or after.
    #[param(example = "2026-06-01T00:00:00Z")]
    pub from: Option<DateTime<Utc>>,
    /// Before.
    #[param(example = "2026-07-01T00:00:00Z")]
    pub to: Option<DateTime<Utc>>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for AttemptParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.login.as_deref(), 1..=64, "login");
        let network = self.address.as_deref().is_none_or(|text| network(text).is_some());
        errors.check(network, "address", "is no IP address and no network such as 203.0.113.0/24");
        check_period(errors, self.from, self.to);
    }
}

/// The network that a text names; an address is one of its own.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A login that is locked for an address.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "user_id": 12, "login": "ivan", "address": "203.0.113.7", "failures": 7, "last_failure_at": "2026-06-01T07:00:00Z",
    "locked_until": "2026-06-01T07:00:20Z"
}))]
pub struct LockedAccount {
    /// For pages.
    #[serde(skip)]
    pub id: i64,
    /// Whose login it is.
    pub user_id: i64,
    /// The login.
    pub login: String,
    /// From where it failed, and is locked: an IPv4 address, or the /64 of an IPv6 one.
    pub address: String,
    /// How often in a row.
    pub failures: i32,
    /// The last time.
    pub last_failure_at: DateTime<Utc>,
    /// Until when it is locked there; elsewhere it is not.
    pub locked_until: DateTime<Utc>,
}

/// Whose locks shall be lifted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"login": "ivan"}))]
pub struct Unlock {
    /// A user's login.
    pub login: String,
}

impl Validate for Unlock {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.login, 1..=64, "/login");
    }
}

/// What was lifted.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(example = json!({"unlocked": 1}))]
pub struct Unlocked {
    /// Addresses from which the login had failed, and may be tried anew.
    pub unlocked: u64,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 501, "at": "2026-06-01T07:00:00Z", "via": "api", "actor_id": 1, "actor": "anna", "action": "user_changed",
    "subject": "users", "subject_id": 12, "address": "203.0.113.7", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "detail": {"fields": ["role", "phone"], "role": ["operator", "manager"]}
}))]
pub struct AuditEntry {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// How they reached the data.
    pub via: Via,
    /// User id of who did it; null for a command on the server, and for somebody who was not signed in.
    pub actor_id: Option<i64>,
    /// Their login.
    pub actor: Option<String>,
    /// What they did. A text to the program, since the log keeps what later releases may not know.
    #[schema(value_type = AuditAction)]
    pub action: String,
    /// What they did it to: a table.
    #[schema(value_type = AuditSubject)]
    pub subject: String,
    /// The id in it; null for many rows.
    pub subject_id: Option<i64>,
    /// Their IP address.
    pub address: Option<String>,
    /// The trace of the request, and what its log lines carry.
    pub trace_id: Option<String>,
    /// `fields` that were changed, and before and after of those that are no personal data; otherwise what
    /// the action is about.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Filters of the audit log.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// User id of who did it.
    pub actor_id: Option<i64>,
    /// What was done.
    pub action: Option<AuditAction>,
    /// What it was done to.
    pub subject: Option<AuditSubject>,
    /// The id in it; together with `subject`.
    pub subject_id: Option<i64>,
    /// At or after.
    #[param(example = "2026-06-01T00:00:00Z")]
    pub from: Option<DateTime<Utc>>,
    /// Before.
    #[param(example = "2026-07-01T00:00:00Z")]
    pub to: Option<DateTime<Utc>>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for AuditParams {
    fn validate(&self, errors: &mut FieldErrors) {
        let named = self.subject_id.is_none() || self.subject.is_some();
        errors.check(named, "subject_id", "is one of many without subject");
        check_period(errors, self.from, self.to);
    }
}
