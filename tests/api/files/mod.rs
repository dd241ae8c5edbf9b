//! Files of service requests and transactions: what is taken in, what is left of what is not, who sees
//! them, and how they are given back.

mod broken;
mod bucket;

use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{
    KAZAN, MOSCOW, TestApp,
    actor::{Actor, Answer},
    config, eventually,
    files::{FORM, field, form, photo, png},
};

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
        ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
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
