//! `/api/v1/requests.csv`: the whole list, in little memory, and never half of it as if it were whole.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use switchboard::{
    auth::{Role, passwords},
    config::Secret,
};

use crate::support::{
    JWT_SECRET, MOSCOW, PASSWORD, PEPPER, TestApp, actor::Actor, config, database::TestDatabase, eventually,
    found_company, metrics::Scrape, process::Server,
};

/// Many service requests of Moscow, newest last, with long texts, and one of Kazan.
async fn fill_list(app: &TestApp, count: u32) {
    app.database
        .execute(&format!(
            "INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now());
             INSERT INTO requests (client_id, city_id, type_id, source, status, client_name, description, created_at, updated_at)
             SELECT (SELECT id FROM clients), ci.id, 1, 'manual', 'new', '@SUM(A1)', repeat('x', 2000),
                    timestamptz '2026-06-01T00:00:00Z' + n / 3 * interval '1 second', now()
               FROM generate_series(1, {count}) AS n JOIN cities ci ON ci.code = CASE WHEN n = 7 THEN 'kazan' ELSE 'moscow' END"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_whole_list_with_its_filters() {
    let app = TestApp::start().await;
    fill_list(&app, 2_500).await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let answer = manager.get("/api/v1/requests.csv").await;
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"requests_2026-06-01T070000Z.csv\"");
    let mut lines = answer.text.split_terminator("\r\n");
    let header = lines.next().unwrap().strip_prefix('\u{feff}').unwrap();
    assert!(header.starts_with("id,status,source,type,direction,city,campaign,client_phone,client_name,"), "{header}");
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    // All but that of Kazan, in the order of the list, over the borders of three batches.
    let exported: Vec<i64> = lines.iter().map(|line| line[0].parse().unwrap()).collect();
    let listed = manager.all("/api/v1/requests?limit=200").await;
    assert_eq!(exported, listed.iter().map(|item| item["id"].as_i64().unwrap()).collect::<Vec<_>>());
    assert_eq!(exported.len(), 2_499);
    for line in &lines {
        assert_eq!((line[5], line[7], line[8]), (MOSCOW, "'+79161234567", "'@SUM(A1)"));
    }
    let some = manager.get("/api/v1/requests.csv?created_from=2026-06-01T00:13:00Z").await;
    assert_eq!(some.text.lines().count() - 1, 2_500 - 13 * 60 * 3 + 1);
    assert_eq!(manager.get("/api/v1/requests.csv?city=kazan").await.text.lines().count(), 1, "not theirs");
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    assert_eq!(master.get("/api/v1/requests.csv").await.text.lines().count(), 1, "none was given to them");
    for (query, pointer) in [("limit=10", "limit"), ("cursor=x", "cursor"), ("status=nwe", "status"), ("x=1", "x")] {
        let problem = manager.get(&format!("/api/v1/requests.csv?{query}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    app.stranger().get("/api/v1/requests.csv").await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_no_connection_and_no_time_limit_cuts_them_off() {
    let mut config = config();
    config.http.request_timeout_ms = 1_500;
    let app = TestApp::start_with(config).await;
    // Twenty megabytes: more than sockets hold.
    fill_list(&app, 10_000).await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let response = manager.request(Method::GET, "/api/v1/requests.csv").send().await.unwrap();
    let mut body = response.bytes_stream();
    let mut bytes = body.next().await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let free = async || (app.scrape().await.value("db_pool_connections{state=\"used\"}") == 0.0).then_some(());
    eventually("the reader's connections are free", free).await;
    let batches = app.scrape().await.value("db_client_operation_duration_seconds_count{operation=\"request_list\"}");
    assert!(batches < 10.0, "{batches} of ten batches were fetched for nobody");
    while let Some(chunk) = body.next().await {
        bytes += chunk.unwrap().len();
    }
    assert!(bytes > 20_000_000, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_on_the_way_does_not_look_whole() {
    let app = TestApp::start().await;
    fill_list(&app, 10_000).await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let response = manager.request(Method::GET, "/api/v1/requests.csv").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.bytes_stream();
    body.next().await.unwrap().unwrap();
    app.database.vanish().await;
    let mut failed = false;
    while let Some(chunk) = body.next().await {
        failed |= chunk.is_err();
    }
    assert!(failed, "half a file ended as if it were whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_export_takes_little_memory() {
    const ROWS: u32 = 20_000;
    let database = TestDatabase::create().await;
    found_company(&database).await;
    let hash = passwords::hash(&Secret::new(PEPPER), 4, PASSWORD).unwrap();
    database
        .execute(&format!(
            "INSERT INTO users (login, password_hash, name, role, created_at) VALUES ('admin', '{hash}', 'x', 'admin', now());
             INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now());
             INSERT INTO requests (client_id, city_id, type_id, source, status, description, created_at, updated_at)
             SELECT (SELECT id FROM clients), 1, 1, 'manual', 'new', repeat('x', 1500), now() - n * interval '1 second', now()
               FROM generate_series(1, {ROWS}) AS n"
        ))
        .await;
    let environment = [
        ("DATABASE_URL", database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    let admin = Actor::sign_in(&format!("http://{}", server.public), 0, "admin").await;
    let resident = async || Scrape::fetch(server.ops).await.value("process_resident_memory_bytes");
    // What the first batch takes is taken once.
    assert_eq!(admin.get("/api/v1/requests.csv?status=done").await.status, 200);
    let before = resident().await;
    let mut body = admin.request(Method::GET, "/api/v1/requests.csv").send().await.unwrap().bytes_stream();
    let (mut lines, mut bytes, mut most, mut looked) = (0, 0, before, 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.unwrap();
        lines += chunk.split(|byte| *byte == b'\n').count() - 1;
        bytes += chunk.len();
        if bytes > looked + (4 << 20) {
            looked = bytes;
            most = most.max(resident().await);
        }
    }
    assert_eq!(lines, ROWS as usize + 1);
    let told = "SELECT count(*) FROM audit_log WHERE action = 'requests_exported' AND trace_id IS NOT NULL";
    assert_eq!(database.count(told).await, 2);
    let (taken, sent) = ((most - before) / f64::from(1 << 20), bytes >> 20);
    assert!(taken < 16.0, "{taken} MiB taken to send {sent} MiB");
}
