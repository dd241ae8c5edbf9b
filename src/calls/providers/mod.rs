//! Telephony providers: the boundary where a foreign webhook becomes our own words.
//!
//! This module holds the vocabulary every provider translates into, and one child module per
//! provider that does the translating. A provider works in two steps that fail differently:
//!
//! 1. **Intake**, while the provider waits for an HTTP answer: authenticate the raw body and name
//!    the event. Nothing of the payload is interpreted, so a surprising payload is still stored.
//! 2. **Parse**, later in a worker: read the stored payload into a [`CallEvent`]. A failure here
//!    concerns one stored event and can be retried once the code understands it.
//!
//! What a set of events *means* for a call is decided in [`super::facts`]; HTTP, storage and
//! phone-number normalisation live elsewhere. Everything here is pure.

pub mod generic;
pub mod mango;

use std::fmt;

use chrono::{DateTime, Utc};

use crate::wire_enum;

wire_enum! {
    /// Who called whom, seen from our side.
    pub enum Direction {
        /// A client called us.
        Incoming = "incoming",
        /// We called.
        Outgoing = "outgoing",
        /// Among ourselves.
        Internal = "internal",
        /// The events so far do not tell.
        Unknown = "unknown",
    }
}

wire_enum! {
    /// A telephony provider with an adapter.
    pub enum Provider {
        /// Mango Office VPBX.
        Mango = "mango",
        /// Any other that posts our own format, signed as Standard Webhooks has it.
        Generic = "generic",
    }
}

/// Reads a stored event of a provider.
///
/// # Errors
/// In words that may be stored and logged: they never quote the event.
pub fn parse(provider: Provider, kind: &str, payload: &str) -> Result<CallEvent, String> {
    match provider {
        Provider::Mango => {
            let kind = mango::EventKind::from_name(kind).ok_or("unknown kind of event")?;
            mango::parse(kind, payload).map_err(|error| error.to_string())
        }
        Provider::Generic => generic::parse(payload).map_err(|error| error.to_string()),
    }
}

/// Why a delivery was refused at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The request does not have the promised shape (HTTP 400). The reason never quotes the body.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The sender failed to prove itself (HTTP 401). Which part was wrong is deliberately not told.
    #[error("the account key or the signature does not match")]
    BadSignature,
    /// It is signed, and not from now (HTTP 401): it was overheard, or a clock is wrong.
    #[error("the delivery is more than five minutes from now")]
    Stale,
}

/// A payload whose sender is authenticated, exactly as signed.
///
/// It holds no raw NUL character, so it fits a `text` column. It may still spell one as the escape
/// `\u0000`, or not be JSON at all; `jsonb` refuses both.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    pub json: String,
}

impl fmt::Debug for Verified {
    /// Shows the size only: the payload carries phone numbers, and `{:?}` ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("json_bytes", &self.json.len()).finish()
    }
}

/// The names under which a delivery is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Equal for repeated deliveries of one event, different for different events.
    pub event_key: String,
    /// The call the event belongs to, when the payload says so in a usable way.
    pub call_key: Option<String>,
}

/// Why a stored payload could not be read.
///
/// Both parts come from the code, never from the payload, so the message is safe to log and to
/// keep next to the event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ParseError {
    field: String,
    problem: &'static str,
}

impl ParseError {
    pub(crate) fn new(field: impl Into<String>, problem: &'static str) -> Self {
        Self { field: field.into(), problem }
    }
}

/// One thing a provider told us about a call.
///
/// The order (here and on the parts) is arbitrary but total: it gives a set of events one
/// canonical sequence, whatever order they were delivered in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallEvent {
    /// A leg of the call changed its state.
    Leg(LegEvent),
    /// The call is over; the provider's own account of it.
    Summary(Summary),
    /// Something happened to a recording of the conversation.
    Recording(RecordingNotice),
}

/// One end of a leg or call, as the provider wrote it: nothing is normalised, but an empty string
/// counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// A phone number or SIP address.
    pub number: Option<String>,
    /// The short number of an employee or group, present only for our own side.
    pub extension: Option<String>,
}

/// A state change of one leg. A call has several legs when it passes a menu, rings several
/// operators or is transferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LegEvent {
    pub call_key: String,
    pub leg: String,
    /// Counts the events of this leg; not comparable between legs.
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub state: LegState,
    pub location: Location,
    pub from: Party,
    pub to: Party,
    /// Our number that was dialled.
    pub line: Option<String>,
    pub disconnect_reason: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegState {
    Appeared,
    Connected,
    OnHold,
    Disconnected,
}

/// Who holds the leg on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A voice menu. "Connected" to it is not an answer.
    Ivr,
    /// Waiting for a free operator.
    Queue,
    /// A person.
    Abonent,
}

/// The provider's account of a finished call. A missing time means the step never happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Summary {
    pub call_key: String,
    pub direction: Direction,
    pub line: Option<String>,
    pub from: Party,
    /// Who answered or, for a missed call, who missed it first.
    pub to: Party,
    pub created_at: Option<DateTime<Utc>>,
    pub forwarded_at: Option<DateTime<Utc>>,
    pub talk_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub answered: bool,
    pub disconnect_reason: Option<i64>,
}

/// News about a recording. It says nothing about the course of the call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingNotice {
    pub call_key: String,
    pub leg: Option<String>,
    pub recording_id: String,
    pub at: DateTime<Utc>,
    /// The recording is stored and can be fetched, as opposed to still being made.
    pub ready: bool,
}
