//! Mango Office virtual PBX: its webhook format, and nothing about what we do with the calls.
//!
//! Every delivery is a form with the fields `vpbx_api_key`, `sign` and `json`, posted to a path
//! ending in the event kind. `sign` is the lower-case hex of `sha256(api_key + json + api_salt)`
//! over the once-decoded `json`. The format is loose in ways this module absorbs: numbers may
//! come as strings and ids as numbers, an absent value may be missing, `null`, `""` or `0` (in
//! times), and unknown fields appear at will. Deliveries are repeated and out of order; that is
//! for the caller, helped by [`identify`].
//!
//! This file is the intake: authenticate and name a delivery. Reading the payload is in `payload`.

mod payload;
#[cfg(test)]
mod tests;

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use self::payload::{Fields, MAX_TEXT};
use super::{Identity, IntakeError, ParseError, Verified};

pub use self::payload::parse;

/// The longest event key, in bytes; short enough for any index.
const MAX_EVENT_KEY: usize = 200;

/// Where recordings are asked for, below the API's base URL.
pub const RECORDING_PATH: &str = "queries/recording/post/";

/// What the account shares with Mango to authenticate deliveries.
#[derive(Clone)]
pub struct Credentials {
    /// Names the account; travels with every delivery.
    pub api_key: String,
    /// The secret: enters the signature and never travels.
    pub api_salt: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials { api_key: <redacted>, api_salt: <redacted> }")
    }
}

/// The events we subscribe to.
///
/// The kind is not part of the payload. Mango appends `events/{kind}` to the address configured
/// for us, so [`EventKind::from_path`] is the authority. An account may also be set up with one
/// address for everything, without that ending; only then fall back to [`EventKind::infer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Call,
    Summary,
    Recording,
    RecordAdded,
}

impl EventKind {
    pub const ALL: [Self; 4] = [Self::Call, Self::Summary, Self::Recording, Self::RecordAdded];

    /// The part of the path after `events/`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Summary => "summary",
            Self::Recording => "recording",
            Self::RecordAdded => "record/added",
        }
    }

    /// The kind named by the end of a URL path (without query), whatever stands before it.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        Self::ALL.into_iter().find(|kind| {
            path.strip_suffix(kind.as_str())
                .and_then(|head| head.strip_suffix("events/"))
                .is_some_and(|head| head.is_empty() || head.ends_with('/'))
        })
    }

    /// The kind that [`EventKind::as_str`] spells.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind guessed from the fields only it has, for deliveries to a path that names none.
    #[must_use]
    pub fn infer(json: &str) -> Option<Self> {
        let object = payload::object(json).ok()?;
        let fields = Fields::of(&object);
        if fields.has("entry_result") {
            Some(Self::Summary)
        } else if fields.has("call_state") {
            Some(Self::Call)
        } else if fields.has("recording_state") {
            // Both recording kinds have an id; only a recording in progress has a state.
            Some(Self::Recording)
        } else {
            fields.has("recording_id").then_some(Self::RecordAdded)
        }
    }
}

/// The signature Mango puts on `json`.
#[must_use]
pub fn sign(credentials: &Credentials, json: &str) -> String {
    hex(&Sha256::new()
        .chain_update(&credentials.api_key)
        .chain_update(json)
        .chain_update(&credentials.api_salt)
        .finalize())
}

/// The form that asks for the content of a recording, to be posted to [`RECORDING_PATH`]. The answer is
/// the content, or a redirect to it.
#[must_use]
pub fn recording_form(credentials: &Credentials, recording_id: &str) -> [(&'static str, String); 3] {
    let json = serde_json::json!({ "recording_id": recording_id, "action": "download" }).to_string();
    [("vpbx_api_key", credentials.api_key.clone()), ("sign", sign(credentials, &json)), ("json", json)]
}

/// Authenticates a raw form body.
///
/// # Errors
///
/// [`IntakeError::Malformed`] when the body is not a form with each of the three fields exactly
/// once, [`IntakeError::BadSignature`] when it is not from the holder of the credentials.
pub fn verify(credentials: &Credentials, body: &[u8]) -> Result<Verified, IntakeError> {
    let form = Form::parse(body)?;
    let ours = same(&form.key, &credentials.api_key);
    let signed = same(&form.sign, &sign(credentials, &form.json));
    // `&` evaluates both sides: a wrong key takes as long as a wrong signature.
    if bool::from(ours & signed) { Ok(Verified { json: form.json }) } else { Err(IntakeError::BadSignature) }
}

/// Compares in constant time. Hashing first gives both sides the same fixed length, so that not
/// even the length of the expected value shows.
fn same(given: &str, expected: &str) -> Choice {
    Sha256::digest(given).as_slice().ct_eq(Sha256::digest(expected).as_slice())
}

/// The decoded fields of a delivery.
struct Form {
    key: String,
    sign: String,
    json: String,
}

impl Form {
    fn parse(body: &[u8]) -> Result<Self, IntakeError> {
        let (mut key, mut sign, mut json) = (None, None, None);
        for pair in body.split(|&byte| byte == b'&').filter(|p| !p.is_empty()) {
            let split = pair.iter().position(|&byte| byte == b'=');
            let (name, value) = match split {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            let value = decode(value)?;
            let slot = match decode(name)?.as_str() {
                "vpbx_api_key" => &mut key,
                "sign" => &mut sign,
                "json" => &mut json,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(IntakeError::Malformed("a field is given more than once"));
            }
        }
        Ok(Self {
            key: key.ok_or(IntakeError::Malformed("vpbx_api_key is missing"))?,
            sign: sign.ok_or(IntakeError::Malformed("sign is missing"))?,
            json: json.ok_or(IntakeError::Malformed("json is missing"))?,
        })
    }
}

/// Decodes one form component, once.
///
/// The usual form parsers never fail: they keep a broken escape as text and replace invalid
/// UTF-8. Here that would check the signature of a text nobody sent, so both are refused, and so
/// is NUL, which the database cannot store.
fn decode(component: &[u8]) -> Result<String, IntakeError> {
    let mut bytes = Vec::with_capacity(component.len());
    let mut rest = component.iter();
    let digit = |byte: Option<&u8>| byte.and_then(|&b| char::from(b).to_digit(16));
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => digit(rest.next())
                .zip(digit(rest.next()))
                .and_then(|(high, low)| u8::try_from(high << 4 | low).ok())
                .ok_or(IntakeError::Malformed("a percent escape is broken"))?,
            plain => plain,
        });
    }
    if bytes.contains(&0) {
        return Err(IntakeError::Malformed("a field contains NUL"));
    }
    String::from_utf8(bytes).map_err(|_| IntakeError::Malformed("a field is not UTF-8"))
}

/// Names an event so that a repeated delivery is recognised. Never fails.
///
/// The key spells out the kind and those of `entry_id`, `call_id`, `seq` and `recording_id` that
/// tell events of the kind apart. When the payload cannot be identified (not JSON, or one of them
/// missing or containing control characters) it is a hash of the payload: an identical repeat is
/// still recognised, and nothing is lost.
#[must_use]
pub fn identify(kind: EventKind, json: &str) -> Identity {
    match identifiers(kind, json) {
        Ok((entry_id, event_key)) => Identity {
            event_key,
            // Must equal what `parse` calls the call; it refuses ids too long to be kept as is.
            call_key: Some(if entry_id.chars().count() <= MAX_TEXT {
                entry_id
            } else {
                format!("sha256:{}", hex(&Sha256::digest(&entry_id)))
            }),
        },
        Err(_) => Identity { event_key: hashed_key(kind, json), call_key: None },
    }
}

/// The entry id and the event key.
fn identifiers(kind: EventKind, json: &str) -> Result<(String, String), ParseError> {
    let object = payload::object(json)?;
    let fields = Fields::of(&object);
    let entry_id = fields.require("entry_id", Fields::id)?;
    let mut parts = vec![entry_id.clone()];
    parts.extend(match kind {
        EventKind::Call => {
            vec![fields.require("call_id", Fields::id)?, fields.require("seq", Fields::count)?.to_string()]
        }
        // One per call, and without leg or sequence.
        EventKind::Summary => vec![],
        // A leg has one recording per recorded side, each with its own sequence.
        EventKind::Recording => vec![
            fields.require("call_id", Fields::id)?,
            fields.require("seq", Fields::count)?.to_string(),
            fields.require("recording_id", Fields::id)?,
        ],
        EventKind::RecordAdded => vec![fields.require("recording_id", Fields::id)?],
    });
    let key = format!("{}:{}", kind.as_str(), parts.join(":"));
    // A separator inside an id would let two different events share a key; NUL cannot be inside.
    let ambiguous = parts.iter().any(|part| part.contains(':'));
    let key = if ambiguous || key.len() > MAX_EVENT_KEY { hashed_key(kind, &parts.join("\0")) } else { key };
    Ok((entry_id, key))
}

fn hashed_key(kind: EventKind, content: &str) -> String {
    format!("{}:sha256:{}", kind.as_str(), hex(&Sha256::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
