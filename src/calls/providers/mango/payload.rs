//! Reading a payload that was accepted earlier into our own words.
//!
//! Nothing is trusted here beyond the sender: every text is bounded and free of control
//! characters, every time is plausible. Errors name the field and what was expected of it. They
//! never quote the value, which may be a phone number; that is also why the JSON is walked by
//! hand, as the messages of a derived deserializer do quote it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::bounds::PLAUSIBLE_SECONDS;
use crate::calls::providers::Direction;
use crate::calls::providers::{CallEvent, LegEvent, LegState, Location, ParseError, Party, RecordingNotice, Summary};

use super::EventKind;

/// The longest text taken from a payload, in characters. Real ids and numbers stay well below.
pub(super) const MAX_TEXT: usize = 128;

/// Reads a stored payload.
///
/// # Errors
///
/// Names the first field that is not as documented, without quoting it.
pub fn parse(kind: EventKind, json: &str) -> Result<CallEvent, ParseError> {
    let object = object(json)?;
    let fields = Fields::of(&object);
    Ok(match kind {
        EventKind::Call => CallEvent::Leg(leg(&fields)?),
        EventKind::Summary => CallEvent::Summary(summary(&fields)?),
        EventKind::Recording => CallEvent::Recording(recording(&fields, false)?),
        EventKind::RecordAdded => CallEvent::Recording(recording(&fields, true)?),
    })
}

fn leg(fields: &Fields<'_>) -> Result<LegEvent, ParseError> {
    let to = fields.nested("to")?;
    Ok(LegEvent {
        call_key: fields.require("entry_id", Fields::text)?,
        leg: fields.require("call_id", Fields::text)?,
        seq: fields.require("seq", Fields::count)?,
        at: fields.require("timestamp", Fields::time)?,
        state: fields.require("call_state", state)?,
        location: fields.require("location", location)?,
        from: party(&fields.nested("from")?)?,
        line: to.text("line_number")?,
        to: party(&to)?,
        disconnect_reason: fields.integer("disconnect_reason")?,
    })
}

fn summary(fields: &Fields<'_>) -> Result<Summary, ParseError> {
    Ok(Summary {
        call_key: fields.require("entry_id", Fields::text)?,
        direction: fields.require("call_direction", direction)?,
        line: fields.text("line_number")?,
        from: party(&fields.nested("from")?)?,
        to: party(&fields.nested("to")?)?,
        created_at: fields.time_or_zero("create_time")?,
        forwarded_at: fields.time_or_zero("forward_time")?,
        talk_at: fields.time_or_zero("talk_time")?,
        ended_at: fields.time_or_zero("end_time")?,
        answered: fields.require("entry_result", answered)?,
        disconnect_reason: fields.integer("disconnect_reason")?,
    })
}

fn recording(fields: &Fields<'_>, ready: bool) -> Result<RecordingNotice, ParseError> {
    Ok(RecordingNotice {
        call_key: fields.require("entry_id", Fields::text)?,
        leg: fields.text("call_id")?,
        recording_id: fields.require("recording_id", Fields::text)?,
        at: fields.require("timestamp", Fields::time)?,
        ready,
    })
}

fn party(fields: &Fields<'_>) -> Result<Party, ParseError> {
    Ok(Party { number: fields.text("number")?, extension: fields.text("extension")? })
}

fn state(fields: &Fields<'_>, name: &str) -> Result<Option<LegState>, ParseError> {
    Ok(match fields.text(name)?.as_deref() {
        None => None,
        Some("Appeared") => Some(LegState::Appeared),
        Some("Connected") => Some(LegState::Connected),
        Some("OnHold") => Some(LegState::OnHold),
        Some("Disconnected") => Some(LegState::Disconnected),
        Some(_) => return Err(fields.error(name, "unknown state")),
    })
}

fn location(fields: &Fields<'_>, name: &str) -> Result<Option<Location>, ParseError> {
    let text = fields.text(name)?;
    // A menu item may follow, as in "ivr.2".
    let place = text.as_deref().map(|text| text.split('.').next());
    Ok(match place.flatten() {
        None => None,
        Some("ivr") => Some(Location::Ivr),
        Some("queue") => Some(Location::Queue),
        Some("abonent") => Some(Location::Abonent),
        Some(_) => return Err(fields.error(name, "unknown location")),
    })
}

fn direction(fields: &Fields<'_>, name: &str) -> Result<Option<Direction>, ParseError> {
    Ok(match fields.integer(name)? {
        None => None,
        Some(0) => Some(Direction::Internal),
        Some(1) => Some(Direction::Incoming),
        Some(2) => Some(Direction::Outgoing),
        Some(_) => return Err(fields.error(name, "expected 0, 1 or 2")),
    })
}

fn answered(fields: &Fields<'_>, name: &str) -> Result<Option<bool>, ParseError> {
    Ok(match fields.integer(name)? {
        None => None,
        Some(0) => Some(false),
        Some(1) => Some(true),
        Some(_) => return Err(fields.error(name, "expected 0 or 1")),
    })
}

/// Parses the outermost object.
pub(super) fn object(json: &str) -> Result<Map<String, Value>, ParseError> {
    match serde_json::from_str(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ParseError::new("json", "expected an object")),
        Err(_) => Err(ParseError::new("json", "not valid JSON")),
    }
}

/// Typed access to an object, forgiving about *how* a value is written and strict about what it is.
///
/// A missing field, `null` and `""` are all the same absence. A number may be quoted.
pub(super) struct Fields<'a> {
    /// `None` reads as an object without any field.
    object: Option<&'a Map<String, Value>>,
    /// Where the object is, for error messages: empty or ending in a dot.
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn of(object: &'a Map<String, Value>) -> Self {
        Self { object: Some(object), path: String::new() }
    }

    /// Whether the field is there, whatever it holds.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Reads a field that must be there.
    pub(super) fn require<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<Option<T>, ParseError>,
    ) -> Result<T, ParseError> {
        read(self, name)?.ok_or_else(|| self.error(name, "missing"))
    }

    /// A text of any length. Control characters are refused: they have no place in an id or
    /// number, and the database cannot store NUL.
    pub(super) fn id(&self, name: &str) -> Result<Option<String>, ParseError> {
        let text = match self.value(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
            Some(_) => return Err(self.error(name, "expected a text")),
        };
        if text.chars().any(char::is_control) {
            return Err(self.error(name, "contains a control character"));
        }
        Ok(Some(text))
    }

    /// A text of bounded length.
    fn text(&self, name: &str) -> Result<Option<String>, ParseError> {
        match self.id(name)? {
            Some(text) if text.chars().count() > MAX_TEXT => Err(self.error(name, "too long")),
            text => Ok(text),
        }
    }

    /// A number that counts something: whole and not negative.
    pub(super) fn count(&self, name: &str) -> Result<Option<i64>, ParseError> {
        match self.integer(name)? {
            Some(..0) => Err(self.error(name, "expected no negative number")),
            count => Ok(count),
        }
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, ParseError> {
        let integer = match self.value(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match integer {
            Some(_) => Ok(integer),
            None => Err(self.error(name, "expected a whole number")),
        }
    }

    /// A moment given in unix seconds.
    fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, ParseError> {
        let Some(seconds) = self.integer(name)? else {
            return Ok(None);
        };
        let time = Some(seconds)
            // A time outside means that the field is not in unix seconds.
            .filter(|seconds| PLAUSIBLE_SECONDS.contains(seconds))
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        match time {
            Some(_) => Ok(time),
            None => Err(self.error(name, "expected unix seconds from 2000 to 2099")),
        }
    }

    /// A moment, where zero means that it never came.
    fn time_or_zero(&self, name: &str) -> Result<Option<DateTime<Utc>>, ParseError> {
        match self.integer(name)? {
            Some(0) => Ok(None),
            _ => self.time(name),
        }
    }

    /// The object inside a field. Absence reads as an object without fields, and so does an empty
    /// list, which is how some languages serialise an empty map.
    fn nested(&self, name: &str) -> Result<Fields<'a>, ParseError> {
        let object = match self.value(name) {
            None => None,
            Some(Value::Object(object)) => Some(object),
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(_) => return Err(self.error(name, "expected an object")),
        };
        Ok(Fields { object, path: format!("{}{name}.", self.path) })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            _ => true,
        })
    }

    fn error(&self, name: &str, problem: &'static str) -> ParseError {
        ParseError::new(format!("{}{name}", self.path), problem)
    }
}
