//! What must raise nothing: a cold start, healthy load, a rolling restart, one error, a quiet spell, and a Prometheus
//! that begins anew over servers that have a past. With intervals as they ship. That each may last longer than any
//! alert waits is a case of prometheus/tests/silence.yml.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    drill::Drill,
    faults::Hold,
    lab::{Lab, Setup},
    observers::Pace,
    support::{
        MOSCOW,
        load::{self, Load},
        site::phone,
    },
};

pub const LIFE: Drill = Drill { test: "silence::life", minutes: 13, proves: &[], along: &[], inhibits: &[] };

const RATE: u32 = 4;
const SPELL: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn life() {
    let settings = vec![("SWITCHBOARD_SHUTDOWN_DELAY_MS", "3000".to_owned())];
    let mut lab = Lab::with(Setup { pace: Some(Pace::Production), settings, ..Setup::default() }).await;
    let run = LIFE.attend(&lab);
    lab.peace().await;
    run.tell("nothing fires during a cold start");

    let boss = lab.boss().await;
    let at = lab.replicas.each_ref().map(|replica| boss.at(&replica.base()));
    let known = boss.create_request(MOSCOW, &phone()).await["id"].as_i64().unwrap();
    let load = Load::start(RATE, move |number| {
        load::send(match number % 8 {
            0 => boss.request(Method::POST, "/api/v1/requests").json(&json!({ "city": MOSCOW, "phone": phone() })),
            1..=4 => boss.request(Method::GET, &format!("/api/v1/requests/{known}")),
            _ => boss.request(Method::GET, "/api/v1/requests?limit=10"),
        })
    });
    sleep(SPELL).await;
    run.attended();
    run.tell("nothing under load");

    for n in 0..2 {
        // Between two looks of Prometheus: who is away for longer is pending, and so it should be.
        let looked = format!("timestamp(up{{instance=\"{}\"}})", lab.replicas[n].instance());
        let before = lab.api().value(&looked).await.unwrap();
        lab.api().until(&looked, |at| at > before).await;
        lab.replicas[n].stop().await;
        lab.replicas[n].start(&lab.site).await;
        lab.balancer.wait_until(n, "UP").await;
    }
    sleep(Duration::from_secs(30)).await;
    run.attended();
    run.tell("nothing during a rolling restart");

    let held = Hold::take(&lab.site.database, "SELECT FROM requests FOR UPDATE").await;
    let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
    at[0].move_to(known, visit).await.problem(503, "overloaded");
    held.release().await;
    sleep(Duration::from_mins(1)).await;
    let shots = load.stop().await;
    run.attended();
    run.tell(&format!("nothing for one error; {} requests under load: {:?}", shots.len(), shots.outcomes()));
    assert!(shots.failed().is_empty(), "{:?}", shots.outcomes());

    sleep(SPELL).await;
    run.attended();
    run.tell("nothing while nobody asks anything");

    lab.prometheus.kill();
    fs::remove_dir_all(lab.prometheus.data()).unwrap();
    lab.prometheus.resume().await;
    sleep(SPELL).await;
    lab.peace().await;
    run.tell("nothing fires in a Prometheus that begins anew");
    run.done();
}
