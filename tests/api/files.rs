//! Files of service requests and transactions: what is taken in, what is left of what is not, who sees
//! them, and how they are given back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{
    KAZAN, MOSCOW, TestApp,
    actor::{Actor, Answer},
    config, eventually,
    files::TempDir,
    process::Server,
};

const BOUNDARY: &str = "----boundary";
const FORM: &str = "multipart/form-data; boundary=----boundary";

/// A picture of so many bytes, as far as anybody looks.
pub fn png(bytes: usize) -> Vec<u8> {
    let mut content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    content.extend((content.len()..bytes).map(|n| u8::try_from(n % 251).unwrap()));
    content
}

/// One field of a form.
fn field(name: &str, file_name: Option<&str>, content: &[u8]) -> Vec<u8> {
    let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(fields: &[Vec<u8>]) -> Vec<u8> {
    [fields.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

fn photo(content: &[u8]) -> Vec<u8> {
    form(&[field("kind", None, b"photo"), field("file", Some("tap.png"), content)])
}

async fn upload(actor: &Actor, path: &str, body: impl Into<Body>) -> Answer {
    actor.send(actor.request(Method::POST, path).header("content-type", FORM).body(body)).await
}

async fn part(actor: &Actor, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = headers.iter().fold(actor.request(Method::GET, path), |request, (n, v)| request.header(*n, *v));
    request.send().await.unwrap()
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A service request and where its files are.
async fn request(operator: &Actor) -> (i64, String) {
    let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    (id, format!("/api/v1/requests/{id}/files"))
}

async fn rows(app: &TestApp) -> i64 {
    app.database.count("SELECT count(*) FROM files").await
}

/// No row and, once the broom is through, no file.
async fn nothing_is_left(app: &TestApp) {
    assert_eq!(rows(app).await, 0);
    eventually("nothing is left on the disk", async || app.data.files().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_back_as_it_was_and_as_a_download() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (id, path) = request(&operator).await;
    // More than one part of the store, and not a whole number of them.
    let content = png(6_000_001);
    let answer = upload(
        &operator,
        &path,
        form(&[field("file", Some("../Кран \\\"1.html"), &content), field("kind", None, b"photo")]),
    )
    .await;
    let (location, etag) = (answer.header("location").to_owned(), answer.header("etag").to_owned());
    let file = answer.expect(201);
    assert_eq!(
        (&location, &etag),
        (&format!("/api/v1/files/{}", file["id"]), &format!("\"{}\"", file["sha256"].as_str().unwrap()))
    );
    let expected = json!({
        "id": file["id"], "request_id": id, "transaction_id": null, "kind": "photo", "name": file["name"],
        "mime": "image/png", "bytes": 6_000_001, "sha256": file["sha256"], "uploaded_by": operator.id,
        "at": "2026-06-01T07:00:00Z",
    });
    assert_eq!(file, expected);
    let name = file["name"].as_str().unwrap();
    assert!(name.ends_with(".html.png") && !name.contains(['/', '\\', '"']), "{name}");
    assert_eq!(operator.all(&path).await, std::slice::from_ref(&file));

    let whole = part(&operator, &location, &[]).await;
    assert_eq!(whole.status(), 200);
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", "6000001"),
        ("etag", &etag),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-store"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(header(&whole, name), value, "{name}");
    }
    let disposition = header(&whole, "content-disposition");
    assert!(
        disposition.starts_with("attachment; filename=\"") && disposition.contains("filename*=UTF-8''"),
        "{disposition}"
    );
    assert_eq!(whole.bytes().await.unwrap(), content);
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
    let hex: Vec<String> = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(file["sha256"], hex.concat());

    let history = operator.all(&format!("/api/v1/requests/{id}/history")).await;
    let last = history.last().unwrap();
    assert_eq!((&last["kind"], &last["diff"]), (&json!("file_attached"), &json!({ "file_id": [null, file["id"]] })));
    // Only the server's own user may look into the folder.
    let mode = std::fs::metadata(app.data.path().join("files")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_can_be_asked_for() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    let content = png(1_000);
    let file = upload(&operator, &path, photo(&content)).await.expect(201);
    let (path, etag) = (format!("/api/v1/files/{}", file["id"]), format!("\"{}\"", file["sha256"].as_str().unwrap()));
    for (range, if_range, expected) in [
        ("bytes=0-99", None, Some(0..100)),
        ("bytes=900-", None, Some(900..1_000)),
        ("bytes=-1", None, Some(999..1_000)),
        ("bytes=10-5000", Some(etag.as_str()), Some(10..1_000)),
        ("bytes=0-99", Some("\"another\""), None),
        ("bytes=0-1,5-6", None, None),
    ] {
        let mut headers = vec![("range", range)];
        headers.extend(if_range.map(|tag| ("if-range", tag)));
        let response = part(&operator, &path, &headers).await;
        let (status, content_range) = match &expected {
            Some(part) => (206, format!("bytes {}-{}/1000", part.start, part.end - 1)),
            None => (200, String::new()),
        };
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-range")),
            (status, content_range.as_str()),
            "{range}"
        );
        assert_eq!(response.bytes().await.unwrap(), content[expected.unwrap_or(0..1_000)], "{range}");
    }
    let answer = operator.send(operator.request(Method::GET, &path).header("range", "bytes=1000-")).await;
    assert_eq!(answer.header("content-range"), "bytes */1000");
    answer.problem(416, "range_not_satisfiable");
}

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
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("takes too long"), "{answer}");
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
    let secret = || "0123456789abcdef0123456789abcdef".to_owned();
    let environment = [
        ("DATABASE_URL", app.database.url()),
        ("SWITCHBOARD_JWT_SECRET", secret()),
        ("SWITCHBOARD_PASSWORD_PEPPER", secret()),
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
async fn an_owner_has_room_for_so_many_files_and_no_more() {
    let mut config = config();
    config.files.max_per_owner = 2;
    let app = TestApp::start_with(config).await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (_, path) = request(&operator).await;
    let content = photo(&png(2_000));
    let answers = join_all((0..5).map(|_| upload(&operator, &path, content.clone()))).await;
    let (stored, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((stored.len(), refused.len()), (2, 3));
    for answer in refused {
        answer.problem(409, "conflict");
    }
    eventually("two files are there", async || (app.data.files().len() == 2).then_some(())).await;
    let admin = app.actor(Role::Admin, &[]).await;
    let file = operator.all(&path).await.remove(0);
    let etag = format!("\"{}\"", file["sha256"].as_str().unwrap());
    admin.delete(&format!("/api/v1/files/{}", file["id"]), &etag).await.expect(204);
    upload(&operator, &path, content).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_seen_by_whoever_sees_its_owner() {
    let app = TestApp::start().await;
    let (director, manager) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Manager, &[MOSCOW]).await);
    let (operator, master) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let (elsewhere, another) = (app.actor(Role::Director, &[KAZAN]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    let of_request = format!("/api/v1/requests/{id}/files");
    let body = json!({ "type": "expense", "city": MOSCOW, "amount": "9", "master_id": master.id });
    let spent = director.post("/api/v1/transactions", body).await.expect(201);
    let of_transaction = format!("/api/v1/transactions/{}/files", spent["id"]);
    let photo = photo(&png(2_000));
    let picture = upload(&master, &of_request, photo.clone()).await.expect(201);
    let receipt = upload(&director, &of_transaction, photo.clone()).await.expect(201);
    assert_eq!((&receipt["transaction_id"], &receipt["request_id"]), (&spent["id"], &Value::Null));
    let file = |file: &Value| format!("/api/v1/files/{}", file["id"]);
    for (actor, sees_picture, sees_receipt) in [
        (&director, 200, 200),
        (&manager, 200, 200),
        (&operator, 200, 404),
        (&master, 200, 200),
        (&another, 404, 404),
        (&elsewhere, 404, 404),
    ] {
        for (path, status) in
            [(file(&picture), sees_picture), (file(&receipt), sees_receipt), (of_request.clone(), sees_picture)]
        {
            let got = part(actor, &path, &[]).await.status();
            assert_eq!(got, status, "{} {path}", actor.login);
        }
    }
    assert_eq!(master.all(&of_transaction).await, std::slice::from_ref(&receipt));
    operator.get(&of_transaction).await.problem(403, "forbidden");
    another.get(&of_transaction).await.problem(404, "not_found");
    for (actor, path, status, code) in [
        (&another, &of_request, 404, "not_found"),
        (&elsewhere, &of_request, 404, "not_found"),
        (&elsewhere, &of_transaction, 404, "not_found"),
        (&manager, &of_transaction, 403, "forbidden"),
        (&master, &of_transaction, 403, "forbidden"),
    ] {
        upload(actor, path, photo.clone()).await.problem(status, code);
    }

    let etag = format!("\"{}\"", receipt["sha256"].as_str().unwrap());
    master.delete(&file(&picture), &etag).await.problem(403, "forbidden");
    elsewhere.delete(&file(&picture), &etag).await.problem(404, "not_found");
    manager.delete(&file(&receipt), &etag).await.problem(403, "forbidden");
    director.delete(&file(&receipt), "\"1\"").await.problem(412, "stale");
    director.send(director.request(Method::DELETE, &file(&receipt))).await.problem(428, "if_match_required");
    assert_eq!(app.data.files().len(), 2);
    director.delete(&file(&receipt), &etag).await.expect(204);
    director.delete(&file(&receipt), &etag).await.problem(404, "not_found");
    director.get(&file(&receipt)).await.problem(404, "not_found");
    assert!(director.all(&of_transaction).await.is_empty());
    assert_eq!(app.data.files().len(), 1, "the content is gone too");
    manager.delete(&file(&picture), "*").await.expect(204);
    let history = manager.all(&format!("/api/v1/requests/{id}/history")).await;
    let last = history.last().unwrap();
    assert_eq!((&last["kind"], &last["diff"]), (&json!("file_removed"), &json!({ "file_id": [picture["id"], null] })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_lost_is_our_fault() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let (_, path) = request(&admin).await;
    let file = upload(&admin, &path, photo(&png(2_000))).await.expect(201);
    std::fs::remove_file(app.data.files().remove(0)).unwrap();
    admin.get(&format!("/api/v1/files/{}", file["id"])).await.problem(500, "internal");
    admin.delete(&format!("/api/v1/files/{}", file["id"]), "*").await.expect(204);
}
