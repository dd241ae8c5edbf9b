//! Any PBX that can post JSON: our own event format, signed as Standard Webhooks
//! (<https://www.standardwebhooks.com>, version 1) has it.
//!
//! The signature is HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}` with the shared secret,
//! in base64, in the header `webhook-signature` as `v1,…`; several stand there, separated by spaces,
//! while a sender changes its secret. A delivery older or newer than [`TOLERANCE`] is refused, so that
//! one that was overheard is of no use for long; within it, `webhook-id` makes a repeat harmless.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use utoipa::ToSchema;

use super::{
    CallEvent, Direction, Identity, IntakeError, LegEvent, LegState, Location, ParseError, Party, Summary, Verified,
};
use crate::{bounds::is_plausible, calls::facts::CallResult};

/// How far a sender's clock may be from ours.
pub const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// How a secret begins.
pub const SECRET_PREFIX: &str = "whsec_";
/// Bytes that a secret may have.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Longest `webhook-id`, and longest text in an event, in characters.
const MAX_TEXT: usize = 128;

/// What is shared with the sender: more than one while it is being changed.
#[derive(Clone)]
pub struct Credentials(Vec<Vec<u8>>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} secrets, <redacted>)", self.0.len())
    }
}

impl Credentials {
    /// Reads secrets as Standard Webhooks writes them, separated by spaces; `None` when one of them is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let secret = |text: &str| {
            let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
            SECRET_BYTES.contains(&bytes.len()).then_some(bytes)
        };
        let secrets: Option<Vec<_>> = text.split_whitespace().map(secret).collect();
        secrets.filter(|secrets| !secrets.is_empty()).map(Self)
    }
}

/// The three headers of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`: unix seconds.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signatures: &'a str,
}

/// The `v1` signature of a delivery with one secret, in base64.
#[must_use]
pub fn sign(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    mac(secret, id, timestamp, body).map_or_else(String::new, |mac| STANDARD.encode(mac.finalize().into_bytes()))
}

fn mac(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes a key of any length; the error is of other constructions.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

/// Authenticates a raw body.
///
/// # Errors
///
/// [`IntakeError::Malformed`] without the three headers, [`IntakeError::BadSignature`] when it is not
/// from the holder of a secret, [`IntakeError::Stale`] when it is, and not from now.
pub fn verify(
    credentials: &Credentials,
    headers: Headers<'_>,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Verified, IntakeError> {
    let Headers { id, timestamp, signatures } = headers;
    if id.is_empty() || id.chars().count() > MAX_TEXT || id.chars().any(char::is_control) {
        return Err(IntakeError::Malformed("webhook-id is missing or too long"));
    }
    let sent = timestamp.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let sent = sent.ok_or(IntakeError::Malformed("webhook-timestamp is no unix time"))?;
    let given: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .take(MAX_SIGNATURES)
        .collect();
    // Each is compared in constant time, and all of them are: nothing shows which one it was.
    let mut signed = false;
    for secret in &credentials.0 {
        for signature in &given {
            signed |= mac(secret, id, timestamp, body).is_some_and(|mac| mac.verify_slice(signature).is_ok());
        }
    }
    if !signed {
        return Err(IntakeError::BadSignature);
    }
    if (now - sent).abs() > TOLERANCE {
        return Err(IntakeError::Stale);
    }
    let json = std::str::from_utf8(body).map_err(|_| IntakeError::Malformed("the body is not UTF-8"))?;
    if json.contains('\0') {
        return Err(IntakeError::Malformed("the body contains NUL"));
    }
    Ok(Verified { json: json.to_owned() })
}

/// Signatures of one delivery that are looked at.
const MAX_SIGNATURES: usize = 8;

/// An event of a call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"type": "call.started", "timestamp": "2026-10-05T03:20:00Z",
    "data": {"call_id": "c-1017", "direction": "incoming", "from": "+79130000001", "line": "+73832000101"}}))]
pub struct GenericEvent {
    /// What happened.
    pub r#type: EventType,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// To which call.
    pub data: CallData,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub enum EventType {
    /// It rings.
    #[serde(rename = "call.started")]
    Started,
    /// A person picked up.
    #[serde(rename = "call.answered")]
    Answered,
    /// It is over; the last word about it.
    #[serde(rename = "call.ended")]
    Ended,
}

/// A call, as far as it is known at that moment.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CallData {
    /// The same in all events of a call.
    #[schema(example = "c-1017")]
    pub call_id: String,
    /// Who called whom.
    pub direction: Direction,
    /// The caller's number.
    #[serde(default)]
    #[schema(example = "+79130000001")]
    pub from: Option<String>,
    /// The called number.
    #[serde(default)]
    #[schema(example = "+73832000101")]
    pub to: Option<String>,
    /// Our number that was dialled; needed of an incoming call.
    #[serde(default)]
    #[schema(example = "+73832000101")]
    pub line: Option<String>,
    /// The employee's extension, once one is concerned.
    #[serde(default)]
    #[schema(example = "101")]
    pub operator: Option<String>,
    /// Of an ended call.
    #[serde(default)]
    pub result: Option<CallResult>,
    /// Of an ended call: when it began to ring.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// Of an ended call: when it was answered, if it was.
    #[serde(default)]
    pub answered_at: Option<DateTime<Utc>>,
    /// Of an ended call: the network's cause code (ITU-T Q.850), if there is one.
    #[serde(default)]
    pub cause: Option<i64>,
}

/// Names a delivery. Never fails: what cannot be read is stored too.
#[must_use]
pub fn identify(id: &str, json: &str) -> Identity {
    Identity { event_key: id.to_owned(), call_key: read(json).ok().map(|event| event.data.call_id) }
}

/// The kind under which an event is stored.
#[must_use]
pub fn kind(json: &str) -> &'static str {
    match read(json).map(|event| event.r#type) {
        Ok(EventType::Started) => "call.started",
        Ok(EventType::Answered) => "call.answered",
        Ok(EventType::Ended) => "call.ended",
        Err(_) => "unknown",
    }
}

fn read(json: &str) -> Result<GenericEvent, ParseError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let event: GenericEvent = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // The path holds names of ours, but for an unknown variant's, which is the sender's.
        let field = if error.inner().is_data() { error.path().to_string() } else { "body".to_owned() };
        ParseError::new(field.chars().take(64).collect::<String>(), "is missing or not what it should be")
    })?;
    let data = &event.data;
    let texts = [
        ("data.call_id", Some(&data.call_id)),
        ("data.from", data.from.as_ref()),
        ("data.to", data.to.as_ref()),
        ("data.line", data.line.as_ref()),
        ("data.operator", data.operator.as_ref()),
    ];
    for (field, text) in texts {
        let fits =
            |text: &String| (1..=MAX_TEXT).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if !text.is_none_or(fits) {
            return Err(ParseError::new(field, "is empty, too long or not printable"));
        }
    }
    // As the database's range; a call of another century is a broken clock.
    let times = [Some(&event.timestamp), data.started_at.as_ref(), data.answered_at.as_ref()];
    if !times.into_iter().flatten().all(is_plausible) {
        return Err(ParseError::new("timestamp", "lies before 2000 or after 2100"));
    }
    if data.direction == Direction::Incoming && data.line.is_none() {
        return Err(ParseError::new("data.line", "is needed of an incoming call"));
    }
    if event.r#type == EventType::Ended && data.result.is_none() {
        return Err(ParseError::new("data.result", "is needed of an ended call"));
    }
    Ok(event)
}

/// Reads a stored event.
///
/// # Errors
/// When it is not of this format.
pub fn parse(json: &str) -> Result<CallEvent, ParseError> {
    let GenericEvent { r#type, timestamp, data } = read(json)?;
    let ours =
        |number: &Option<String>| Party { number: number.clone(), extension: data.operator.clone().or(number.clone()) };
    let theirs = |number: &Option<String>| Party { number: number.clone(), extension: None };
    let (from, to) = match data.direction {
        // On our side there is an extension once somebody is concerned, and a number at most before.
        Direction::Incoming | Direction::Unknown => {
            (theirs(&data.from), Party { number: data.to.clone(), extension: data.operator.clone() })
        }
        Direction::Outgoing => (ours(&data.from), theirs(&data.to)),
        Direction::Internal => {
            let party = |number: &Option<String>| Party { number: number.clone(), extension: number.clone() };
            (party(&data.from), party(&data.to))
        }
    };
    let leg = |seq, state, location| {
        CallEvent::Leg(LegEvent {
            call_key: data.call_id.clone(),
            leg: String::new(),
            seq,
            at: timestamp,
            state,
            location,
            from: from.clone(),
            to: to.clone(),
            line: data.line.clone(),
            disconnect_reason: None,
        })
    };
    Ok(match r#type {
        EventType::Started => leg(0, LegState::Appeared, Location::Queue),
        EventType::Answered => leg(1, LegState::Connected, Location::Abonent),
        EventType::Ended => CallEvent::Summary(Summary {
            call_key: data.call_id.clone(),
            direction: data.direction,
            line: data.line.clone(),
            from: from.clone(),
            to: to.clone(),
            created_at: data.started_at,
            forwarded_at: None,
            talk_at: data.answered_at,
            ended_at: Some(timestamp),
            answered: data.result == Some(CallResult::Answered),
            disconnect_reason: data.cause,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calls::facts::fold;

    /// From the specification of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers<'a>(timestamp: &'a str, signatures: &'a str) -> Headers<'a> {
        Headers { id: ID, timestamp, signatures }
    }

    #[test]
    fn the_specifications_own_example_is_accepted() {
        let credentials = Credentials::read(SECRET).unwrap();
        let at = |seconds: i64| DateTime::from_timestamp(1_614_265_330 + seconds, 0).unwrap();
        let check = |signatures: &str, now: i64| verify(&credentials, headers("1614265330", signatures), BODY, at(now));
        assert_eq!(check(SIGNATURE, 0).unwrap().json.as_bytes(), BODY);
        assert!(check(&format!("v1,bm9uZQ== v2,x {SIGNATURE}"), 300).is_ok(), "one of several");
        for (signatures, now) in [("", 0), ("", 301), ("v1,", 0), ("v1a,g0hM", 0), (&SIGNATURE[3..], 0)] {
            assert_eq!(check(signatures, now).unwrap_err(), IntakeError::BadSignature, "{signatures} {now}");
        }
        for now in [301, -301] {
            assert_eq!(check(SIGNATURE, now).unwrap_err(), IntakeError::Stale);
        }
        let other = verify(&credentials, Headers { id: "msg_other", ..headers("1614265330", SIGNATURE) }, BODY, at(0));
        assert_eq!(other.unwrap_err(), IntakeError::BadSignature, "the id is signed");
        let other = verify(&credentials, headers("1614265331", SIGNATURE), BODY, at(0));
        assert_eq!(other.unwrap_err(), IntakeError::BadSignature, "the time is signed");
    }

    #[test]
    fn secrets_are_of_the_standards_form() {
        assert_eq!(Credentials::read(&format!("{SECRET} {SECRET}")).unwrap().0.len(), 2);
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!", &format!("{SECRET} x")] {
            assert!(Credentials::read(text).is_none(), "{text}");
        }
        assert!(!format!("{:?}", Credentials::read(SECRET).unwrap()).contains("MfKQ"));
    }

    fn event(kind: &str, at: u32, rest: &str) -> CallEvent {
        let json = format!(
            r#"{{"type": "call.{kind}", "timestamp": "2026-10-05T03:20:{at:02}Z",
                 "data": {{"call_id": "c", "direction": "incoming", "from": "+79130000001", "line": "+73832000101"{rest}}}}}"#
        );
        parse(&json).unwrap()
    }

    #[test]
    fn a_call_is_what_its_events_say_in_any_order() {
        let started = event("started", 0, "");
        let answered = event("answered", 8, r#", "operator": "101""#);
        let ended = event(
            "ended",
            48,
            r#", "operator": "101", "result": "answered", "started_at": "2026-10-05T03:20:00Z", "answered_at": "2026-10-05T03:20:08Z""#,
        );
        let facts = fold(&[started.clone(), answered.clone(), ended.clone()]);
        assert_eq!(fold(&[ended, answered.clone(), started.clone(), answered.clone()]), facts);
        assert_eq!((facts.direction, facts.result), (Direction::Incoming, Some(CallResult::Answered)));
        assert_eq!((facts.wait_seconds, facts.talk_seconds), (Some(8), Some(40)));
        assert_eq!(facts.operator_extension.as_deref(), Some("101"));
        let ringing = fold(&[started]);
        assert_eq!((ringing.direction, ringing.result, ringing.answered_at), (Direction::Incoming, None, None));
    }

    #[test]
    fn directions_are_those_that_were_told() {
        for (told, direction) in
            [("outgoing", Direction::Outgoing), ("internal", Direction::Internal), ("incoming", Direction::Incoming)]
        {
            let json = format!(
                r#"{{"type": "call.started", "timestamp": "2026-10-05T03:20:00Z",
                     "data": {{"call_id": "c", "direction": "{told}", "from": "101", "to": "102", "line": "+73832000101"}}}}"#
            );
            assert_eq!(fold(&[parse(&json).unwrap()]).direction, direction);
        }
    }

    #[test]
    fn what_is_missing_is_named_and_not_quoted() {
        let error = |json: &str| parse(json).unwrap_err().to_string();
        assert!(error("{").starts_with("body:"));
        assert!(error(r#"{"type": "call.secret", "timestamp": "2026-10-05T03:20:00Z"}"#).starts_with("type:"));
        let of = |rest: &str| {
            error(&format!(r#"{{"type": "call.ended", "timestamp": "2026-10-05T03:20:00Z", "data": {{{rest}}}}}"#))
        };
        assert!(of(r#""call_id": "c", "direction": "incoming", "result": "missed""#).starts_with("data.line:"));
        assert!(of(r#""call_id": "c", "direction": "outgoing""#).starts_with("data.result:"));
        assert!(of(r#""call_id": "", "direction": "outgoing", "result": "missed""#).starts_with("data.call_id:"));
        assert!(!error(r#"{"type": "call.ended", "timestamp": "+7 913"}"#).contains("913"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>, id: String, timestamp: String, signatures: String) {
            let credentials = Credentials::read(SECRET).unwrap();
            let headers = Headers { id: &id, timestamp: &timestamp, signatures: &signatures };
            prop_assert!(verify(&credentials, headers, &body, DateTime::UNIX_EPOCH).is_err());
            let text = String::from_utf8_lossy(&body);
            let _ = (parse(&text), kind(&text), identify(&id, &text));
        }

        #[test]
        fn what_is_signed_arrives_unchanged_and_nothing_else(
            body in "[^\0]{0,60}",
            id in "[a-z0-9_]{1,20}",
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let credentials = Credentials::read(SECRET).unwrap();
            let signature = format!("v1,{}", sign(&credentials.0[0], &id, "7", body.as_bytes()));
            let headers = Headers { id: &id, timestamp: "7", signatures: &signature };
            let check = |body: &[u8]| verify(&credentials, headers, body, DateTime::UNIX_EPOCH);
            prop_assert_eq!(check(body.as_bytes()).unwrap().json, body.clone());
            let mut forged = body.into_bytes();
            if !forged.is_empty() {
                let at = at.index(forged.len());
                forged[at] ^= 1 << bit;
                prop_assert_eq!(check(&forged).unwrap_err(), IntakeError::BadSignature);
            }
        }
    }
}
