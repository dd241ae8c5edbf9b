//! What operators do besides service requests that calls made: type in those who wrote or came by,
//! and look through triage for callers who would be lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    people::Person,
    plan::Typed,
    tally::Counts,
    world::{InTray, Known, World},
};
use crate::{
    calls::model::Triage,
    requests::{model::Source, state::Status},
};

/// Triage is looked at in every third round.
const TRIAGE_EVERY: u32 = 3;
/// Seconds to type a service request in.
const TYPING: u32 = 120;

#[derive(Debug, Deserialize)]
struct Created {
    id: i64,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Lost {
    id: i64,
    from: Option<String>,
    triage: Option<Triage>,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Lost>,
}

/// One look; `true` when there was something to do.
pub async fn work(world: &Arc<World>, operator: &Person, round: u32) -> bool {
    let Some(city) = operator.city else { return false };
    let mut busy = false;
    loop {
        // Taken before the paper leaves the tray, so that nobody thinks that all is done.
        let _at_it = world.begin();
        let next = next_walk_in(&mut world.in_tray(), city, world.pace.now());
        let Some(typed) = next else { break };
        world.pace.pause(TYPING, Duration::ZERO).await;
        type_in(world, operator, &typed).await;
        busy = true;
    }
    if round.is_multiple_of(TRIAGE_EVERY) {
        busy |= look_through_triage(world, operator, city).await;
    }
    busy
}

fn next_walk_in(tray: &mut InTray, city: usize, now: f64) -> Option<Typed> {
    tray.walk_ins[city].pop_front_if(|typed| f64::from(typed.at) <= now)
}

/// Types a service request in; its number.
async fn type_in(world: &World, operator: &Person, typed: &Typed) -> Option<i64> {
    let client = &world.clients[typed.client];
    let mut file = client.file.lock().await;
    let body = json!({
        "city": world.plan.cities[typed.city],
        "phone": client.phone,
        "direction": world.fields.get(typed.field % world.fields.len().max(1)),
        "client_name": typed.story.name,
        "description": typed.story.problem,
    });
    let made = Instant::now();
    let answer = operator.ask(Method::POST, "/requests", Some(&body), None).await?;
    match answer.read::<Created>() {
        Ok(created) if created.status == Status::New => {
            Counts::add(&mut world.tally.lock().created, Source::Manual);
            file.requests.push(Known { id: created.id, made, open: true });
            world.begin_job(created.id, typed.client, typed.story.clone());
            Some(created.id)
        }
        Ok(created) => {
            world.tally.error(format!("request {} was created as {}", created.id, created.status.as_str()));
            None
        }
        Err(error) => {
            world.tally.error(format!("{}: POST /requests: {} {error}", operator.login, answer.problem()));
            None
        }
    }
}

/// Types in and links the callers that an operator can identify.
async fn look_through_triage(world: &Arc<World>, operator: &Person, city: usize) -> bool {
    let Some((page, _)) = operator.get::<Page>("/calls/triage?limit=100").await else { return false };
    let mut busy = false;
    for lost in page.items {
        let _at_it = world.begin();
        let Some(typed) = identify(&mut world.in_tray(), &lost, city) else { continue };
        busy = true;
        world.pace.pause(TYPING, Duration::ZERO).await;
        if let Some(request) = type_in(world, operator, &typed).await {
            link(world, operator, lost.id, request).await;
        }
    }
    busy
}

/// The service request that a call in triage deserves, if nobody else deals with it.
fn identify(tray: &mut InTray, lost: &Lost, city: usize) -> Option<Typed> {
    if tray.taken.contains(&lost.id) {
        return None;
    }
    let typed = match lost.triage? {
        // Nobody's line is nobody's city: whose operator sees it first takes it.
        Triage::UnknownLine => Typed { city, ..tray.by_phone.remove(lost.from.as_deref()?)? },
        Triage::UnknownCaller => tray.anonymous[city].pop()?,
    };
    tray.taken.insert(lost.id);
    Some(typed)
}

async fn link(world: &World, operator: &Person, call: i64, request: i64) {
    let (path, body) = (format!("/calls/{call}/link"), json!({ "request_id": request }));
    if let Some(answer) = operator.ask(Method::POST, &path, Some(&body), None).await {
        let mut counts = world.tally.lock();
        if answer.is_good() { counts.links.push((call, request)) } else { counts.other_conflicts += 1 }
    }
}
