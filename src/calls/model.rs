//! What the API gives for calls.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};

use super::{
    facts::{CallResult, Direction},
    providers::Provider,
};
use crate::{
    http::extract::{FieldErrors, Validate},
    wire_enum,
};

wire_enum! {
    /// Why an incoming call has no service request and needs a person's eye.
    pub enum Triage {
        /// The line belongs to no campaign.
        UnknownLine = "unknown_line",
        /// The caller's number cannot be normalised.
        UnknownCaller = "unknown_caller",
    }
}

wire_enum! {
    /// How far a recording has come.
    pub enum RecordingStatus {
        /// The provider has it; it is still to be fetched.
        Pending = "pending",
        /// It can be listened to.
        Stored = "stored",
        /// It could not be fetched.
        Failed = "failed",
        /// The provider did not have it any more.
        Gone = "gone",
    }
}

/// A recording of a call, or of a part of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordingView {
    /// Its number: `recording` of `GET /calls/{id}/recording`.
    #[schema(example = 17)]
    pub id: i64,
    /// How far it has come.
    pub status: RecordingStatus,
    /// When the provider had it ready.
    pub at: DateTime<Utc>,
    /// What it is, once stored.
    #[schema(example = "audio/mpeg")]
    pub mime: Option<String>,
    /// Its size, once stored.
    #[schema(example = 412_004)]
    pub bytes: Option<i64>,
}

/// A call.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 311, "provider": "mango", "direction": "incoming", "from": "+79130000001", "to": "101",
    "line": "+73832000101", "operator_extension": "101", "request_id": 1042, "city_id": 1,
    "campaign": "novosibirsk_avito", "received_at": "2026-10-05T03:20:00Z", "started_at": "2026-10-05T03:20:00Z",
    "answered_at": "2026-10-05T03:20:08Z", "ended_at": "2026-10-05T03:22:40Z", "talk_s": 152, "wait_s": 8,
    "result": "answered", "cause": 1110, "triage": null
}))]
pub struct CallView {
    /// Its number.
    #[schema(example = 311)]
    pub id: i64,
    /// Who carried it.
    pub provider: Provider,
    /// Who called whom.
    pub direction: Direction,
    /// The caller: E.164, or as the provider wrote it.
    #[schema(example = "+79130000001")]
    pub from: Option<String>,
    /// The called side, as the provider wrote it.
    pub to: Option<String>,
    /// Our number: E.164, or as the provider wrote it.
    #[schema(example = "+73830000101")]
    pub line: Option<String>,
    /// The employee's extension.
    #[schema(example = "101")]
    pub operator_extension: Option<String>,
    /// The service request it belongs to.
    pub request_id: Option<i64>,
    /// City id of its line's campaign.
    pub city_id: Option<i64>,
    /// Code of its line's campaign.
    pub campaign: Option<String>,
    /// When we first heard of it.
    pub received_at: DateTime<Utc>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was answered.
    pub answered_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Seconds of conversation.
    pub talk_s: Option<i64>,
    /// Seconds until the answer or, for a missed call, until the caller gave up.
    pub wait_s: Option<i64>,
    /// Null while it lasts.
    pub result: Option<CallResult>,
    /// The provider's code for why it ended.
    pub cause: Option<i64>,
    /// Why it waits in triage.
    pub triage: Option<Triage>,
    /// Its recordings, oldest first.
    #[schema(value_type = Vec<RecordingView>)]
    pub recordings: Json<Vec<RecordingView>>,
}

/// Which recording of a call.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RecordingParams {
    /// Its number; without it, the newest.
    pub recording: Option<i64>,
}

impl Validate for RecordingParams {
    fn validate(&self, _: &mut FieldErrors) {}
}

/// Filters of the list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct CallParams {
    /// `answered` or `missed`.
    pub result: Option<CallResult>,
    /// `incoming`, `outgoing`, `internal` or `unknown`.
    pub direction: Option<Direction>,
    /// The caller's phone, in any usual form.
    pub phone: Option<String>,
    /// Number of a service request.
    pub request: Option<i64>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for CallParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.phone.as_deref(), 1..=40, "phone");
    }
}

/// The service request that a call belongs to.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"request_id": 1042}))]
pub struct Link {
    /// Its number.
    pub request_id: i64,
}

impl Validate for Link {
    fn validate(&self, _: &mut FieldErrors) {}
}
