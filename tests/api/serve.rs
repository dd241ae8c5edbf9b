//! What only a real process has: its log, its counters, and the traces that both name.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    JWT_SECRET, PEPPER, actor::Actor, database::TestDatabase, eventually, metrics::Scrape, process::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn answers_logs_and_counters_of_a_process_agree() {
    let database = TestDatabase::create().await;
    let environment = [
        ("DATABASE_URL", database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        // Below it lines come all the time: no two moments have the same number of them.
        ("SWITCHBOARD_LOG_LEVEL", "info".to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    let stranger = Actor::stranger(&format!("http://{}", server.public));
    // A problem names the trace that its log line names.
    let problem = stranger.get("/nothing").await.problem(404, "not_found");
    let trace_id = problem["trace_id"].as_str().unwrap().to_owned();
    assert_eq!(trace_id.len(), 32);
    let other = stranger.get("/nothing").await.problem(404, "not_found");
    assert_ne!(other["trace_id"], trace_id);
    // One that came with the request is kept.
    let traced = stranger
        .request(reqwest::Method::GET, "/nothing")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(stranger.send(traced).await.json()["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    // Log text cannot be forged by what is asked for.
    stranger.get("/%0a%7b%22level%22:%22error%22%7d").await.problem(404, "not_found");
    stranger.get("/health/ready").await.expect(200);

    let scrape = Scrape::fetch(server.ops).await;
    let build = scrape.series().find(|(series, _)| series.starts_with("build_info{")).unwrap();
    assert!(build.0.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{build:?}");
    assert!(!build.0.contains("=\"\""), "nothing is unknown: {build:?}");
    assert_eq!(build.1, 1.0);
    assert_eq!(scrape.value("dependency_up{dependency=\"postgresql\"}"), 1.0);
    assert!(scrape.value("tokio_workers") >= 1.0 && scrape.value("tokio_alive_tasks") >= 3.0);
    let of_level = |log: &[Value], level: &str| log.iter().filter(|line| line["level"] == level).count();
    let log = eventually("the whole log is here", async || {
        let log = server.log();
        (log.iter().filter(|line| line["message"] == "request").count() == 5).then_some(log)
    })
    .await;
    for level in ["error", "warn", "info", "debug", "trace"] {
        let counted = scrape.value(&format!("log_events_total{{level=\"{level}\"}}"));
        let written = f64::from(u32::try_from(of_level(&log, level)).unwrap());
        assert!((counted - written).abs() < 0.5, "{level}: {counted} counted, {written} written: {log:#?}");
    }
    let line = log.iter().find(|line| line["trace_id"] == trace_id).expect("the line of that trace");
    assert_eq!(
        (&line["status"], &line["error_code"], &line["route"]),
        (&json!(404), &json!("not_found"), &json!("unmatched"))
    );
    // A terminal that goes, or a hook that reloads certificates, is not what stops a server.
    server.signal(Signal::SIGHUP);
    let told = async || server.log().into_iter().find(|line| line["message"].to_string().contains("SIGHUP"));
    eventually("it says that there is nothing to reload", told).await;
    stranger.get("/health/ready").await.expect(200);
    let (_, code) = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(code, Some(0));
}
