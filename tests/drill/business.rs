//! What the call centre would notice: calls, the people who work on them, and who tries to get in.

use std::fmt::Write;

use futures_util::future::join_all;
use serde_json::json;
use switchboard::clock::Clock;

use crate::{
    drill::{Drill, Ends, PAGE, Proof, TICKET},
    faults::Hold,
    lab::Lab,
    support::{
        MOSCOW, MOSCOW_LINE, PASSWORD,
        actor::{Actor, number},
        site::phone,
        telephony::{Call, Event},
    },
};

/// A call of somebody who has never called.
fn call(line: &str) -> Call {
    let start = Clock::System.now().timestamp();
    Call { entry: format!("entry{}", number()), from: phone(), line: line.to_owned(), start }
}

/// Delivers calls, some at a time.
async fn ring(lab: &Lab, calls: Vec<Vec<Event>>) {
    let provider = lab.stranger();
    for some in calls.chunks(4) {
        join_all(some.iter().map(|events| provider.deliver_all(events))).await;
    }
}

const MISSED: Proof = Proof {
    alert: "MissedCallsHigh",
    fault: "12 of 24 calls are missed",
    summary: "Too many calls are missed",
    says: "of the incoming calls of the last hour were not answered",
    value: (0.4, 0.6),
    ..TICKET
};
const UNKNOWN: Proof = Proof {
    alert: "UnknownLineCalls",
    fault: "6 of 24 calls come in on a number that no campaign has",
    summary: "a number that belongs to no campaign",
    says: "came in on a number that no campaign has",
    value: (0.15, 0.3),
    ..TICKET
};

pub const CALLS: Drill =
    Drill { test: "business::calls", minutes: 8, proves: &[MISSED, UNKNOWN], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn calls() {
    let lab = Lab::open().await;
    let mut run = CALLS.begin(&lab).await;
    run.breaks(&[]);
    let missed = (0..12).map(|_| call(MOSCOW_LINE).missed());
    let unknown = (0..6).map(|_| call("74950009999").answered());
    let well = (0..6).map(|_| call(MOSCOW_LINE).answered());
    ring(&lab, missed.chain(unknown).chain(well).collect()).await;
    run.all_notified().await;
    run.mends(&[]);
    ring(&lab, (0..40).map(|_| call(MOSCOW_LINE).answered()).collect()).await;
    run.all_resolved().await;
    run.done();
}

const STALLED: Proof = Proof {
    alert: "WebhookIntakeStalled",
    fault: "a session holds the table of calls, so that nothing that comes in is worked off",
    labels: &[("slo", "none"), ("provider", "mango")],
    summary: "Calls are not taken in",
    says: "events of mango are stored, and not one was worked off",
    value: (5.0, 100.0),
    ..PAGE
};
const STALE: Proof = Proof {
    alert: "CollectorStale",
    fault: "the same session holds the table of business figures",
    summary: "The business figures are old",
    says: "they are computed every 15 s",
    value: (300.0, 1_200.0),
    ..TICKET
};

pub const TABLES: Drill =
    Drill { test: "business::tables", minutes: 12, proves: &[STALLED, STALE], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn tables() {
    let lab = Lab::open().await;
    let mut run = TABLES.begin(&lab).await;
    run.breaks(&[]);
    // Who only reads is not kept waiting.
    let held = Hold::take(&lab.site.database, "LOCK TABLE calls, collector_snapshots IN EXCLUSIVE MODE").await;
    ring(&lab, (0..3).map(|_| call(MOSCOW_LINE).answered()).collect()).await;
    run.all_notified().await;
    run.mends(&[]);
    held.release().await;
    // What failed waits for its next turn; what comes now is worked off at once.
    ring(&lab, vec![call(MOSCOW_LINE).answered()]).await;
    run.all_resolved().await;
    run.done();
}

const ASSIGNED: Proof = Proof {
    alert: "AssignSlow",
    fault: "12 service requests are three hours old when a master is found",
    summary: "Masters are found too slowly",
    says: "2 hours are promised",
    value: (7_200.0, 20_000.0),
    ..TICKET
};
const BROKEN: Proof = Proof {
    alert: "SlaBreaches",
    fault: "so the promise of assignment is broken 12 times",
    labels: &[("slo", "none"), ("policy", "assignment")],
    summary: "Promises to clients are broken (assignment)",
    says: "promises of assignment were broken",
    value: (11.0, 14.0),
    ends: Ends::Case("long.yml", "SlaBreaches is over an hour after the promises were broken"),
    ..TICKET
};

pub const ASSIGNMENT: Drill =
    Drill { test: "business::assignment", minutes: 18, proves: &[BROKEN, ASSIGNED], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn assignment() {
    let lab = Lab::open().await;
    let boss = lab.boss().await;
    let database = &lab.site.database;
    database
        .execute(&format!(
            "WITH master AS (
                 INSERT INTO users (login, password_hash, name, role, created_at)
                 SELECT 'master', password_hash, 'Master', 'master', now() FROM users RETURNING id
             ), placed AS (
                 INSERT INTO user_cities (user_id, city_id)
                 SELECT master.id, cities.id FROM master, cities WHERE code = '{MOSCOW}'
             )
             INSERT INTO master_profiles (user_id, share) SELECT id, 0.5 FROM master"
        ))
        .await;
    let master = database.count("SELECT id FROM users WHERE login = 'master'").await;
    let mut run = ASSIGNMENT.begin(&lab).await;
    run.breaks(&[]);
    assign(&lab, &boss, master, 12, "3 h").await;
    run.all_notified().await;
    run.mends(&[]);
    // A session's token is good for a quarter of an hour, and that is over.
    assign(&lab, &lab.boss().await, master, 16, "0 s").await;
    run.all_resolved().await;
    run.done();
}

/// So many service requests that have waited for so long are offered to a master.
async fn assign(lab: &Lab, boss: &Actor, master: i64, count: u32, age: &str) {
    let first = boss.waiting_request(MOSCOW, &phone()).await;
    let others = format!(
        "WITH callers AS (
             INSERT INTO clients (phone_e164, created_at)
             SELECT '+7917' || lpad(({first} * 1000 + n)::text, 7, '0'), now() FROM generate_series(2, {count}) AS n
             RETURNING id
         ), others AS (
             INSERT INTO requests (client_id, city_id, type_id, source, status, address, meeting_at,
                                   created_at, updated_at, first_response_at)
             SELECT callers.id, city_id, type_id, source, status, address, meeting_at, now(), now(), now()
               FROM callers, requests
              WHERE requests.id = {first} RETURNING id
         )
         INSERT INTO sla_timers (request_id, policy, started_at, due_at)
         SELECT id, 'assignment', now(), now() + interval '2 h' FROM others"
    );
    let database = &lab.site.database;
    database.execute(&others).await;
    let ages = [
        format!("UPDATE requests SET created_at = created_at - interval '{age}' WHERE id >= {first}"),
        format!(
            "UPDATE sla_timers SET started_at = started_at - interval '{age}', due_at = due_at - interval '{age}'
              WHERE policy = 'assignment' AND request_id >= {first}"
        ),
    ];
    for statement in ages {
        database.execute(&statement).await;
    }
    for id in first..first + i64::from(count) {
        boss.assign(id, master).await.expect(200);
    }
}

const GUESSED: Proof = Proof {
    alert: "LoginAttackSuspected",
    fault: "somebody guesses one password 70 times",
    summary: "guessing passwords",
    says: "sign-ins were turned away within 10 minutes",
    value: (50.0, 90.0),
    ..TICKET
};
const REUSED: Proof = Proof {
    alert: "RefreshTokenReuse",
    fault: "a refresh token is presented a minute after its use",
    summary: "A refresh token was used twice",
    says: "1 refresh tokens were presented again",
    value: (1.0, 1.5),
    ends: Ends::Case("long.yml", "RefreshTokenReuse is over an hour after the token was used twice"),
    ..TICKET
};

pub const INTRUDER: Drill =
    Drill { test: "business::intruder", minutes: 13, proves: &[REUSED, GUESSED], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn intruder() {
    let lab = Lab::open().await;
    let mut boss = lab.boss().await;
    let thief = boss.at(&lab.replicas[1].base());
    let mut run = INTRUDER.begin(&lab).await;
    run.breaks(&[]);
    boss.take(&boss.refresh().await.expect(200));
    lab.site
        .database
        .execute("UPDATE refresh_tokens SET used_at = used_at - interval '1 min' WHERE used_at IS NOT NULL")
        .await;
    thief.refresh().await.problem(401, "unauthenticated");
    let guesser = lab.stranger();
    for guess in 0..70 {
        let password = format!("{PASSWORD}{guess}");
        let body = json!({ "login": boss.login, "password": password, "session": "token" });
        let status = guesser.post("/api/v1/auth/login", body).await.status.as_u16();
        assert!(matches!(status, 401 | 429), "{status}");
    }
    run.mends(&[]);
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}

pub const BACKLOG: Drill = Drill {
    test: "business::backlog",
    minutes: 18,
    proves: &[Proof {
        alert: "BacklogTooOld",
        fault: "nobody has answered a service request of three hours ago, in business hours",
        summary: "has waited for hours for its first answer",
        says: "The oldest service request in \"new\" is 3h",
        value: (10_800.0, 13_000.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn backlog() {
    let lab = Lab::open().await;
    let boss = lab.boss().await;
    let mut run = BACKLOG.begin(&lab).await;
    run.breaks(&[]);
    let id = boss.create_request(MOSCOW, &phone()).await["id"].as_i64().unwrap();
    lab.site.database.execute("UPDATE requests SET created_at = created_at - interval '3 h'").await;
    run.all_notified().await;
    run.mends(&[]);
    let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
    // A session's token is good for a quarter of an hour, and that is over.
    lab.boss().await.move_to(id, visit).await.expect(200);
    run.all_resolved().await;
    run.done();
}

pub const QUIET: Drill = Drill {
    test: "business::quiet",
    minutes: 4,
    proves: &[Proof {
        alert: "NoTraffic",
        fault: "nobody has called for a quarter of an hour, and 30 did a week ago (back-filled)",
        summary: "No call has come in for 15 minutes",
        says: "0 incoming calls ended within 15 minutes",
        value: (0.0, 0.0),
        ..PAGE
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn quiet() {
    const WEEK: i64 = 7 * 86_400;
    let lab = Lab::open().await;
    let mut run = QUIET.begin(&lab).await;
    let now = Clock::System.now().timestamp();
    let mut past = "# TYPE switchboard_calls counter\n".to_owned();
    // Two calls a minute, from half an hour before until half an hour after that quarter.
    for (calls, at) in (now - WEEK - 1_800..now - WEEK + 1_800).step_by(15).enumerate() {
        let series =
            "switchboard_calls_total{job=\"switchboard\",instance=\"past\",direction=\"incoming\",result=\"answered\"}";
        writeln!(past, "{series} {} {at}", calls / 2).unwrap();
    }
    past += "# TYPE up gauge\n";
    for at in (now - 3_600..now - 600).step_by(15) {
        writeln!(past, "up{{job=\"switchboard\",instance=\"past\"}} 1 {at}").unwrap();
    }
    past += "# EOF\n";
    run.breaks(&[]);
    lab.prometheus.remember(&past).await;
    run.all_notified().await;
    run.mends(&[]);
    ring(&lab, vec![call(MOSCOW_LINE).answered()]).await;
    run.all_resolved().await;
    run.done();
}
