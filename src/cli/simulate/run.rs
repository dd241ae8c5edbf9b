//! The course of a run: sign everybody in, open, let the calls come, let staff finish, close.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::ProgressBar;
use serde::Deserialize;
use tokio::task::JoinSet;
use url::Url;

use super::{
    Arguments,
    api::Api,
    callers, desk,
    metrics::{Delta, Scrape},
    people::Person,
    plan::{Brief, Plan},
    report,
    tally::Tally,
    world::{Parts, World},
};
use crate::{
    auth::Role,
    calls::providers::mango,
    cli::{
        demo::{Credentials, DemoUser},
        progress,
    },
    clock::Clock,
    config::Config,
};

/// How long staff may take, in real time, to finish once no more calls come.
const AFTER_HOURS: Duration = Duration::from_mins(1);
/// How long the server may take to deal with what it accepted.
const BACKLOG: Duration = Duration::from_secs(30);
/// Metrics are recorded after the commit that others see: a moment later.
const MOMENT: Duration = Duration::from_secs(2);
/// Sign-ins at once; each takes the server a core for a quarter of a second.
const SIGN_INS: usize = 2;

/// What a run is given.
pub struct Scene<'a> {
    pub arguments: &'a Arguments,
    pub config: &'a Config,
    pub logins: &'a Credentials,
    pub api: &'a Arc<Api>,
    pub tally: &'a Arc<Tally>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Linked {
    request_id: Option<i64>,
}

/// Plays the day; the world as it is afterwards.
///
/// # Errors
/// When somebody cannot sign in.
pub async fn play(scene: &Scene<'_>) -> anyhow::Result<Arc<World>> {
    let Scene { arguments, config, logins, api, tally } = scene;
    anyhow::ensure!(!logins.lines.is_empty(), "the logins name no line that could be called");
    let brief = Brief {
        seed: arguments.seed,
        rate: arguments.rate,
        hours: arguments.hours,
        lines: &logins.lines,
        incident: arguments.incident,
    };
    let plan = Plan::draw(&brief);
    let began = Clock::System.now();
    let mut staff = sign_in(scene, &plan, began.timestamp()).await?;
    let admin = staff.iter().position(|person| person.role == Role::Admin).context("the logins name no admin")?;
    let admin = staff.swap_remove(admin);
    let (fields, _) = admin.get::<Vec<Code>>("/dictionaries/directions").await.context("reading the dictionaries")?;
    let masters_of = |city| {
        staff
            .iter()
            .filter(move |person| person.role == Role::Master && person.city == Some(city))
            .map(|person| person.id)
    };
    let masters: Vec<Vec<i64>> = (0..plan.cities.len()).map(|city| masters_of(city).collect()).collect();
    for (city, masters) in plan.cities.iter().zip(&masters) {
        anyhow::ensure!(!masters.is_empty(), "the logins name no master of {city}");
    }
    let mango = if config.mango.api_key.is_empty() {
        mango::Credentials { api_key: logins.mango_api_key.clone(), api_salt: logins.mango_api_salt.clone() }
    } else {
        let (key, salt) = (&config.mango.api_key, &config.mango.api_salt);
        mango::Credentials { api_key: key.expose().to_owned(), api_salt: salt.expose().to_owned() }
    };
    let world = Arc::new(World::new(Parts {
        plan,
        tally: (*tally).clone(),
        api: (*api).clone(),
        mango,
        admin,
        masters,
        fields: fields.into_iter().map(|field| field.code).collect(),
        began,
        window: Duration::from_secs(config.telephony.dedupe_window_s.into()),
        speed: arguments.speed,
    }));
    let (calls, deliveries) = (world.plan.calls.len(), world.plan.deliveries());
    let message = format!("playing {calls} calls in {deliveries} deliveries, about {} s", world.pace.day().as_secs());
    let bar = progress::bar(&message, calls as u64);
    // Dropped with the run, which ends them all.
    let mut at_work = JoinSet::new();
    for person in staff {
        at_work.spawn(desk::work(world.clone(), person));
    }
    let mut clock = JoinSet::new();
    clock.spawn(show(world.clone(), bar.clone()));
    call(&world, &bar).await;
    finish(&world).await;
    world.closed.cancel();
    while let Some(ended) = at_work.join_next().await {
        if let Err(error) = ended {
            tally.error(format!("the simulator failed: {error}"));
        }
    }
    desk::take_back_offers(&world).await;
    clock.abort_all();
    bar.finish_and_clear();
    Ok(world)
}

/// Signs in all whose city is played, and the admin.
async fn sign_in(scene: &Scene<'_>, plan: &Plan, run: i64) -> anyhow::Result<Vec<Person>> {
    let users = &scene.logins.users;
    let bar = progress::bar("signing everybody in", users.len() as u64);
    // An address of their own for everybody, and others in the next run: sign-ins are limited by address.
    let network = run.rem_euclid(200);
    let mut waiting: Vec<(usize, DemoUser)> = users.iter().cloned().enumerate().collect();
    waiting.reverse();
    let mut signing = JoinSet::new();
    let mut staff = Vec::new();
    loop {
        while signing.len() < SIGN_INS
            && let Some((number, user)) = waiting.pop()
        {
            let city = user.cities.first().and_then(|code| plan.cities.iter().position(|city| city == code));
            if city.is_none() && user.role != Role::Admin {
                continue;
            }
            let (api, tally) = (scene.api.clone(), scene.tally.clone());
            let address = format!("10.{network}.{}.{}", number / 250, number % 250 + 1);
            signing
                .spawn(async move { Person::sign_in(&api, &tally, &user, city, address).await.map(|p| (number, p)) });
        }
        let Some(signed_in) = signing.join_next().await else { break };
        staff.push(signed_in??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    staff.sort_by_key(|(number, _)| *number);
    Ok(staff.into_iter().map(|(_, person)| person).collect())
}

/// Lets the calls come, and waits for their last deliveries.
async fn call(world: &Arc<World>, bar: &ProgressBar) {
    let mut calls = JoinSet::new();
    for (number, call) in world.plan.calls.iter().enumerate() {
        world.pace.until(call.at.into()).await;
        let (world, busy, now) = (world.clone(), world.begin(), Clock::System.now().timestamp());
        calls.spawn(async move {
            callers::play(world, number, now).await;
            drop(busy);
        });
        bar.inc(1);
    }
    world.pace.until(world.plan.closes.into()).await;
    world.stop_calling();
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended {
            world.tally.error(format!("the simulator failed: {error}"));
        }
    }
}

/// Lets staff finish what can be finished.
async fn finish(world: &World) {
    let until = Instant::now() + AFTER_HOURS;
    while !world.is_finished() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if !world.is_finished() {
        eprintln!("after {} s staff go home and leave {} things undone", AFTER_HOURS.as_secs(), world.left());
    }
}

/// Shows the time of day: on a terminal always, elsewhere every four hours.
async fn show(world: Arc<World>, bar: ProgressBar) {
    let mut told = String::new();
    loop {
        let time = world.pace.shown();
        let done = world.jobs.count(crate::requests::state::Status::is_finished);
        let message = format!("{time}  {} requests, {done} ended", world.jobs.count(|_| true));
        if bar.is_hidden() {
            let hour = time[..2].to_owned();
            if hour.parse::<u32>().is_ok_and(|hour| hour % 4 == 0) && hour != told {
                eprintln!("{message}");
                told = hour;
            }
        } else {
            bar.set_message(message);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How many of the links between calls and service requests the server still shows.
pub async fn links_kept(world: &World) -> u32 {
    let links = world.tally.lock().links.clone();
    let mut kept = 0;
    for (call, request) in links {
        let linked = world.admin.get::<Linked>(&format!("/calls/{call}")).await;
        kept += u32::from(linked.is_some_and(|(linked, _)| linked.request_id == Some(request)));
    }
    kept
}

/// Reads the metrics until everything that was accepted has its effect, and is counted.
///
/// # Errors
/// When the metrics cannot be read any more.
pub async fn settle(world: &World, url: &Url, delta: &mut Delta, kept: u32) -> anyhow::Result<()> {
    let backlog = Instant::now() + BACKLOG;
    let mut moment = None;
    loop {
        delta.after = Scrape::read(&world.api.http, url).await?;
        let agree = report::compare(&world.tally.lock(), delta, kept).iter().all(report::Row::agrees);
        let now = Instant::now();
        if delta.waiting() < 0.5 {
            moment.get_or_insert(now + MOMENT);
        }
        if agree || delta.restarted() || now > moment.unwrap_or(backlog) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
