//! A disk that is full while the server runs.

use std::time::Duration;

use reqwest::Method;

use crate::{
    support::{
        MOSCOW,
        actor::Actor,
        files::{FORM, TempDir, photo, png},
        process::Server,
        site::{Site, base, scrape, stop, timed},
    },
    table::{Row, ms},
};

const FULL: Row = Row {
    number: 11,
    fault: "The disk is full",
    promise: "an upload gets 507 in ≤ 2 s and leaves no partial file; everything else works; well again with room for it",
    seen_in: "http_server_request_duration_seconds_count{http_response_status_code=\"507\"}",
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_uploads_and_nothing_else() {
    let site = Site::open().await;
    let dir = TempDir::create();
    let mut environment = site.environment();
    environment.push(("SWITCHBOARD_DATA_DIR", dir.text()));
    let path = dir.text();
    let server = tokio::task::spawn_blocking(move || Server::start_on_a_mount(&path, "size=1m,mode=755", &environment));
    let server = server.await.unwrap();
    let boss: Actor = site.boss(&server).await;
    let id = boss.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let files = format!("/api/v1/requests/{id}/files");
    let upload = async |bytes: usize| {
        boss.send(boss.request(Method::POST, &files).header("content-type", FORM).body(photo(&png(bytes)))).await
    };
    // What the server sees there: its file system is nobody else's.
    let left = || {
        let mut open = vec![std::path::PathBuf::from(format!("/proc/{}/root{}", server.id(), dir.text()))];
        let mut found = 0;
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.path().is_dir() { open.push(entry.path()) } else { found += 1 }
            }
        }
        found
    };
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for bytes in [2_000_000, 5_000_000, 9_000_000] {
        let (answer, took) = timed(upload(bytes)).await;
        answer.problem(507, "insufficient_storage");
        (refused, slowest) = (refused + 1, slowest.max(took));
    }
    assert!(slowest <= Duration::from_secs(2), "{slowest:?}");
    assert_eq!(left(), 0, "partial files");
    upload(100_000).await.expect(201);
    assert_eq!(left(), 1);
    boss.get("/api/v1/requests").await.expect(200);
    boss.create_request(MOSCOW, "+79161234568").await;
    Actor::stranger(&base(&server)).get("/health/ready").await.expect(200);
    assert_eq!(scrape(&server).await.answered(507), f64::from(refused));
    FULL.measured(format_args!(
        "{refused} × 507 in {} at most, 0 partial files, the next upload that had room was taken; reads and writes of the \
         database went on",
        ms(slowest)
    ));
    assert_eq!(stop(server).await.1, Some(0));
}
