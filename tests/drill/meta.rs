//! Who watches the watchman: rules that cannot be evaluated, messages that do not get through, and the Watchdog.

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    drill::{Drill, Ends, Proof, TICKET},
    lab::Lab,
    wait_for,
};

const UNEVALUATED: Proof = Proof {
    alert: "RuleEvaluationFailures",
    fault: "a target exposes a series that a rule records",
    summary: "Rules cannot be evaluated",
    says: "rules/slo.yml;slo",
    value: (0.1, 1_000.0),
    ..TICKET
};
const UNSENT: Proof = Proof {
    alert: "NotificationFailures",
    fault: "the dead man's switch answers 500",
    labels: &[("slo", "none"), ("job", "alertmanager"), ("integration", "webhook")],
    summary: "Notifications do not get through (alertmanager, webhook)",
    says: "notifications of alertmanager failed within 5 minutes",
    value: (0.1, 1_000.0),
    ..TICKET
};

pub const WATCHMAN: Drill =
    Drill { test: "meta::watchman", minutes: 13, proves: &[UNEVALUATED, UNSENT], along: &[], inhibits: &[] };

/// The same as slo.yml records, so that it is there twice. Of availability: where nobody asks anything there is no
/// ratio of errors to divide by it.
const CLASH: &str = "# TYPE slo:error_budget:ratio gauge
slo:error_budget:ratio{sloth_service=\"switchboard\",sloth_slo=\"availability\"} 0.001
";

#[tokio::test(flavor = "multi_thread")]
async fn watchman() {
    let lab = Lab::open().await;
    let listener = TcpListener::bind((lab.ip, 0)).await.unwrap();
    let clashing = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/metrics", get(async || CLASH))).await });
    let mut run = WATCHMAN.begin(&lab).await;
    run.breaks(&[]);
    // A job that has no target here, so that nothing else changes.
    lab.prometheus.target("tempo", &[clashing]);
    lab.sink.fail("watchdog", true);
    run.all_notified().await;
    run.mends(&[]);
    lab.prometheus.target("tempo", &[]);
    lab.sink.fail("watchdog", false);
    run.all_resolved().await;
    run.done();
}

pub const WATCHDOG: Drill = Drill {
    test: "meta::watchdog",
    minutes: 5,
    proves: &[Proof {
        alert: "Watchdog",
        fault: "none: it comes every minute, and stays away when Prometheus is killed",
        receiver: "watchdog",
        summary: "Prometheus and Alertmanager work",
        says: "This alert always fires",
        value: (1.0, 1.0),
        ends: Ends::Never,
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn watchdog() {
    let mut lab = Lab::open().await;
    let mut run = WATCHDOG.begin(&lab).await;
    run.breaks(&[]);
    run.notified("Watchdog").await;
    lab.prometheus.kill();
    // Alertmanager believes an alert for four evaluations after the last word of it.
    sleep(Duration::from_secs(30)).await;
    let silent = Instant::now();
    sleep(Duration::from_secs(130)).await;
    let late = lab.sink.find(|notice| notice.at > silent);
    assert!(late.is_none(), "{late:?}");
    run.tell("the Watchdog stays away from who would call when it does");
    lab.prometheus.resume().await;
    let again = async || lab.sink.find(|notice| notice.name() == "Watchdog" && notice.at > silent);
    wait_for("the Watchdog comes again", Duration::from_secs(90), again).await;
    run.done();
}
