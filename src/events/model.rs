//! What goes over the wire, and who may see it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    auth::{Caller, policy::Scope},
    http::extract::{FieldErrors, Validate},
    requests::model::EventKind,
};

/// An event as stored, with what of its request decides who may see it. Names of kinds and states are
/// text here: a newer replica may write some that this one does not know.
#[derive(Clone, Debug)]
pub struct EventRow {
    pub id: i64,
    pub request_id: i64,
    pub at: DateTime<Utc>,
    pub actor_id: Option<i64>,
    pub kind: String,
    pub from: Option<String>,
    pub to: Option<String>,
    /// The master that the event took the request from.
    pub left_master: Option<i64>,
    pub city_id: i64,
    pub master_id: Option<i64>,
    pub version: i32,
    pub status: String,
    pub deleted: bool,
}

/// How much of an event somebody is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    Whole,
    /// That the request is theirs no more.
    Gone,
}

impl EventRow {
    /// How much of it `caller` may see; `None` is nothing. The same rule as in
    /// [`super::store::backlog`].
    #[must_use]
    pub fn shown_to(&self, caller: &Caller) -> Option<Shown> {
        // What was deleted cannot be read any more; that it was is the last thing to be told of it.
        if self.deleted && self.kind != EventKind::Deleted.as_str() {
            return None;
        }
        let user = Some(caller.principal.user_id);
        match caller.scope {
            Scope::All => Some(Shown::Whole),
            Scope::Cities => caller.principal.cities.contains(&self.city_id).then_some(Shown::Whole),
            Scope::Own if self.master_id == user => Some(Shown::Whole),
            Scope::Own => (self.left_master == user).then_some(Shown::Gone),
        }
    }
}

/// The data of an event named `request`.
#[derive(Debug, Serialize)]
pub struct RequestEvent<'a> {
    /// The event's own number, for telling repetitions.
    pub id: i64,
    /// The service request.
    pub request_id: i64,
    /// What happened, as in the request's history.
    pub kind: &'a str,
    /// For transitions.
    pub from: Option<&'a str>,
    /// For transitions and the creation.
    pub to: Option<&'a str>,
    /// When.
    pub at: DateTime<Utc>,
    /// User id; null is the system itself.
    pub actor_id: Option<i64>,
    /// Where the request is now.
    pub status: &'a str,
    /// Its version now.
    pub version: i32,
}

/// The data of an event named `gone`.
#[derive(Debug, Serialize)]
pub struct GoneEvent {
    /// The event's own number.
    pub id: i64,
    /// The service request that is not yours any more.
    pub request_id: i64,
    /// When.
    pub at: DateTime<Utc>,
}

/// An event on its way to the listeners, written once for all of them.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    pub row: EventRow,
    /// From where a client that has this one may resume.
    pub mark: i64,
    whole: String,
    gone: String,
}

impl LiveEvent {
    /// Writes the event down.
    #[must_use]
    pub fn new(row: EventRow, mark: i64) -> Self {
        let whole = RequestEvent {
            id: row.id,
            request_id: row.request_id,
            kind: &row.kind,
            from: row.from.as_deref(),
            to: row.to.as_deref(),
            at: row.at,
            actor_id: row.actor_id,
            status: &row.status,
            version: row.version,
        };
        let gone = GoneEvent { id: row.id, request_id: row.request_id, at: row.at };
        // Neither has a key or a value that JSON could not hold.
        let (whole, gone) = (serde_json::to_string(&whole), serde_json::to_string(&gone));
        Self { mark, whole: whole.unwrap_or_default(), gone: gone.unwrap_or_default(), row }
    }

    /// Its name and its data, as far as `caller` may see it.
    #[must_use]
    pub fn told_to(&self, caller: &Caller) -> Option<(&'static str, &str)> {
        self.row.shown_to(caller).map(|shown| match shown {
            Shown::Whole => ("request", self.whole.as_str()),
            Shown::Gone => ("gone", self.gone.as_str()),
        })
    }
}

/// Where a stream begins.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct StreamParams {
    /// As the header Last-Event-ID, which goes before it.
    #[param(minimum = 0, example = 7)]
    pub last_event_id: Option<i64>,
}

impl Validate for StreamParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.check(self.last_event_id.is_none_or(|id| id >= 0), "last_event_id", "must not be negative");
    }
}
