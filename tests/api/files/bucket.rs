//! Files in a bucket: the part of S3 that we use, spoken by a server of the test's own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use switchboard::auth::Role;

use super::{part, photo, png, request, upload};
use crate::support::{JWT_SECRET, MOSCOW, PEPPER, TestApp, actor::Actor, process::Server};

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<u32, Bytes>,
    unsigned: usize,
}

type Shared = Arc<Mutex<Bucket>>;

async fn s3(State(bucket): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut bucket = bucket.lock().unwrap();
    let signed = headers.get("authorization").is_some_and(|value| value.to_str().unwrap().contains("Credential=key/"));
    bucket.unsigned += usize::from(!signed);
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
    match (method.as_str(), query) {
        ("POST", "uploads=" | "uploads") => {
            "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>".into_response()
        }
        ("PUT", _) => {
            let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).unwrap();
            bucket.parts.insert(number.parse().unwrap(), body);
            ([("etag", "\"part\"")], "").into_response()
        }
        ("POST", "delete=" | "delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let key = text.split("<Key>").nth(1).and_then(|rest| rest.split("</Key>").next()).unwrap().to_owned();
            bucket.objects.remove(&format!("/bucket/{key}")).unwrap();
            format!("<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>").into_response()
        }
        ("POST", _) => {
            let whole = std::mem::take(&mut bucket.parts).into_values().flatten().collect();
            bucket.objects.insert(path, whole);
            "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>".into_response()
        }
        ("GET", _) => {
            let Some(object) = bucket.objects.get(&path) else { return StatusCode::NOT_FOUND.into_response() };
            let range = headers["range"].to_str().unwrap().trim_start_matches("bytes=").split_once('-').unwrap();
            let (first, last): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
            let head = [
                ("content-range", format!("bytes {first}-{last}/{}", object.len())),
                ("etag", "\"whole\"".to_owned()),
                ("last-modified", "Mon, 01 Jun 2026 07:00:00 GMT".to_owned()),
            ];
            (StatusCode::PARTIAL_CONTENT, head, object[first..=last].to_vec()).into_response()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_lie_in_a_bucket_when_the_setting_says_so() {
    let bucket = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(s3).layer(DefaultBodyLimit::disable()).with_state(bucket.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[MOSCOW]).await;
    let (_, path) = request(&admin).await;
    let environment = [
        ("DATABASE_URL", app.database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        ("SWITCHBOARD_FILES_STORE", "s3://bucket/some/prefix".to_owned()),
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    let admin = Actor::sign_in(&format!("http://{}", server.public), admin.id, &admin.login).await;
    let content = png(6_000_001);
    let file = upload(&admin, &path, photo(&content)).await.expect(201);
    let key = bucket.lock().unwrap().objects.keys().next().unwrap().clone();
    assert!(key.starts_with("/bucket/some/prefix/attachments/20"), "{key}");
    let path = format!("/api/v1/files/{}", file["id"]);
    assert_eq!(part(&admin, &path, &[]).await.bytes().await.unwrap(), content);
    let some = part(&admin, &path, &[("range", "bytes=5-14")]).await;
    assert_eq!((some.status().as_u16(), some.bytes().await.unwrap().as_ref()), (206, &content[5..15]));
    admin.delete(&path, "*").await.expect(204);
    let bucket = bucket.lock().unwrap();
    assert!(bucket.objects.is_empty() && bucket.unsigned == 0);
}
