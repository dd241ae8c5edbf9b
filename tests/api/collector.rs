//! The business metrics: computed by one replica for all, the same on every replica, and by JSON.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use switchboard::{
    auth::Role,
    reports::collector::{self, collect, refresh},
};

use crate::support::{
    KAZAN, MOSCOW, MOSCOW_LINE, TestApp, config, database::TestDatabase, eventually, found_company, morning,
    telephony::Call,
};

const BUSINESS: &str = "/api/v1/metrics/business";
const PERFORMANCE: &str = "/api/v1/metrics/performance";
const LAST_SUCCESS: &str = "switchboard_collector_last_success_timestamp_seconds";
const ROUNDS: &str = "switchboard_collector_duration_seconds_count";

/// One round, as the elected replica makes it.
async fn round(app: &TestApp) {
    collect(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
}

fn unix(at: DateTime<Utc>) -> f64 {
    f64::from(u32::try_from(at.timestamp()).unwrap())
}

fn of_status(metric: &str, status: &str) -> String {
    format!("switchboard_service_{metric}{{status=\"{status}\"}}")
}

async fn business(app: &TestApp, role: Role, cities: &[&str]) -> Value {
    app.actor(role, cities).await.get_anew(BUSINESS).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_computes_and_when_it_is_lost_another_does() {
    let interval = Duration::from_millis(400);
    let mut config = config();
    config.collector.interval_ms = u64::try_from(interval.as_millis()).unwrap();
    let database = Arc::new(TestDatabase::create().await);
    found_company(&database).await;
    let replicas =
        [TestApp::over(config.clone(), database.clone()).await, TestApp::over(config, database.clone()).await];
    replicas[0].actor(Role::Operator, &[MOSCOW]).await.create_request(MOSCOW, "+79161234567").await;
    let started = Instant::now();
    for replica in &replicas {
        replica.app.lifecycle.spawn(collector::lead(replica.app.clone()));
        replica.app.lifecycle.spawn(collector::follow(replica.app.clone()));
    }
    for replica in &replicas {
        let known = async || replica.scrape().await.get(LAST_SUCCESS);
        assert_eq!(eventually("a first value", known).await, unix(morning()));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "the first value does not wait: {:?}", started.elapsed());

    let pid = || database.count("SELECT backend_pid::bigint FROM collector_snapshots");
    let rounds = || database.count("SELECT rounds FROM collector_snapshots");
    let leader = pid().await;
    let (since, first) = (Instant::now(), rounds().await);
    eventually("five more rounds", async || (rounds().await >= first + 5).then_some(())).await;
    assert!(since.elapsed() > interval * 4, "two compute: five rounds in {:?}", since.elapsed());
    assert_eq!(pid().await, leader);
    let made = [replicas[0].scrape().await.value(ROUNDS), replicas[1].scrape().await.value(ROUNDS)];
    assert!(made[0].min(made[1]) == 0.0 && made[0].max(made[1]) >= 5.0, "{made:?}");
    let (lost, other) = if made[0] > 0.0 { (0, 1) } else { (1, 0) };

    // They say the same.
    let figures = |replica: usize| {
        let scrape = replicas[replica].scrape();
        async move {
            let scrape = scrape.await;
            let exported = scrape.series().filter(|(series, _)| {
                series.starts_with("switchboard_service_requests_open")
                    || series.starts_with("switchboard_service_request_oldest")
                    || series.starts_with("switchboard_service_requests_stuck")
                    || series.starts_with("switchboard_active_users")
                    || series.starts_with(LAST_SUCCESS)
            });
            exported.map(|(series, value)| (series.to_owned(), value)).collect::<Vec<_>>()
        }
    };
    let exported = figures(0).await;
    assert_eq!(exported, figures(1).await);
    assert!(exported.contains(&(of_status("requests_open", "new"), 1.0)), "{exported:?}");

    // The leader's connection breaks.
    let broken = Instant::now();
    assert_eq!(database.count(&format!("SELECT pg_terminate_backend({leader})::int::bigint")).await, 1);
    eventually("another computes", async || (pid().await != leader).then_some(())).await;
    assert!(broken.elapsed() < interval * 2, "it took {:?}", broken.elapsed());
    assert!(replicas[other].scrape().await.value(ROUNDS) >= 1.0, "the other has taken over");
    let noticed =
        async || (replicas[lost].scrape().await.value("switchboard_collector_errors_total") >= 1.0).then_some(());
    eventually("the lost round is counted", noticed).await;
    for replica in &replicas {
        replica.app.lifecycle.stop_workers(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_say_what_is_open_since_when_and_what_is_stuck() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let before = app.scrape().await;
    assert_eq!(before.get(LAST_SUCCESS), None, "absent until known");
    assert_eq!(before.get(&of_status("requests_open", "new")), None);
    assert!(!refresh(&app.app).await.unwrap(), "nothing was computed yet");

    let oldest = manager.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    app.clock.advance(TimeDelta::minutes(30));
    manager.create_request(MOSCOW, "+79161234568").await;
    let offered = manager.waiting_request(MOSCOW, "+79161234569").await;
    manager.assign(offered, master.id).await.expect(200);
    round(&app).await;
    let scrape = app.scrape().await;
    let value = |metric: &str, status: &str| scrape.value(&of_status(metric, status));
    assert_eq!((value("requests_open", "new"), value("requests_open", "offered")), (2.0, 1.0));
    assert_eq!(value("requests_open", "waiting"), 0.0);
    assert_eq!(value("request_oldest_open_timestamp_seconds", "new"), unix(morning()));
    assert_eq!(scrape.get(&of_status("request_oldest_open_timestamp_seconds", "waiting")), None);
    assert_eq!(scrape.get(&of_status("requests_open", "done")), None, "that is not open");
    assert_eq!((value("requests_stuck", "new"), value("requests_stuck", "offered")), (0.0, 0.0));
    let users = |role: &str| scrape.value(&format!("switchboard_active_users{{role=\"{role}\"}}"));
    assert_eq!((users("manager"), users("master"), users("director")), (1.0, 1.0, 0.0));

    // An hour and a bit later the oldest is stuck, half an hour in which the offer was not answered.
    app.clock.advance(TimeDelta::minutes(31));
    round(&app).await;
    let scrape = app.scrape().await;
    let stuck = |status: &str| scrape.value(&of_status("requests_stuck", status));
    assert_eq!((stuck("new"), stuck("offered")), (1.0, 1.0));
    assert_eq!(scrape.value(LAST_SUCCESS), unix(app.app.clock.now()));

    // Ended, deleted, signed out.
    manager.move_to(oldest, json!({ "to": "not_order" })).await.expect(200);
    master.move_to(offered, json!({ "to": "accepted" })).await.expect(200);
    app.database.execute("UPDATE requests SET deleted_at = now() WHERE status = 'new'").await;
    master.post("/api/v1/auth/logout", Value::Null).await.expect(204);
    round(&app).await;
    let scrape = app.scrape().await;
    assert_eq!(scrape.value(&of_status("requests_open", "new")), 0.0);
    assert_eq!(scrape.get(&of_status("request_oldest_open_timestamp_seconds", "new")), None, "it went away");
    assert_eq!(scrape.value("switchboard_active_users{role=\"master\"}"), 0.0);
    assert_eq!(scrape.value("switchboard_collector_errors_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_cannot_be_read_grow_old_and_are_counted() {
    let app = TestApp::start().await;
    round(&app).await;
    app.database.vanish().await;
    refresh(&app.app).await.unwrap_err();
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_collector_errors_total"), 1.0);
    assert_eq!(scrape.value(LAST_SUCCESS), unix(morning()), "as old as they are");
    assert_eq!(scrape.value(&of_status("requests_open", "new")), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn business_metrics_are_those_of_ones_cities() {
    let mut config = config();
    // Longer than the day that passes.
    config.jwt.ttl_s = 604_800;
    let app = TestApp::start_with(config).await;
    let admin = app.actor(Role::Admin, &[]).await;
    admin.get(BUSINESS).await.problem(503, "overloaded");

    // Yesterday in Kazan: one by hand, refused at once.
    let kazan = admin.create_request(KAZAN, "+79161111111").await["id"].as_i64().unwrap();
    admin.move_to(kazan, json!({ "to": "refused" })).await.expect(200);
    app.clock.advance(TimeDelta::days(1));
    // Today in Moscow: a call answered after 10 s that makes a request, and one more that joins it.
    let mut call = Call::new("a", "79162222222", MOSCOW_LINE);
    call.start += 86_400;
    let mut again = Call::new("b", "79162222222", MOSCOW_LINE);
    again.start += 86_400;
    app.stranger().deliver_all(&call.answered()).await;
    app.stranger().deliver_all(&again.missed()).await;
    app.stranger().deliver_all(&Call::new("c", "79163333333", "74959999999").missed()).await;
    app.drain_inbox().await;
    let id = app.database.count("SELECT id FROM requests WHERE source = 'call'").await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    app.clock.advance(TimeDelta::minutes(10));
    let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
    admin.move_to(id, visit).await.expect(200);
    admin.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    app.clock.advance(TimeDelta::minutes(50));
    master.move_to(id, json!({ "to": "done", "result": "5000", "expenses": "1000" })).await.expect(200);
    admin.create_request(MOSCOW, "+79164444444").await;
    round(&app).await;
    app.clock.advance(TimeDelta::milliseconds(7_200));

    let all = business(&app, Role::Admin, &[]).await;
    assert_eq!(all["age_s"], 7.2);
    assert_eq!(all["computed_at"], "2026-06-02T08:00:00Z");
    let today = &all["today"];
    assert_eq!((&today["created"], &all["last_30_days"]["created"]), (&json!(2), &json!(3)));
    assert_eq!(today["created_by_source"], json!({ "call": 1, "manual": 1 }));
    assert_eq!(today["created_by_type"], json!({ "first_time": 2 }));
    assert_eq!(today["created_by_campaign"], json!({ "moscow_ads": 1 }));
    assert_eq!(all["last_30_days"]["created_by_city"], json!({ "kazan": 1, "moscow": 2 }));
    assert_eq!((&today["done"], &today["conversion"]), (&json!(1), &json!(1.0)));
    let month = &all["last_30_days"];
    assert_eq!(
        (&month["conversion"], &month["refusal_rate"], &month["not_order_rate"]),
        (&json!(0.5), &json!(0.5), &json!(0.0))
    );
    // Ten minutes, ten minutes and an hour, to the width of a step.
    for (figure, seconds) in
        [("median_first_response_s", 600.0), ("median_assign_s", 600.0), ("median_completion_s", 3600.0)]
    {
        let median = today[figure].as_f64().unwrap();
        assert!((median / seconds - 1.0_f64).abs() < 0.03, "{figure}: {median}");
    }
    assert_eq!(today["calls_by_result"], json!({ "answered": 1, "missed": 1 }));
    assert_eq!(
        (&today["missed_ratio"], &today["request_ratio"], &today["deduplicated"]),
        (&json!(0.5), &json!(0.5), &json!(1))
    );
    assert!(today["mean_answer_wait_s"].is_f64() && today["mean_talk_s"].is_f64(), "{today}");
    assert_eq!(
        (&today["revenue"], &today["refunds"], &today["average_ticket"]),
        (&json!("2000.00"), &json!("0.00"), &json!("5000.00"))
    );
    assert_eq!(all["handover_outstanding"], "0.00");
    assert_eq!(all["triage"], json!({ "unknown_line": 1, "unknown_caller": 0 }));
    assert_eq!((&all["webhooks"]["pending"], &all["webhooks"]["rejected_here"]), (&json!(0), &json!(0)));
    assert!(all["webhooks"]["mean_lag_s"].is_number() || all["webhooks"]["mean_lag_s"].is_null());
    let open = all["open"].as_array().unwrap();
    assert_eq!(open.len(), 9);
    assert_eq!(
        open[0],
        json!({ "status": "new", "count": 1, "stuck": 0, "oldest_created_at": "2026-06-02T08:00:00Z" })
    );
    assert_eq!(all["active_users"], json!({ "admin": 1, "master": 1 }));

    // The director of Kazan: nothing of Moscow, but the call that belongs nowhere.
    let kazan = business(&app, Role::Director, &[KAZAN]).await;
    assert_eq!((&kazan["today"]["created"], &kazan["last_30_days"]["created"]), (&json!(0), &json!(1)));
    let today = &kazan["today"];
    for unknown in
        ["conversion", "refusal_rate", "median_first_response_s", "missed_ratio", "mean_talk_s", "average_ticket"]
    {
        assert_eq!(today[unknown], Value::Null, "{unknown}");
    }
    assert_eq!(today["revenue"], "0.00");
    assert_eq!(kazan["triage"]["unknown_line"], 1);
    assert_eq!(kazan["active_users"], json!({}));
    for role in [Role::Marketer, Role::Operator, Role::Master] {
        let actor = app.actor(role, &[MOSCOW]).await;
        actor.get(BUSINESS).await.problem(403, "forbidden");
        actor.get(PERFORMANCE).await.problem(403, "forbidden");
    }

    // Somebody reverses the income by hand: the company still waits for its share.
    app.database
        .execute(
            "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, reverses_id, at)
             SELECT city_id, (SELECT id FROM transaction_types WHERE code = 'reversal'), request_id, master_id, -amount, automatic, id,
                    '2026-06-02T08:00:00Z' FROM transactions",
        )
        .await;
    round(&app).await;
    let all = business(&app, Role::Director, &[MOSCOW, KAZAN]).await;
    assert_eq!((&all["handover_outstanding"], &all["today"]["refunds"]), (&json!("2000.00"), &json!("2000.00")));
}

#[tokio::test(flavor = "multi_thread")]
async fn performance_is_of_this_replica_and_without_probes() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    for _ in 0..9 {
        director.get("/api/v1/requests").await.expect(200);
    }
    app.stranger().get("/health/live").await.expect(200);
    let figures = director.get(PERFORMANCE).await.expect(200);
    // One login and nine lists; the question itself is not answered yet.
    assert_eq!(figures["all"]["requests"], 10);
    assert_eq!(figures["all"]["error_ratio"], 0.0);
    let quantile = |name: &str| figures["all"][name].as_f64().unwrap();
    assert!(
        quantile("p50_s") > 0.0 && quantile("p50_s") <= quantile("p95_s") && quantile("p95_s") <= quantile("p99_s")
    );
    let since = figures["since_start_s"].as_f64().unwrap();
    assert!((quantile("requests_per_second") * since - 10.0).abs() < 0.5, "{figures}");
    let operations = figures["by_operation"].as_array().unwrap();
    let list = operations.iter().find(|operation| operation["route"] == "/api/v1/requests").unwrap();
    assert_eq!((&list["method"], &list["requests"]), (&json!("GET"), &json!(9)));
    assert!(operations.iter().all(|operation| !operation["route"].as_str().unwrap().starts_with("/health")));
    assert_eq!(figures["pool"]["max"], 10);
    // The App read its dictionaries once, at its start; each list finds codes in them.
    assert_eq!((&figures["cache"]["misses"], &figures["cache"]["hits"]), (&json!(1), &json!(9)));
    assert_eq!(figures["cache"]["hit_ratio"], 0.9);
}
