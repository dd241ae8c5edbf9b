//! What the API takes and gives for SLA policies, timers and stuck requests.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::extract::{FieldErrors, Validate},
    requests::state::Status,
    wire_enum,
};

wire_enum! {
    /// What is promised.
    pub enum Policy {
        /// A person answers: the first move out of `new`.
        FirstResponse = "first_response",
        /// It is offered to a master.
        Assignment = "assignment",
        /// It is done.
        Completion = "completion",
    }
}

wire_enum! {
    /// What a timer does.
    pub enum TimerState {
        /// It runs.
        Running = "running",
        /// It stands still: it is the client's turn.
        Paused = "paused",
        /// What was promised has happened.
        Met = "met",
        /// It will not happen any more: the request was refused, was no order, or was deleted.
        Cancelled = "cancelled",
    }
}

wire_enum! {
    /// Why a service request counts as stuck.
    pub enum StuckReason {
        /// New for more than an hour.
        NotAnswered = "not_answered",
        /// The client was to be called back 15 minutes ago or earlier.
        CallbackOverdue = "callback_overdue",
        /// Waiting for a master for more than 4 hours.
        NotOffered = "not_offered",
        /// Somebody should be with the client: the time passed while it waits, or 2 hours ago.
        MeetingPassed = "meeting_passed",
        /// A master did not answer an offer in time, and nobody took it back.
        OfferUnanswered = "offer_unanswered",
        /// In progress for more than 24 hours.
        NotFinished = "not_finished",
        /// It was to be continued.
        NotResumed = "not_resumed",
    }
}

/// How long something may take for one type of service request.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": 1, "version": 1, "type": "first_time", "policy": "first_response", "target_s": 900}))]
pub struct SlaPolicy {
    /// Its number.
    pub id: i64,
    /// Raised by every change; the ETag.
    pub version: i32,
    /// Code of the request type.
    pub r#type: String,
    /// What is promised.
    pub policy: Policy,
    /// Within so many seconds.
    pub target_s: i32,
}

/// A change of a policy. Timers that run keep the time they were started with.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"target_s": 1200}))]
pub struct PatchPolicy {
    /// Seconds, up to a year.
    // Optional to serde only, so that a missing one is reported under its own pointer.
    #[serde(default)]
    #[schema(required = true, nullable = false, minimum = 1, maximum = 31_536_000)]
    pub target_s: Option<i32>,
}

impl Validate for PatchPolicy {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.check(self.target_s.is_some(), "/target_s", "is required");
        let fits = self.target_s.is_none_or(|target| (1..=31_536_000).contains(&target));
        errors.check(fits, "/target_s", "must be between 1 and 31536000 (a year)");
    }
}

/// A timer of a service request, as stored.
#[derive(Clone, Debug)]
pub struct TimerRow {
    pub policy: Policy,
    pub started_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub paused_at: Option<DateTime<Utc>>,
    pub paused_s: i64,
    pub met_at: Option<DateTime<Utc>>,
    pub cancelled_at: Option<DateTime<Utc>>,
    pub breached_at: Option<DateTime<Utc>>,
}

/// A timer of a service request.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "policy": "completion", "state": "running", "started_at": "2026-06-01T07:00:00Z", "due_at": "2026-06-04T08:30:00Z",
    "remaining_s": 257_400, "paused_at": null, "paused_s": 5400, "met_at": null, "cancelled_at": null, "breached_at": null
}))]
pub struct SlaTimer {
    /// What was promised.
    pub policy: Policy,
    /// What it does.
    pub state: TimerState,
    /// When it was started: with the request, or when that was last opened again.
    pub started_at: DateTime<Utc>,
    /// By when. While it is paused, this is when it would have been.
    pub due_at: DateTime<Utc>,
    /// Seconds left, negative when it is late; null once it has stopped.
    pub remaining_s: Option<i64>,
    /// Since when it has stood still.
    pub paused_at: Option<DateTime<Utc>>,
    /// How long it stood still before, seconds.
    pub paused_s: i64,
    /// When it happened.
    pub met_at: Option<DateTime<Utc>>,
    /// When it became pointless.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// When the breach was noticed: within a few seconds of `due_at`.
    pub breached_at: Option<DateTime<Utc>>,
}

impl TimerRow {
    /// The timer as of `now`.
    #[must_use]
    pub fn view(self, now: DateTime<Utc>) -> SlaTimer {
        let (state, remaining) = match (self.met_at, self.cancelled_at, self.paused_at) {
            (Some(_), _, _) => (TimerState::Met, None),
            (_, Some(_), _) => (TimerState::Cancelled, None),
            (_, _, Some(paused_at)) => (TimerState::Paused, Some(self.due_at - paused_at)),
            _ => (TimerState::Running, Some(self.due_at - now)),
        };
        SlaTimer {
            policy: self.policy,
            state,
            started_at: self.started_at,
            due_at: self.due_at,
            remaining_s: remaining.map(|left| left.num_seconds()),
            paused_at: self.paused_at,
            paused_s: self.paused_s,
            met_at: self.met_at,
            cancelled_at: self.cancelled_at,
            breached_at: self.breached_at,
        }
    }
}

/// A service request that nobody moves.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1042, "version": 3, "status": "callback", "type": "first_time", "city_id": 1, "city": "novosibirsk",
    "master_id": null, "why": "callback_overdue", "since": "2026-06-01T07:15:00Z"
}))]
pub struct StuckRequest {
    /// Its number.
    pub id: i64,
    /// Its version; the ETag.
    pub version: i32,
    /// Where it is.
    pub status: Status,
    /// Code of the request type.
    pub r#type: String,
    /// City id.
    pub city_id: i64,
    /// Code of the city.
    pub city: String,
    /// User id of the master.
    pub master_id: Option<i64>,
    /// Why it counts as stuck.
    pub why: StuckReason,
    /// From when on it has; for an unanswered offer, when that was made.
    pub since: DateTime<Utc>,
}
