//! The budgets of the objectives burn: how fast, and how long, decides who is told.
//!
//! The floors on bad events make the difference between a page that is over soon and one that looks back six hours
//! (10 and 20 of requests, 4 and 9 of probes), so each fault breaks as many as it says and no more. Where a ratio has
//! to fall, good answers make it: those that cost the server least, to people who are not signed in.

use std::{fmt::Write, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use switchboard::clock::Clock;

use crate::{
    drill::{Drill, PAGE, Proof, TICKET},
    faults::{Hold, Ongoing, answered},
    lab::{Lab, Replica},
    support::{
        MOSCOW,
        actor::{Actor, number},
        proxy::Weather,
    },
};

pub const AVAILABILITY: Drill = Drill {
    test: "objectives::availability",
    minutes: 13,
    proves: &[Proof {
        alert: "AvailabilityBudgetBurnPage",
        fault: "the balancer stands still for about a minute",
        labels: &[("slo", "availability")],
        summary: "not reachable for clients",
        says: "of the probes of readiness failed over 1h or 6h",
        value: (0.0144, 1.0),
        ..PAGE
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn availability() {
    let lab = Lab::open().await;
    let mut run = AVAILABILITY.begin(&lab).await;
    run.breaks(&[]);
    lab.balancer.freeze();
    let failed = "sum(count_over_time(probe_success[1h]) - sum_over_time(probe_success[1h]))";
    lab.api().until(failed, |probes| probes >= 5.0).await;
    run.mends(&[]);
    lab.balancer.thaw();
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}

pub const AVAILABILITY_LONG: Drill = Drill {
    test: "objectives::availability_long",
    minutes: 14,
    proves: &[Proof {
        alert: "AvailabilityBudgetBurnTicket",
        fault: "six minutes in three days, six hours ago (back-filled), without an answer to probes",
        labels: &[("slo", "availability")],
        summary: "not reachable for clients",
        says: "of the probes of readiness failed over 1d or 3d",
        value: (0.001, 0.003),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

/// Of the probes of three days, one every 15 s, so many fail as half an hour leaves the window of six.
#[tokio::test(flavor = "multi_thread")]
async fn availability_long() {
    const STEP: i64 = 15;
    let lab = Lab::open().await;
    let mut run = AVAILABILITY_LONG.begin(&lab).await;
    let now = Clock::System.now().timestamp();
    // From the point where six hours begin now, until six minutes and a half later.
    let begins = now - 6 * 3_600 + 150;
    let outage = begins..begins + 26 * STEP;
    let mut samples = "# TYPE probe_success gauge\n".to_owned();
    // Until the lab was opened.
    for at in (now - 3 * 86_400..now - 600).step_by(15) {
        let answered = u8::from(!outage.contains(&at));
        let ready = "job=\"blackbox-ready\",instance=\"http://past/health/ready\"";
        writeln!(samples, "probe_success{{{ready}}} {answered} {at}").unwrap();
    }
    samples += "# EOF\n";
    run.breaks(&[]);
    lab.prometheus.remember(&samples).await;
    run.mends(&[]);
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}

/// Answers to people who are not signed in.
async fn cheap(lab: &Lab, count: usize) {
    let bases = lab.replicas.each_ref().map(Replica::base);
    answered(401, count, move |client, n| client.get(format!("{}/api/v1/requests", bases[n % 2]))).await;
}

/// Sign-ins that name nobody.
async fn empty_sign_ins(lab: &Lab, count: usize) {
    let bases = lab.replicas.each_ref().map(Replica::base);
    let body = json!({});
    answered(422, count, move |client, n| client.post(format!("{}/api/v1/auth/login", bases[n % 2])).json(&body)).await;
}

/// So many lists and so many sign-ins over a database that is far away.
async fn slowly(lab: &Lab, boss: &Actor, count: usize) {
    lab.site.postgres.turn(Weather::Slow(Duration::from_millis(60)));
    for n in 0..count {
        let base = lab.replicas[n % 2].base();
        boss.at(&base).get("/api/v1/requests").await.expect(200);
        Actor::sign_in(&base, 0, &boss.login).await;
    }
    lab.site.postgres.turn(Weather::Fair);
}

/// So many changes to a service request that somebody else holds: each is answered 503 after a second.
async fn refused(lab: &Lab, boss: &Actor, count: usize) {
    const AT_ONCE: usize = 6;
    let id = boss.create_request(MOSCOW, &format!("+7916{:07}", number())).await["id"].as_i64().unwrap();
    let at = lab.replicas.each_ref().map(|replica| boss.at(&replica.base()));
    let held = Hold::take(&lab.site.database, "SELECT FROM requests FOR UPDATE").await;
    for first in (0..count).step_by(AT_ONCE) {
        let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
        let answers = (first..count.min(first + AT_ONCE)).map(|n| at[n % 2].move_to(id, visit.clone()));
        for answer in join_all(answers).await {
            answer.problem(503, "overloaded");
        }
    }
    held.release().await;
}

const SLOW: Proof = Proof {
    alert: "LatencyBudgetBurnPage",
    fault: "60 ms more to PostgreSQL in each direction, for 14 requests",
    labels: &[("slo", "latency")],
    summary: "Answers are slow",
    says: "of the answers took longer than 0.1 s over 1h or 6h",
    value: (0.144, 1.0),
    ..PAGE
};
const SLOW_LOGIN: Proof = Proof {
    alert: "LatencyLoginBudgetBurnPage",
    fault: "60 ms more to PostgreSQL in each direction, for 14 sign-ins",
    labels: &[("slo", "latency-login")],
    summary: "Signing in is slow",
    says: "of the answers to sign-ins took longer than 0.5 s over 1h or 6h",
    ..SLOW
};
const ERRORS: Proof = Proof {
    alert: "ErrorsBudgetBurnPage",
    fault: "a session holds a row: 14 changes to it are answered 503",
    labels: &[("slo", "errors")],
    summary: "Requests fail",
    says: "of the requests were answered 5xx over 1h or 6h",
    ..SLOW
};

pub const PAGES: Drill =
    Drill { test: "objectives::pages", minutes: 14, proves: &[SLOW, SLOW_LOGIN, ERRORS], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn pages() {
    let lab = Lab::open().await;
    let boss = lab.boss().await;
    let mut run = PAGES.begin(&lab).await;
    run.breaks(&[SLOW.alert, SLOW_LOGIN.alert]);
    slowly(&lab, &boss, 14).await;
    run.mends(&[SLOW.alert, SLOW_LOGIN.alert]);
    run.breaks(&[ERRORS.alert]);
    refused(&lab, &boss, 14).await;
    run.mends(&[ERRORS.alert]);
    run.all_notified().await;
    // It ends because answers are good again, and not for want of any.
    let (lists, bases) = (boss.at(&lab.replicas[0].base()), lab.replicas.each_ref().map(Replica::base));
    let _life = Ongoing::start(async move {
        loop {
            lists.send(lists.request(Method::GET, "/api/v1/auth/me")).await.expect(200);
            let nobody = Actor::stranger(&bases[1]);
            nobody.post("/api/v1/auth/login", json!({})).await.problem(422, "invalid");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    run.all_resolved().await;
    run.done();
}

const SELDOM_SLOW: Proof = Proof {
    alert: "LatencyBudgetBurnTicket",
    fault: "60 ms more to PostgreSQL in each direction, for 24 requests in 640",
    says: "of the answers took longer than 0.1 s over 1d or 3d",
    value: (0.03, 0.06),
    receiver: TICKET.receiver,
    ..SLOW
};
const SELDOM_SLOW_LOGIN: Proof = Proof {
    alert: "LatencyLoginBudgetBurnTicket",
    fault: "60 ms more to PostgreSQL in each direction, for 24 sign-ins in 640",
    labels: SLOW_LOGIN.labels,
    summary: SLOW_LOGIN.summary,
    says: "of the answers to sign-ins took longer than 0.5 s over 1d or 3d",
    ..SELDOM_SLOW
};

const SELDOM_REFUSED: Proof = Proof {
    alert: "ErrorsBudgetBurnTicket",
    fault: "a session holds a row: 36 of 1,300 requests are answered 503",
    says: "of the requests were answered 5xx over 1d or 3d",
    value: (0.01, 0.06),
    receiver: TICKET.receiver,
    ..ERRORS
};

pub const TICKETS: Drill = Drill {
    test: "objectives::tickets",
    minutes: 7,
    proves: &[SELDOM_SLOW, SELDOM_SLOW_LOGIN, SELDOM_REFUSED],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn tickets() {
    let lab = Lab::open().await;
    let boss = lab.boss().await;
    let mut run = TICKETS.begin(&lab).await;
    cheap(&lab, 616).await;
    empty_sign_ins(&lab, 616).await;
    run.breaks(&[]);
    slowly(&lab, &boss, 24).await;
    refused(&lab, &boss, 36).await;
    run.all_notified().await;
    run.mends(&[]);
    cheap(&lab, 2_500).await;
    empty_sign_ins(&lab, 800).await;
    run.all_resolved().await;
    run.done();
}

pub const BUDGET: Drill = Drill {
    test: "objectives::budget",
    minutes: 23,
    proves: &[Proof {
        alert: "ErrorBudgetExhausted",
        fault: "of 30 days, all requests of seven hours and a half failed, 30 days ago (back-filled)",
        labels: &[("slo", "errors")],
        summary: "The error budget of errors is used up",
        says: "of the 30 days' budget of errors is used",
        value: (1.0, 1.1),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn budget() {
    const STEP: i64 = 300;
    const WINDOW: i64 = 30 * 86_400;
    // One in a hundred may fail: 432 minutes. So many more leave the window while the alert waits, and is told.
    const BAD: i64 = (432 + 20) * 60;
    let lab = Lab::open().await;
    let mut run = BUDGET.begin(&lab).await;
    let now = Clock::System.now().timestamp();
    let slo = "sloth_service=\"switchboard\",sloth_slo=\"errors\"";
    let mut past = "# TYPE slo:sli_total:rate5m gauge\n".to_owned();
    // Until the lab was opened.
    let days = || (now - WINDOW - 3_600..now - 600).step_by(STEP as usize);
    for at in days() {
        writeln!(past, "slo:sli_total:rate5m{{{slo}}} 1 {at}").unwrap();
    }
    past += "# TYPE slo:sli_bad:rate5m gauge\n";
    for at in days() {
        writeln!(past, "slo:sli_bad:rate5m{{{slo}}} {} {at}", u8::from(at < now - WINDOW + BAD)).unwrap();
    }
    past += "# TYPE instance:slo_bad_events:total gauge\n";
    for at in days().take_while(|at| *at < now - WINDOW + BAD) {
        writeln!(
            past,
            "instance:slo_bad_events:total{{{slo},job=\"switchboard\",instance=\"past\"}} {} {at}",
            at - now + 2 * WINDOW
        )
        .unwrap();
    }
    past += "# EOF\n";
    run.breaks(&[]);
    lab.prometheus.remember(&past).await;
    run.mends(&[]);
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}
