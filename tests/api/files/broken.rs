//! Uploads that are refused, break off, take their time or find no room: nothing is left of them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reqwest::Body;
use serde_json::json;
use switchboard::auth::Role;

use super::{nothing_is_left, request, rows, upload};
use crate::support::{
    JWT_SECRET, MOSCOW, PEPPER, TestApp,
    actor::Actor,
    config, eventually,
    files::{FORM, TempDir, field, form, photo, png},
    process::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_proper_upload_leaves_nothing() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (id, path) = request(&operator).await;
    let (kind, file) = (field("kind", None, b"photo"), field("file", Some("tap.png"), &png(2_000)));
    for (fields, status, pointer) in [
        (vec![kind.clone()], 422, "/file"),
        (vec![file.clone()], 422, "/kind"),
        (vec![], 422, "/kind"),
        (vec![file.clone(), field("kind", None, b"selfie")], 422, "/kind"),
        (vec![file.clone(), field("kind", None, &[b'x'; 100])], 422, "/kind"),
        (vec![file.clone(), kind.clone(), kind.clone()], 422, "/kind"),
        (vec![kind.clone(), file.clone(), file.clone()], 422, "/file"),
        (vec![kind.clone(), file.clone(), field("a/b", None, b"x")], 422, "/a~1b"),
        (vec![kind.clone(), field("file", Some("empty.png"), b"")], 422, "/file"),
        (vec![kind.clone(), field("file", Some("page.png"), b"<!DOCTYPE html><script>alert(1)</script>")], 415, ""),
        (vec![kind.clone(), field("file", Some("tap.svg"), b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>")], 415, ""),
        (vec![kind.clone(), field("file", Some("tool.png"), b"MZ\x90\0\x03\0\0\0")], 415, ""),
    ] {
        let answer = upload(&operator, &path, form(&fields)).await;
        let problem = answer.problem(status, if status == 422 { "invalid" } else { "wrong_media_type" });
        assert_eq!(problem["errors"][0]["pointer"].as_str().unwrap_or_default(), pointer);
    }
    // A form that ends in the middle of the file, properly as HTTP goes.
    let broken = [kind.as_slice(), &file[..500]].concat();
    upload(&operator, &path, broken).await.problem(400, "malformed");
    upload(&operator, &path, "no form at all").await.problem(400, "malformed");
    let json = operator.post(&path, json!({ "kind": "photo" })).await;
    json.problem(415, "wrong_media_type");
    nothing_is_left(&app).await;
    let history = operator.all(&format!("/api/v1/requests/{id}/history")).await;
    assert_eq!(history.len(), 1, "the creation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_have_as_many_bytes_as_the_setting_says() {
    let mut config = config();
    config.files.max_bytes = 300_000;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    for bytes in [300_001, 500_000] {
        upload(&operator, &path, photo(&png(bytes))).await.problem(413, "too_large");
    }
    // Ordinary bodies keep the small limit.
    let body = json!({ "body": "x".repeat(270_000) });
    operator.post(&path.replace("files", "comments"), body).await.problem(413, "too_large");
    nothing_is_left(&app).await;
    upload(&operator, &path, photo(&png(300_000))).await.expect(201);
}

/// The head of an upload of `length` bytes, and the first of them.
fn begin(app: SocketAddr, operator: &Actor, path: &str, length: usize) -> TcpStream {
    let mut socket = TcpStream::connect(app).unwrap();
    let token = operator.token.as_deref().unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Type: {FORM}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&photo(&png(length))[..length / 2]).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_connection_breaks_leaves_nothing() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    let socket = begin(app.public, &operator, &path, 100_000);
    eventually("the upload has begun", async || (!app.data.files().is_empty()).then_some(())).await;
    drop(socket);
    nothing_is_left(&app).await;
    let broken = async || Some(app.scrape().await).filter(|scrape| scrape.answered(499) + scrape.answered(400) == 1.0);
    eventually("it is observed", broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_uploads_at_a_time_than_there_is_memory_for_are_told_to_come_back() {
    let mut config = config();
    config.files.max_uploads = 1;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (id, path) = request(&operator).await;
    let socket = begin(app.public, &operator, &path, 100_000);
    eventually("the upload has begun", async || (!app.data.files().is_empty()).then_some(())).await;
    let answer = upload(&operator, &path, photo(&png(2_000_000))).await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.problem(503, "overloaded");
    assert_eq!(app.scrape().await.value("http_requests_shed_total{scope=\"upload\"}"), 1.0);
    operator.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    drop(socket);
    nothing_is_left(&app).await;
    upload(&operator, &path, photo(&png(2_000))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_has_the_time_that_it_needs_and_a_stalled_one_has_not() {
    let mut config = config();
    config.http.request_timeout_ms = 500;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    let body = photo(&png(30_000));
    let pieces: Vec<_> = body.chunks(3_100).map(<[u8]>::to_vec).collect();
    assert_eq!(pieces.len(), 10);
    let slowly = stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok::<_, std::io::Error>(piece)
    });
    let started = std::time::Instant::now();
    upload(&operator, &path, Body::wrap_stream(slowly)).await.expect(201);
    assert!(started.elapsed() > Duration::from_secs(1), "longer than other requests may take");

    let mut socket = begin(app.public, &operator, &path, 100_000);
    let mut answer = String::new();
    tokio::task::spawn_blocking(move || {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 4_096];
        let count = socket.read(&mut buffer).unwrap();
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_too_slow"), "{answer}");
    })
    .await
    .unwrap();
    eventually("one file is there", async || (app.data.files().len() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_nothing_is_507_and_reading_goes_on() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (id, path) = request(&operator).await;
    // Where the folder should be, there is something else.
    std::fs::create_dir_all(app.data.path()).unwrap();
    app.data.file("files", "");
    upload(&operator, &path, photo(&png(2_000))).await.problem(507, "insufficient_storage");
    assert_eq!(rows(&app).await, 0);
    operator.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    std::fs::remove_file(app.data.path().join("files")).unwrap();
    upload(&operator, &path, photo(&png(2_000))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_an_upload_keeps_nothing_of_it() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (id, path) = request(&operator).await;
    let data = TempDir::create();
    let environment = [
        ("DATABASE_URL", app.database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        ("SWITCHBOARD_DATA_DIR", data.text()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start_on_a_small_disk(&environment)).await.unwrap();
    let operator = Actor::sign_in(&format!("http://{}", server.public), operator.id, &operator.login).await;
    for bytes in [3_000_000, 9_000_000] {
        upload(&operator, &path, photo(&png(bytes))).await.problem(507, "insufficient_storage");
    }
    eventually("nothing is left on the disk", async || data.files().is_empty().then_some(())).await;
    assert_eq!(rows(&app).await, 0);
    operator.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    upload(&operator, &path, photo(&png(100_000))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_row_cannot_be_written_is_removed() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    app.database.execute("ALTER TABLE files ADD CONSTRAINT broken CHECK (bytes < 0) NOT VALID").await;
    upload(&operator, &path, photo(&png(2_000))).await.problem(500, "internal");
    nothing_is_left(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_while_the_last_bytes_are_stored_leaves_nothing() {
    let app = TestApp::start().await;
    for n in 0..60_u64 {
        let mut writer = app.app.storage.create("attachments", app.app.clock.now()).await.unwrap();
        writer.write(png(200_000).into()).await.unwrap();
        // Given up somewhere on the way, and sometimes a moment after it.
        if let Ok(stored) = tokio::time::timeout(Duration::from_micros(n * 100), writer.finish()).await {
            drop(stored.unwrap());
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    nothing_is_left(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_signed_out_during_an_upload_has_attached_nothing() {
    let app = TestApp::start().await;
    let (operator, director) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Director, &[MOSCOW]).await);
    let (_, of_request) = request(&operator).await;
    let spent = json!({ "type": "expense", "city": MOSCOW, "amount": "10.00" });
    let transaction = director.post("/api/v1/transactions", spent).await.expect(201)["id"].clone();
    for (actor, path, change, status) in [
        (&operator, of_request, "UPDATE users SET status = 'disabled' WHERE role = 'operator'", 401),
        (&director, format!("/api/v1/transactions/{transaction}/files"), "DELETE FROM user_cities", 404),
    ] {
        let body = photo(&png(100_000));
        let (first, last) = (body[..50_000].to_vec(), body[50_000..].to_vec());
        let (go, changed) = tokio::sync::oneshot::channel();
        let pieces = stream::once(async { Ok::<_, std::io::Error>(first) }).chain(stream::once(async {
            changed.await.unwrap();
            Ok(last)
        }));
        let meanwhile = async {
            eventually("the upload has begun", async || (!app.data.files().is_empty()).then_some(())).await;
            app.database.execute(change).await;
            go.send(()).unwrap();
        };
        let (answer, ()) = tokio::join!(upload(actor, &path, Body::wrap_stream(pieces)), meanwhile);
        assert_eq!(answer.status, status, "{}", answer.text);
        nothing_is_left(&app).await;
    }
}
