//! Staff at their desks: look at the list of what is theirs, take something on, open it, think, act.
//! Nobody is told what others do, so two may want the same; the server decides.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::with_query,
    in_tray,
    jobs::Picked,
    people::Person,
    plan::story::{Desk, Step, With},
    tally::Counts,
    world::World,
};
use crate::{auth::Role, clock::Clock, requests::state::Status};

/// However fast the day: nobody looks at a list more often than this, in real time.
const EYES: Duration = Duration::from_millis(300);
/// What is due within this real time is worth waiting for.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Pages of a list that people read.
const PAGES: usize = 20;

/// A service request, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Card {
    /// Its number.
    pub id: i64,
    version: i32,
    status: Status,
    client_name: Option<String>,
    first_response_at: Option<DateTime<Utc>>,
    assigned_at: Option<DateTime<Utc>>,
    handover: Option<Decimal>,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Card>,
    next_cursor: Option<String>,
}

/// Which desks a role sits at, what it looks for there, and how often, in simulated seconds.
fn work_of(role: Role) -> (&'static [Desk], &'static str, u32) {
    match role {
        Role::Operator => (&[Desk::Operator], "new,callback,no_answer", 150),
        Role::Manager => (&[Desk::Planner, Desk::Manager], "waiting,refused", 240),
        Role::Marketer => (&[Desk::Planner], "waiting", 420),
        Role::Master => (&[Desk::Master], "offered,accepted,en_route,in_progress,deferred", 300),
        Role::Director | Role::Admin => (&[Desk::Director], "done", 900),
    }
}

/// Works until staff go home.
pub async fn work(world: Arc<World>, person: Person) {
    let (desks, statuses, every) = work_of(person.role);
    let mut rounds = 0_u32;
    while !world.closed.is_cancelled() {
        let mut busy = false;
        for card in list(&world, &person, statuses).await {
            if world.closed.is_cancelled() {
                return;
            }
            busy |= work_on(&world, &person, desks, card).await;
        }
        if person.role == Role::Operator {
            busy |= in_tray::work(&world, &person, rounds).await;
        }
        rounds += 1;
        // After a busy round the next look is due soon.
        let pause = if busy { every / 5 } else { every };
        tokio::select! {
            () = world.closed.cancelled() => return,
            () = world.pace.pause(pause, EYES) => {}
        }
    }
}

/// Takes back, in the evening, the offers that no master will answer any more: left alone they would time out a quarter
/// of an hour later, among the figures of whoever plays the next day.
pub async fn take_back_offers(world: &World) {
    for card in list(world, &world.admin, Status::Offered.as_str()).await {
        let path = format!("/requests/{}", card.id);
        let Some((open, etag)) = world.admin.get::<Card>(&path).await else { continue };
        if open.status != Status::Offered {
            continue;
        }
        let (path, body) = (format!("{path}/transitions"), json!({ "to": Status::Waiting }));
        let Some(answer) = world.admin.ask(Method::POST, &path, Some(&body), etag.as_deref()).await else { continue };
        match answer.read::<Card>() {
            Ok(after) => settle(world, &open, &after),
            Err(error) => world.tally.error(format!("POST {path}: {error}")),
        }
    }
}

/// Makes the next step of a service request, and those after it that are due at once; `false` when
/// there was none to make.
async fn work_on(world: &World, person: &Person, desks: &[Desk], mut card: Card) -> bool {
    let mut busy = false;
    while let Some(picked) = world.pick(card.id, card.status, desks) {
        busy = true;
        let Some((after, due)) = act(world, person, &card, &picked).await else { break };
        if world.closed.is_cancelled() || !world.pace.is_within(due, AT_ONCE) {
            break;
        }
        drop(picked);
        world.pace.until(due).await;
        card = after;
    }
    busy
}

/// The service requests of this run in these states, newest first.
async fn list(world: &World, person: &Person, statuses: &str) -> Vec<Card> {
    // The server's clock may be a little behind.
    let since = (world.began - TimeDelta::minutes(2)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut parameters = vec![("status", statuses), ("created_from", since.as_str()), ("limit", "100")];
    if let Some(city) = person.city {
        parameters.push(("city", world.plan.cities[city].as_str()));
    }
    let mut cards = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES {
        let mut parameters = parameters.clone();
        if let Some(cursor) = &cursor {
            parameters.push(("cursor", cursor));
        }
        let Some((page, _)) = person.get::<Page>(&with_query("/requests", &parameters)).await else { break };
        cards.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    cards
}

/// Opens a service request, thinks and makes the step; what became of it, and when the next is due.
async fn act(world: &World, person: &Person, card: &Card, picked: &Picked) -> Option<(Card, f64)> {
    let step = picked.step()?;
    let path = format!("/requests/{}", card.id);
    let Some((open, etag)) = person.get::<Card>(&path).await else { return picked.failed() };
    if open.version != card.version {
        // Somebody was quicker, and the screen shows it.
        return None;
    }
    world.pace.pause(step.thinks, Duration::ZERO).await;
    // From here on no call of this client may be decided until the outcome is known.
    let client = &world.clients[picked.job.client];
    let mut file = client.file.lock().await;
    let mut etag = etag.unwrap_or_default();
    if step.desk == Desk::Operator && open.client_name.is_none() && step.to != Status::NoAnswer {
        let name = json!({ "client_name": picked.job.story.name, "description": picked.job.story.problem });
        match person.ask(Method::PATCH, &path, Some(&name), Some(&etag)).await {
            Some(answer) if answer.is_good() => {
                world.tally.lock().edits += 1;
                etag = answer.etag.unwrap_or_default();
            }
            Some(_) => {
                world.tally.lock().other_conflicts += 1;
                return None;
            }
            None => return picked.failed(),
        }
    }
    if let Some(text) = step.comment {
        comment(world, person, &path, text).await;
    }
    let (path, body) = order(world, person, &path, step);
    let Some(answer) = person.ask(Method::POST, &path, Some(&body), Some(&etag)).await else { return picked.failed() };
    if answer.is_conflict() {
        let mut counts = world.tally.lock();
        match answer.status {
            StatusCode::PRECONDITION_FAILED => counts.stale_moves += 1,
            _ => counts.impossible_moves += 1,
        }
        return None;
    }
    match answer.read::<Card>() {
        Ok(after) => {
            if let Some(known) = file.requests.iter_mut().find(|known| known.id == card.id) {
                known.open = !after.status.is_finished();
            }
            settle(world, &open, &after);
            let due = picked.done(after.status, world.pace.now());
            Some((after, due))
        }
        Err(error) => {
            world.tally.error(format!("{}: POST {path}: {error}", person.login));
            picked.failed()
        }
    }
}

async fn comment(world: &World, person: &Person, path: &str, text: &str) {
    let (path, body) = (format!("{path}/comments"), json!({ "body": text }));
    if person.ask(Method::POST, &path, Some(&body), None).await.is_some_and(|answer| answer.is_good()) {
        world.tally.lock().comments += 1;
    }
}

/// Where to post a step, and what.
fn order(world: &World, person: &Person, path: &str, step: &Step) -> (String, Value) {
    let hence = |hours: u32| Clock::System.now() + TimeDelta::hours(hours.into());
    let to = step.to.as_str();
    let body = match &step.with {
        With::Master(number) => {
            let masters = person.city.map_or(&[][..], |city| &world.masters[city]);
            let master = masters.get(number % masters.len().max(1));
            return (format!("{path}/assign"), json!({ "master_id": master }));
        }
        With::Nothing => json!({ "to": to }),
        With::Reason(why) => json!({ "to": to, "reason": why }),
        With::CallBack(hours) => json!({ "to": to, "callback_at": hence(*hours) }),
        With::Visit(address, hours) => json!({ "to": to, "address": address, "meeting_at": hence(*hours) }),
        With::Later(hours) => json!({ "to": to, "resume_at": hence(*hours) }),
        With::Money(result, expenses) => json!({ "to": to, "result": result, "expenses": expenses }),
    };
    (format!("{path}/transitions"), body)
}

/// Counts what a move means; what the request was before is certain, because the move named its version.
fn settle(world: &World, before: &Card, after: &Card) {
    let mut counts = world.tally.lock();
    Counts::add(&mut counts.moves, (before.status, after.status));
    if before.status == Status::New && before.first_response_at.is_none() {
        counts.first_responses += 1;
    }
    if after.status == Status::Offered && before.assigned_at.is_none() {
        counts.first_offers += 1;
    }
    if after.status == Status::Done {
        counts.completions += 1;
        counts.bookings += 1;
        counts.revenue += after.handover.unwrap_or_default();
    }
    if before.status == Status::Done {
        counts.reversals += 1;
        counts.refunds += before.handover.unwrap_or_default();
    }
}
