//! What the API takes and gives for service requests.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::state::Status;
use crate::{
    bounds::{check_size, check_time, optional_rubles},
    http::extract::{FieldErrors, Validate, present},
    wire_enum,
};

wire_enum! {
    /// How a service request came about.
    pub enum Source {
        /// From an incoming call.
        Call = "call",
        /// Typed in by a person.
        Manual = "manual",
    }
}

wire_enum! {
    /// What a history entry records.
    pub enum EventKind {
        /// It came into being.
        Created = "created",
        /// It moved from one state to another.
        Transition = "transition",
        /// Its intake data changed.
        Edited = "edited",
        /// Somebody commented.
        Commented = "commented",
        /// A further call of the client joined it.
        CallAttached = "call_attached",
        /// A file was attached.
        FileAttached = "file_attached",
        /// A file was removed.
        FileRemoved = "file_removed",
        /// It was deleted.
        Deleted = "deleted",
        /// A promise to the client was not kept in time.
        SlaBreached = "sla_breached",
        /// The master did not answer the offer in time.
        Escalated = "escalated",
    }
}

/// A service request as staff see it.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
#[schema(example = json!({
    "id": 1042, "version": 8, "status": "done", "source": "call", "type": "first_time", "direction": "plumbing",
    "city_id": 1, "city": "novosibirsk", "campaign": "novosibirsk_avito", "client_phone": "+79130000001",
    "client_name": "Ольга Петрова", "description": "течёт кран на кухне", "address": "ул. Ленина, 5, кв. 12",
    "callback_at": null, "meeting_at": "2026-10-05T08:00:00Z", "resume_at": null, "master_id": 12,
    "created_at": "2026-10-05T03:20:00Z", "updated_at": "2026-10-05T09:15:00Z",
    "first_response_at": "2026-10-05T03:24:00Z", "assigned_at": "2026-10-05T03:50:00Z", "escalated_at": null,
    "closed_at": "2026-10-05T09:15:00Z", "result": "5000.00", "expenses": "1000.00", "net": "4000.00",
    "handover": "2000.00"
}))]
pub struct RequestView {
    /// Its number.
    #[schema(example = 1042)]
    pub id: i64,
    /// Raised by every change; the ETag.
    #[schema(example = 3)]
    pub version: i32,
    /// Where it is.
    pub status: Status,
    /// How it came about.
    pub source: Source,
    /// Code of the request type.
    #[schema(example = "first_time")]
    pub r#type: String,
    /// Code of the field of work, once known.
    #[schema(example = "plumbing")]
    pub direction: Option<String>,
    /// City id.
    #[schema(example = 1)]
    pub city_id: i64,
    /// Code of the city.
    #[schema(example = "novosibirsk")]
    pub city: String,
    /// Code of the advertising campaign whose number was called.
    #[schema(example = "nsk_avito")]
    pub campaign: Option<String>,
    /// The client's phone, E.164; `anonymised-` and a number once it has been removed.
    #[schema(example = "+79130000001")]
    pub client_phone: String,
    /// The client's name, once known.
    pub client_name: Option<String>,
    /// What is broken.
    pub description: Option<String>,
    /// Where to go.
    pub address: Option<String>,
    /// When to call back.
    pub callback_at: Option<DateTime<Utc>>,
    /// When to be there.
    pub meeting_at: Option<DateTime<Utc>>,
    /// When to continue.
    pub resume_at: Option<DateTime<Utc>>,
    /// User id of the master.
    pub master_id: Option<i64>,
    /// When it came into being.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// First move out of `new` by a person.
    pub first_response_at: Option<DateTime<Utc>>,
    /// First offer to a master.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When nobody answered an offer in time.
    pub escalated_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub closed_at: Option<DateTime<Utc>>,
    /// What the client paid, rubles.
    #[schema(value_type = Option<String>, example = "5000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub result: Option<Decimal>,
    /// What parts cost, rubles.
    #[schema(value_type = Option<String>, example = "1000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub expenses: Option<Decimal>,
    /// result − expenses.
    #[schema(value_type = Option<String>, example = "4000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub net: Option<Decimal>,
    /// What the master hands over: net × the master's share.
    #[schema(value_type = Option<String>, example = "2000.00")]
    #[serde(serialize_with = "optional_rubles")]
    pub handover: Option<Decimal>,
}

/// A new service request, typed in by staff.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"city": "novosibirsk", "phone": "8 913 000-00-01", "direction": "plumbing", "description": "the tap drips"}))]
pub struct NewRequest {
    /// Code of the city.
    pub city: String,
    /// The client's phone, in any usual form.
    pub phone: String,
    /// Code of the request type; found from the client's history when missing.
    #[serde(default)]
    pub r#type: Option<String>,
    /// Code of the field of work.
    #[serde(default)]
    pub direction: Option<String>,
    /// The client's name.
    #[serde(default)]
    pub client_name: Option<String>,
    /// What is broken.
    #[serde(default)]
    pub description: Option<String>,
    /// Where to go.
    #[serde(default)]
    pub address: Option<String>,
}

impl Validate for NewRequest {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.city, 1..=40, "/city");
        errors.text(&self.phone, 1..=40, "/phone");
        errors.optional_text(self.r#type.as_deref(), 1..=40, "/type");
        errors.optional_text(self.direction.as_deref(), 1..=40, "/direction");
        errors.optional_text(self.client_name.as_deref(), 1..=100, "/client_name");
        errors.optional_text(self.description.as_deref(), 0..=2000, "/description");
        errors.optional_text(self.address.as_deref(), 1..=300, "/address");
    }
}

/// Changes to what a client said. A missing field stays, null clears it.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"address": "Krasny prospekt 1, flat 2", "client_name": "Olga"}))]
pub struct PatchRequest {
    /// Code of the request type; cannot be cleared.
    #[serde(deserialize_with = "present")]
    #[schema(nullable = false)]
    pub r#type: Option<String>,
    /// Code of the field of work.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub direction: Option<Option<String>>,
    /// The client's name.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub client_name: Option<Option<String>>,
    /// What is broken.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Where to go.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub address: Option<Option<String>>,
    /// When to be there.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    pub meeting_at: Option<Option<DateTime<Utc>>>,
}

impl Validate for PatchRequest {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.r#type.as_deref(), 1..=40, "/type");
        errors.optional_text(self.direction.as_ref().and_then(Option::as_deref), 1..=40, "/direction");
        errors.optional_text(self.client_name.as_ref().and_then(Option::as_deref), 1..=100, "/client_name");
        errors.optional_text(self.description.as_ref().and_then(Option::as_deref), 0..=2000, "/description");
        errors.optional_text(self.address.as_ref().and_then(Option::as_deref), 1..=300, "/address");
        check_time(errors, self.meeting_at.flatten(), "/meeting_at");
    }
}

/// A move to another state, with what that state needs.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to": "waiting", "address": "Krasny prospekt 1, flat 2", "meeting_at": "2026-12-01T10:00:00+07:00"}))]
pub struct Move {
    /// The state to move to. `offered` is reached by `/assign` alone.
    // Optional to serde only, so that a missing one is reported under its own pointer.
    #[serde(default)]
    #[schema(required = true, nullable = false)]
    pub to: Option<Status>,
    /// Why; needed to reopen an ended request.
    #[serde(default)]
    pub reason: Option<String>,
    /// For `callback`.
    #[serde(default)]
    pub callback_at: Option<DateTime<Utc>>,
    /// For `waiting`, unless it is known.
    #[serde(default)]
    pub address: Option<String>,
    /// For `waiting`, unless it is known.
    #[serde(default)]
    pub meeting_at: Option<DateTime<Utc>>,
    /// For `deferred`.
    #[serde(default)]
    pub resume_at: Option<DateTime<Utc>>,
    /// For `done`: what the client paid, rubles.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    #[schema(value_type = Option<String>, example = "5000.00")]
    pub result: Option<Decimal>,
    /// For `done`: what parts cost, rubles; 0 when missing.
    #[serde(default, with = "rust_decimal::serde::str_option")]
    #[schema(value_type = Option<String>, example = "1000.00")]
    pub expenses: Option<Decimal>,
}

impl Validate for Move {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.check(self.to.is_some(), "/to", "is required");
        errors.check(self.to != Some(Status::Offered), "/to", "offered is reached by POST …/assign");
        errors.optional_text(self.reason.as_deref(), 1..=500, "/reason");
        errors.optional_text(self.address.as_deref(), 1..=300, "/address");
        check_time(errors, self.callback_at, "/callback_at");
        check_time(errors, self.meeting_at, "/meeting_at");
        check_time(errors, self.resume_at, "/resume_at");
        money(errors, self.result, "/result");
        money(errors, self.expenses, "/expenses");
        if let (Some(result), Some(expenses)) = (self.result, self.expenses) {
            errors.check(expenses <= result, "/expenses", "must not exceed the result");
        }
    }
}

fn money(errors: &mut FieldErrors, value: Option<Decimal>, pointer: &str) {
    if let Some(value) = value {
        errors.check(value >= Decimal::ZERO, pointer, "must not be negative");
        check_size(errors, value, pointer);
    }
}

/// An offer to a master.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"master_id": 12}))]
pub struct Assignment {
    /// User id of an active master of the request's city.
    pub master_id: i64,
}

impl Validate for Assignment {
    fn validate(&self, _: &mut FieldErrors) {}
}

/// A comment to be written.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"body": "The dog bites."}))]
pub struct NewComment {
    /// The text.
    pub body: String,
}

impl Validate for NewComment {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.body, 1..=2000, "/body");
    }
}

/// A comment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Comment {
    /// Its number.
    pub id: i64,
    /// User id of its author.
    pub author_id: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The text.
    #[schema(example = "The dog bites.")]
    pub body: String,
}

/// One entry of a request's history.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// User id; null is the system itself.
    pub actor_id: Option<i64>,
    /// What happened.
    pub kind: EventKind,
    /// For transitions.
    pub from: Option<Status>,
    /// For transitions and the creation.
    pub to: Option<Status>,
    /// Why, where somebody said so.
    #[schema(example = "the client changed their mind")]
    pub reason: Option<String>,
    /// Changed fields: `{"field": [before, after]}`.
    #[schema(value_type = Object, example = json!({"address": [null, "Krasny prospekt 1"]}))]
    pub diff: serde_json::Value,
}

/// Filters of the list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Code of a city.
    pub city: Option<String>,
    /// States, separated by commas.
    #[param(example = "new,callback")]
    pub status: Option<String>,
    /// User id of the master.
    pub master: Option<i64>,
    /// Code of a request type.
    pub r#type: Option<String>,
    /// Code of an advertising campaign.
    pub campaign: Option<String>,
    /// Created at or after.
    pub created_from: Option<DateTime<Utc>>,
    /// Created before.
    pub created_to: Option<DateTime<Utc>>,
    /// The client's phone in any usual form, or its last four or more digits.
    #[param(example = "8 913 000-00-01")]
    pub phone: Option<String>,
    /// Words of the address, the description or the client's name, the last one from three letters on also
    /// unfinished; a request's number (`#1042`); a phone as in `phone`.
    #[param(example = "Ленина 5")]
    pub text: Option<String>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for ListParams {
    fn validate(&self, errors: &mut FieldErrors) {
        for (value, name) in
            [(&self.city, "city"), (&self.r#type, "type"), (&self.campaign, "campaign"), (&self.phone, "phone")]
        {
            errors.optional_text(value.as_deref(), 1..=40, name);
        }
        errors.optional_text(self.text.as_deref(), 1..=100, "text");
        check_time(errors, self.created_from, "created_from");
        check_time(errors, self.created_to, "created_to");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(json: &str) -> Vec<String> {
        let mut errors = FieldErrors::default();
        serde_json::from_str::<Move>(json).unwrap().validate(&mut errors);
        errors.into_result().err().map(|error| format!("{error:?}")).into_iter().collect()
    }

    #[test]
    fn money_is_checked_to_the_kopeck() {
        assert!(errors(r#"{"to": "done", "result": "0", "expenses": "0.00"}"#).is_empty());
        assert!(errors(r#"{"to": "done", "result": "9999999999.99"}"#).iter().any(|error| error.contains("too large")));
        assert!(errors(r#"{"to": "done", "result": "1.001"}"#).iter().any(|error| error.contains("two decimals")));
        assert!(errors(r#"{"to": "done", "result": "-1"}"#).iter().any(|error| error.contains("negative")));
        assert!(
            errors(r#"{"to": "done", "result": "1", "expenses": "2"}"#).iter().any(|error| error.contains("exceed"))
        );
        assert!(errors(r#"{"to": "offered"}"#).iter().any(|error| error.contains("assign")));
        assert!(errors("{}").iter().any(|error| error.contains("required")));
        assert!(
            errors(r#"{"to": "callback", "callback_at": "9999-01-01T00:00:00Z"}"#)
                .iter()
                .any(|error| error.contains("2100"))
        );
    }
}
