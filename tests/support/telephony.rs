//! A PBX: signed Mango events.

use serde_json::{Value, json};
use switchboard::calls::providers::mango::{Credentials, sign};

use super::{
    MANGO_KEY, MANGO_SALT,
    actor::{Actor, Answer},
};

/// One event, not yet sent.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: &'static str,
    pub json: String,
}

/// A call being made.
#[derive(Clone, Debug)]
pub struct Call {
    pub entry: String,
    pub from: String,
    pub line: String,
    /// Unix seconds.
    pub start: i64,
}

impl Call {
    pub fn new(entry: &str, from: &str, line: &str) -> Self {
        let start = super::morning().timestamp();
        Self { entry: entry.to_owned(), from: from.to_owned(), line: line.to_owned(), start }
    }

    fn leg(&self, leg: &str, seq: i64, state: &str, location: &str, after: i64) -> Event {
        let mut to = json!({ "number": self.line, "line_number": self.line });
        if location == "abonent" {
            to["extension"] = json!("101");
        }
        event(
            "call",
            &json!({
                "entry_id": self.entry, "call_id": format!("{}-{leg}", self.entry), "seq": seq, "call_state": state,
                "location": location, "timestamp": self.start + after, "from": { "number": self.from }, "to": to,
            }),
        )
    }

    pub fn appeared(&self) -> Event {
        self.leg("a", 1, "Appeared", "ivr", 0)
    }

    /// Extension 101 calls out.
    pub fn outgoing(&self) -> Vec<Event> {
        self.by_us(2, &json!({ "number": self.from }))
    }

    /// Extension 101 calls extension 102.
    pub fn internal(&self) -> Vec<Event> {
        self.by_us(0, &json!({ "extension": "102", "number": "102" }))
    }

    fn by_us(&self, direction: i64, to: &Value) -> Vec<Event> {
        let from = json!({ "extension": "101", "number": "101" });
        let leg = json!({
            "entry_id": self.entry, "call_id": format!("{}-a", self.entry), "seq": 1, "call_state": "Appeared",
            "location": "abonent", "timestamp": self.start, "from": from, "to": to,
        });
        let summary = json!({
            "entry_id": self.entry, "call_direction": direction, "line_number": self.line, "from": from, "to": to,
            "create_time": self.start, "talk_time": self.start + 4, "end_time": self.start + 34, "entry_result": 1,
        });
        vec![event("call", &leg), event("summary", &summary)]
    }

    fn summary(&self, answered: bool, talk: i64, end: i64) -> Event {
        event(
            "summary",
            &json!({
                "entry_id": self.entry, "call_direction": 1, "line_number": self.line,
                "from": { "number": self.from }, "to": { "extension": "101", "number": self.line },
                "create_time": self.start, "forward_time": self.start + 2,
                // Numbers as strings: the provider mixes them.
                "talk_time": if answered { (self.start + talk).to_string() } else { "0".to_owned() },
                "end_time": self.start + end, "entry_result": i32::from(answered), "disconnect_reason": 1110,
            }),
        )
    }

    /// Rings 8 s, talks 52 s.
    pub fn answered(&self) -> Vec<Event> {
        vec![
            self.appeared(),
            self.leg("a", 2, "Connected", "ivr", 1),
            self.leg("b", 1, "Appeared", "abonent", 2),
            self.leg("b", 2, "Connected", "abonent", 8),
            self.leg("b", 3, "Disconnected", "abonent", 60),
            self.leg("a", 3, "Disconnected", "ivr", 60),
            self.summary(true, 8, 60),
        ]
    }

    /// Rings 25 s in vain.
    pub fn missed(&self) -> Vec<Event> {
        vec![self.appeared(), self.leg("a", 2, "Disconnected", "ivr", 25), self.summary(false, 0, 25)]
    }
}

fn event(kind: &'static str, json: &Value) -> Event {
    Event { kind, json: json.to_string() }
}

/// The form of a delivery, signed with `salt`.
pub fn form(json: &str, salt: &str) -> Vec<(&'static str, String)> {
    let credentials = Credentials { api_key: MANGO_KEY.to_owned(), api_salt: salt.to_owned() };
    vec![("vpbx_api_key", MANGO_KEY.to_owned()), ("sign", sign(&credentials, json)), ("json", json.to_owned())]
}

impl Actor {
    /// Delivers an event as the PBX does.
    pub async fn deliver(&self, event: &Event) -> Answer {
        self.deliver_raw(&format!("/events/{}", event.kind), &form(&event.json, MANGO_SALT)).await
    }

    /// Delivers a call's events.
    pub async fn deliver_all(&self, events: &[Event]) {
        for event in events {
            self.deliver(event).await.expect(200);
        }
    }

    pub async fn deliver_raw(&self, path: &str, form: &[(&str, String)]) -> Answer {
        let path = format!("/api/v1/webhooks/telephony/mango{path}");
        self.send(self.request(reqwest::Method::POST, &path).form(form)).await
    }
}
