//! The telephone side: plays planned calls as the provider's deliveries.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{Lane, with_query},
    plan::{
        call::{Kind, Leg, PlannedCall, What},
        story::Story,
    },
    tally::Counts,
    world::{File, Known, World},
};
use crate::calls::{
    facts::Direction,
    providers::mango::{self, Credentials, EventKind},
};

/// Where the provider's servers are.
const ADDRESS: &str = "10.200.0.1";
/// How long the effect of an event may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call of the list, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Seen {
    request_id: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Receipt {
    status: String,
}

/// A call that is being played.
struct Caller {
    world: Arc<World>,
    number: usize,
    /// Unix second at which the call began, in its events.
    base: i64,
    /// Which events were taken.
    taken: Vec<bool>,
}

/// Plays a call from its first to its last delivery.
pub async fn play(world: Arc<World>, number: usize, now: i64) {
    let call = &world.plan.calls[number];
    // The day is compressed and the server's clock is not: a call is made to have ended just now.
    let base = now - i64::from(call.length());
    let mut caller = Caller { base, number, taken: vec![false; call.events.len()], world: world.clone() };
    let mut decided = false;
    Counts::add(&mut world.tally.lock().calls_by_kind, call.kind);
    for delivery in &call.deliveries {
        world.pace.until(f64::from(call.at) + f64::from(delivery.at)).await;
        let tells = call.events[delivery.event].what.tells_direction();
        if let (false, true, false, Some(story)) = (decided, tells, delivery.forged, &call.story) {
            decided = caller.post_decisive(delivery.event, story).await;
            continue;
        }
        let _turn = world.turn().await;
        if delivery.forged {
            caller.post_forged(delivery.event).await;
        } else if caller.post(delivery.event).await && tells && !decided {
            decided = true;
            caller.file_in_triage();
        }
    }
}

impl Caller {
    fn call(&self) -> &PlannedCall {
        &self.world.plan.calls[self.number]
    }

    /// Delivers the event by which the server decides about the call, and waits for the decision.
    async fn post_decisive(&mut self, event: usize, story: &Story) -> bool {
        let (world, client) = (self.world.clone(), self.call().client);
        let mut file = world.clients[client].file.lock().await;
        let joins = file.joins(world.window).await;
        // Kept until the decision is seen: when the server falls behind, the provider waits for it.
        let _turn = world.turn().await;
        if !self.post(event).await {
            return false;
        }
        let Some(request) = self.await_decision(client, &mut file).await else { return true };
        let known = file.requests.iter().any(|known| known.id == request);
        if known != joins {
            let (expected, is) = if joins { ("join", "made a new one") } else { ("make a new one", "joined") };
            world.tally.error(format!("call {}: expected to {expected}, but it {is} ({request})", self.entry()));
        }
        if joins {
            world.tally.lock().joined += 1;
        } else {
            Counts::add(&mut world.tally.lock().created, crate::requests::model::Source::Call);
        }
        if !known {
            file.requests.push(Known { id: request, made: std::time::Instant::now(), open: true });
            world.begin_job(request, client, story.clone());
        }
        true
    }

    /// Waits until the server shows the call, and tells its service request.
    async fn await_decision(&self, client: usize, file: &mut File) -> Option<i64> {
        let world = &self.world;
        let path = with_query("/calls", &[("phone", &world.clients[client].phone), ("limit", "200")]);
        let wait = async {
            let mut pause = Duration::from_millis(20);
            loop {
                let (page, _) = world.admin.get::<Page>(&path).await?;
                if page.items.len() > file.calls {
                    file.calls = page.items.len();
                    return page.items.into_iter().next();
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        };
        let seen = tokio::time::timeout(PATIENCE, wait).await;
        if let Ok(seen) = seen {
            let request = seen?.request_id;
            if request.is_none() {
                world.tally.error(format!("call {}: on a known line, and has no service request", self.entry()));
            }
            return request;
        }
        world.tally.error(format!("call {}: not seen within {} s", self.entry(), PATIENCE.as_secs()));
        None
    }

    /// The call waits in triage now; an operator may find it there.
    fn file_in_triage(&self) {
        let (world, call) = (&self.world, self.call());
        match call.kind {
            Kind::UnknownLine => world.tally.lock().unknown_line += 1,
            Kind::Anonymous => world.tally.lock().unknown_caller += 1,
            _ => return,
        }
        let Some(typed) = call.typed.clone() else { return };
        let mut tray = world.in_tray();
        if call.kind == Kind::Anonymous {
            tray.anonymous[typed.city].push(typed);
        } else {
            tray.by_phone.insert(world.clients[call.client].phone.clone(), typed);
        }
    }

    /// Delivers an event as the provider does; `true` when the server has it.
    async fn post(&mut self, event: usize) -> bool {
        let kind = self.call().events[event].what.kind();
        let json = self.payload(event).to_string();
        let sign = mango::sign(&self.world.mango, &json);
        let Some((status, receipt, again)) = self.send(kind, &json, &sign).await else { return false };
        if status != StatusCode::OK {
            self.world.tally.error(format!("{} of call {}: {receipt}", kind.as_str(), self.entry()));
            return false;
        }
        let first = !std::mem::replace(&mut self.taken[event], true);
        let expected = if first { "accepted" } else { "duplicate" };
        // What the server stored, but could not say so.
        let unsaid = first && again && receipt == "duplicate";
        if receipt != expected && !unsaid {
            let entry = self.entry();
            self.world.tally.error(format!("{} of call {entry}: {receipt} instead of {expected}", kind.as_str()));
        }
        let mut counts = self.world.tally.lock();
        if !first {
            counts.duplicates += 1;
            return true;
        }
        counts.accepted += 1;
        counts.duplicates += u32::from(unsaid);
        match kind {
            EventKind::Recording => counts.ignored += 1,
            EventKind::Summary => {
                let call = self.call();
                Counts::add(&mut counts.calls, (call.result(), call.kind.direction()));
            }
            EventKind::Call | EventKind::RecordAdded => {}
        }
        true
    }

    /// Somebody else pretends to be the provider.
    async fn post_forged(&self, event: usize) {
        let kind = self.call().events[event].what.kind();
        let json = self.payload(event).to_string();
        let salt = format!("not {}", self.world.mango.api_salt);
        let sign = mango::sign(&Credentials { api_salt: salt, ..self.world.mango.clone() }, &json);
        match self.send(kind, &json, &sign).await {
            Some((StatusCode::UNAUTHORIZED, ..)) => self.world.tally.lock().rejected += 1,
            Some((_, receipt, _)) => self.world.tally.error(format!("a forged delivery was answered {receipt}")),
            None => {}
        }
    }

    /// Status, what the receipt or the problem says, and whether it was sent more than once.
    async fn send(&self, kind: EventKind, json: &str, sign: &str) -> Option<(StatusCode, String, bool)> {
        let world = &self.world;
        let path = format!("/webhooks/telephony/mango/events/{}", kind.as_str());
        let form = [("vpbx_api_key", world.mango.api_key.as_str()), ("sign", sign), ("json", json)];
        let request = world.api.request(Method::POST, &path, ADDRESS).form(&form);
        match world.api.persist(&request, Lane::Webhook, &world.tally).await {
            Ok((answer, again)) if answer.is_good() => {
                let receipt = answer.read::<Receipt>().map_or_else(|error| error, |receipt| receipt.status);
                Some((answer.status, receipt, again))
            }
            Ok((answer, again)) => Some((answer.status, answer.problem(), again)),
            Err(error) => {
                world.tally.disconnected(format!("POST {path}: {error}"));
                None
            }
        }
    }

    fn entry(&self) -> String {
        format!("sim-{}-{}", self.world.began.timestamp_micros(), self.number)
    }

    fn payload(&self, event: usize) -> Value {
        let call = self.call();
        payload(call, event, &self.entry(), &self.world.clients[call.client].phone[1..], self.base)
    }
}

/// An event as the provider writes it.
pub fn payload(call: &PlannedCall, event: usize, entry: &str, phone: &str, base: i64) -> Value {
    let happened = call.events[event];
    let at = |second: u32| base + i64::from(second);
    let staff =
        |extension: u32| json!({ "extension": extension.to_string(), "number": format!("sip:{extension}@demo") });
    let leg_id = |leg: Leg| {
        format!(
            "{entry}/{}",
            match leg {
                Leg::Menu => "menu",
                Leg::Queue => "queue",
                Leg::Person => "person",
            }
        )
    };
    let direction = call.kind.direction();
    let from = match call.kind {
        Kind::Anonymous => json!({ "number": "anonymous" }),
        Kind::Outgoing | Kind::Internal => staff(call.extension),
        _ => json!({ "number": phone }),
    };
    let to = match direction {
        Direction::Outgoing => json!({ "number": phone }),
        Direction::Internal => staff(call.extension + 50),
        _ if call.answered => staff(call.extension),
        _ => json!({ "number": call.line }),
    };
    // Only what crosses the border to the outside has a line.
    let line = (direction != Direction::Internal).then_some(&call.line);
    match happened.what {
        What::Leg { leg, seq, state } => {
            let mut to = if leg == Leg::Person { to } else { json!({ "number": call.line }) };
            if let Some(line) = line {
                to["line_number"] = line.as_str().into();
            }
            let location = match leg {
                Leg::Menu => "ivr.1",
                Leg::Queue => "queue",
                Leg::Person => "abonent",
            };
            json!({
                "entry_id": entry, "call_id": leg_id(leg), "timestamp": at(happened.at), "seq": seq,
                "call_state": state, "location": location, "from": from, "to": to,
                "disconnect_reason": if state == "Disconnected" { json!(1110) } else { Value::Null },
            })
        }
        What::Summary => json!({
            "entry_id": entry, "line_number": line, "from": from, "to": to,
            "call_direction": match direction { Direction::Incoming => 1, Direction::Outgoing => 2, _ => 0 },
            "create_time": at(0), "forward_time": at(0),
            "talk_time": if call.answered { at(call.rings) } else { 0 },
            "end_time": at(call.length()), "entry_result": i32::from(call.answered),
            "disconnect_reason": if call.answered { 1110 } else { 1120 },
        }),
        What::RecordingStarted => json!({
            "entry_id": entry, "call_id": leg_id(Leg::Person), "timestamp": at(happened.at), "seq": 1,
            "recording_id": format!("{entry}/record"), "recording_state": "Started",
        }),
        What::RecordAdded => json!({
            "entry_id": entry, "recording_id": format!("{entry}/record"), "timestamp": at(happened.at),
        }),
    }
}
