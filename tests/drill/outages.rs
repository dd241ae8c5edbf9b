//! What everything stands on is gone: PostgreSQL, Redis, replicas, what Prometheus scrapes.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    drill::{Along, Drill, PAGE, Proof, TICKET},
    lab::{Lab, Replica, Setup},
    observers::Pace,
};

/// A cause silences no symptom.
const UNREACHABLE: Along = Along::Fires("AvailabilityBudgetBurnPage", "clients notice, and that is a page of its own");
const FIGURES: Along = Along::Pends("CollectorStale", "nobody shows the business figures meanwhile");
const AWAY: Along = Along::Pends("ReplicaDown", "it is away for a while");

pub const POSTGRES: Drill = Drill {
    test: "outages::postgres",
    minutes: 5,
    proves: &[Proof {
        alert: "PostgresDown",
        fault: "PostgreSQL refuses and breaks connections, under load",
        summary: "No replica reaches PostgreSQL",
        says: "dependency_up is 0 on every replica",
        ..PAGE
    }],
    along: &[UNREACHABLE, Along::Fires("ErrorsBudgetBurnPage", "what is asked meanwhile is answered 503")],
    inhibits: &["ErrorsBudgetBurnTicket"],
};

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let mut lab = Lab::open().await;
    let boss = lab.boss().await;
    let at = lab.replicas.each_ref().map(|replica| boss.at(&replica.base()));
    let mut run = POSTGRES.begin(&lab).await;
    run.breaks(&[]);
    lab.site.postgres.cut().await;
    for _ in 0..4 {
        for answer in join_all((0..6).map(|n| at[n % 2].get("/api/v1/requests"))).await {
            assert_eq!(answer.status, 503, "{}", answer.text);
        }
    }
    run.notified("PostgresDown").await;
    run.mends(&[]);
    lab.site.postgres.mend().await;
    run.suppressed().await;
    run.all_resolved().await;
    run.done();
}

const GONE: Proof = Proof {
    alert: "ApiDown",
    fault: "both replicas are killed",
    summary: "No instance of Switchboard answers",
    says: "0 instances can be scraped",
    ..PAGE
};

pub const API: Drill = Drill {
    test: "outages::api",
    minutes: 8,
    proves: &[GONE],
    along: &[UNREACHABLE, FIGURES],
    inhibits: &["ReplicaDown", "AvailabilityBudgetBurnTicket"],
};

#[tokio::test(flavor = "multi_thread")]
async fn api() {
    let mut lab = Lab::open().await;
    let mut run = API.begin(&lab).await;
    run.breaks(&[]);
    kill_both(&mut lab).await;
    run.all_notified().await;
    run.suppressed().await;
    run.mends(&[]);
    start_both(&mut lab).await;
    run.all_resolved().await;
    run.done();
}

pub const PRODUCTION: Drill = Drill {
    test: "outages::production",
    minutes: 8,
    proves: &[Proof { fault: "both replicas are killed; intervals and group timings as they ship", ..GONE }],
    along: &[UNREACHABLE, FIGURES, AWAY],
    inhibits: &[],
};

/// From the end of the last replica until somebody's telephone rings.
const PROMISED: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn production() {
    let mut lab = Lab::with(Setup { pace: Some(Pace::Production), ..Setup::default() }).await;
    let mut run = PRODUCTION.begin(&lab).await;
    run.breaks(&[]);
    let killed = std::time::Instant::now();
    kill_both(&mut lab).await;
    let page = run.notified("ApiDown").await;
    assert!(page.at - killed <= PROMISED, "{:?}", page.at - killed);
    run.mends(&[]);
    start_both(&mut lab).await;
    run.all_resolved().await;
    run.done();
}

async fn kill_both(lab: &mut Lab) {
    let [one, other] = &mut lab.replicas;
    tokio::join!(one.kill(), other.kill());
}

async fn start_both(lab: &mut Lab) {
    let [one, other] = &mut lab.replicas;
    tokio::join!(one.start(&lab.site), other.start(&lab.site));
}

pub const REPLICA: Drill = Drill {
    test: "outages::replica",
    minutes: 7,
    proves: &[Proof {
        alert: "ReplicaDown",
        fault: "one of two replicas is killed",
        says: "up has been 0 for",
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn replica() {
    let mut lab = Lab::open().await;
    let mut run = REPLICA.begin(&lab).await;
    run.breaks(&[]);
    lab.replicas[1].kill().await;
    let ticket = run.notified("ReplicaDown").await;
    assert_eq!(ticket.label("instance"), lab.replicas[1].instance());
    assert!(ticket.annotation("description").ends_with("1 replicas are up."), "{ticket:?}");
    run.mends(&[]);
    lab.replicas[1].start(&lab.site).await;
    run.all_resolved().await;
    run.done();
}

pub const RESTARTS: Drill = Drill {
    test: "outages::restarts",
    minutes: 18,
    proves: &[Proof {
        alert: "RestartLoop",
        fault: "one of two replicas is killed and started three times",
        says: "started 3 times within 15 minutes",
        value: (3.0, 3.0),
        ..TICKET
    }],
    along: &[AWAY],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn restarts() {
    let mut lab = Lab::open().await;
    let (api, instance) = (lab.api(), lab.replicas[1].instance());
    let mut run = RESTARTS.begin(&lab).await;
    run.breaks(&[]);
    let starts = format!("changes(process_start_time_seconds{{instance=\"{instance}\"}}[15m])");
    for round in 1..=3 {
        lab.replicas[1].kill().await;
        lab.replicas[1].start(&lab.site).await;
        // Two between two scrapes would look like one.
        api.until(&starts, |seen| seen >= f64::from(round)).await;
    }
    run.mends(&[]);
    let ticket = run.notified("RestartLoop").await;
    assert_eq!(ticket.label("instance"), instance);
    run.all_resolved().await;
    run.done();
}

pub const REDIS: Drill = Drill {
    test: "outages::redis",
    minutes: 7,
    proves: &[Proof {
        alert: "RedisFallbackActive",
        fault: "Redis refuses and breaks connections",
        summary: "Replicas do without Redis",
        says: "2 replicas have had no quick answer",
        value: (2.0, 2.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let mut lab = Lab::with(Setup { redis_through_proxy: true, ..Setup::default() }).await;
    let mut run = REDIS.begin(&lab).await;
    run.breaks(&[]);
    lab.site.redis.cut().await;
    run.all_notified().await;
    run.mends(&[]);
    lab.site.redis.mend().await;
    run.all_resolved().await;
    run.done();
}

pub const ABSENT: Drill = Drill {
    test: "outages::absent",
    minutes: 7,
    proves: &[Proof {
        alert: "ApiMetricsAbsent",
        fault: "the file that names the replicas to Prometheus is gone",
        labels: &[("slo", "none"), ("job", "switchboard")],
        summary: "No data comes from the job switchboard",
        says: "no series of the job switchboard",
        value: (1.0, 1.0),
        ..PAGE
    }],
    along: &[FIGURES],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn absent() {
    let lab = Lab::open().await;
    let mut run = ABSENT.begin(&lab).await;
    run.breaks(&[]);
    lab.prometheus.target("switchboard", &[]);
    run.all_notified().await;
    run.mends(&[]);
    lab.prometheus.target("switchboard", &lab.replicas.each_ref().map(Replica::instance));
    run.all_resolved().await;
    run.done();
}
