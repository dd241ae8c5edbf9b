//! Bodies, paths and headers that nobody means well with: refused as what they are, never a 5xx.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{REQUESTS, path, pointers};
use crate::support::{MOSCOW, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_is_refused_as_what_it_is() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let good = format!(r#"{{"city": "{MOSCOW}", "phone": "+79161234567"}}"#);
    let deep = "[".repeat(100_000);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("application/json", b"".to_vec(), 400, "malformed"),
        ("application/json", b"{".to_vec(), 400, "malformed"),
        ("application/json", b"{\"city\": \"moscow\",}".to_vec(), 400, "malformed"),
        ("application/json", format!("{good} {good}").into_bytes(), 400, "malformed"),
        ("application/json", deep.into_bytes(), 422, "invalid"),
        ("application/json", b"\xff\xfe".to_vec(), 400, "malformed"),
        ("application/json", b"{\"city\": \"\xff\", \"phone\": \"1\"}".to_vec(), 400, "malformed"),
        ("application/json", b"{\"city\": \"\\ud800\", \"phone\": \"1\"}".to_vec(), 400, "malformed"),
        ("application/json", b"null".to_vec(), 422, "invalid"),
        ("application/json", b"[]".to_vec(), 422, "invalid"),
        ("application/json", b"\"text\"".to_vec(), 422, "invalid"),
        ("application/json", b"1e999".to_vec(), 400, "malformed"),
        ("application/json", b"{}".to_vec(), 422, "invalid"),
        ("application/json", br#"{"city": "moscow", "city": "kazan", "phone": "1"}"#.to_vec(), 422, "invalid"),
        ("application/json", br#"{"city": "moscow", "phone": "\u0000"}"#.to_vec(), 422, "invalid"),
        ("application/json", vec![b' '; 262_145], 413, "too_large"),
        ("text/plain", good.clone().into_bytes(), 415, "wrong_media_type"),
        ("application/x-www-form-urlencoded", b"city=moscow".to_vec(), 415, "wrong_media_type"),
        ("application/json-patch+json", good.clone().into_bytes(), 415, "wrong_media_type"),
        ("", good.clone().into_bytes(), 415, "wrong_media_type"),
    ];
    for (media_type, body, status, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let request = operator.request(Method::POST, REQUESTS).header("content-type", media_type).body(body);
        let answer = operator.send(request).await;
        assert_eq!(answer.status, status, "{media_type} {shown}: {}", answer.text);
        answer.problem(status, code);
    }
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 0);
    for media_type in ["application/json", "Application/JSON; charset=utf-8"] {
        let request = operator.request(Method::POST, REQUESTS).header("content-type", media_type).body(good.clone());
        operator.send(request).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_names_nothing_is_not_found() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    for id in ["0", "-1", "x", "1.5", "9223372036854775807", "9223372036854775808", "%00", "%ff", "1%2f2", "' OR 1=1"] {
        for tail in ["", "/history", "/comments"] {
            operator.get(&format!("{REQUESTS}/{id}{tail}")).await.problem(404, "not_found");
        }
        operator.move_to(0, json!({ "to": "no_answer" })).await.problem(404, "not_found");
        operator.patch(&format!("{REQUESTS}/{id}"), "*", json!({})).await.problem(404, "not_found");
        operator.get(&format!("/api/v1/calls/{id}")).await.problem(404, "not_found");
    }
    let stranger = app.stranger();
    for provider in ["%ff", "%00", "mango%2fevents", "MANGO"] {
        let form = [("json", "{}")];
        stranger
            .send(stranger.request(Method::POST, &format!("/api/v1/webhooks/telephony/{provider}")).form(&form))
            .await
            .problem(404, "not_found");
        let path = format!("/api/v1/webhooks/telephony/mango/events/{provider}");
        let answer = stranger.send(stranger.request(Method::POST, &path).form(&form)).await;
        assert!(answer.status.is_client_error(), "{provider}: {}", answer.status);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{provider}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_with_the_wrong_types_names_the_field() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let id = manager.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    for (body, expected) in [
        (json!({}), "/to"),
        (json!({ "to": null }), "/to"),
        (json!({ "to": "finished" }), "/to"),
        (json!({ "to": 3 }), "/to"),
        (json!({ "to": "offered" }), "/to"),
        (json!({ "to": "callback" }), "/callback_at"),
        (json!({ "to": "callback", "callback_at": "soon" }), "/callback_at"),
        (json!({ "to": "callback", "callback_at": "9999-12-31T23:59:59Z" }), "/callback_at"),
        (json!({ "to": "callback", "callback_at": 1_780_000_000 }), "/callback_at"),
        (json!({ "to": "no_answer", "reason": "" }), "/reason"),
        (json!({ "to": "no_answer", "reason": "x".repeat(501) }), "/reason"),
        (json!({ "to": "no_answer", "reason": "\0" }), "/reason"),
        (json!({ "to": "waiting", "address": "x".repeat(301), "meeting_at": "2026-06-03T10:00:00Z" }), "/address"),
        (json!({ "to": "waiting", "address": "Arbat 1" }), "/meeting_at"),
        (json!({ "to": "no_answer", "result": 5 }), "/result"),
    ] {
        let problem = manager.move_to(id, body.clone()).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [expected], "{body}");
    }
    let problem = manager.move_to(id, json!({ "to": "waiting" })).await.problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/address", "/meeting_at"]);
    for body in [json!({}), json!({ "master_id": "1" }), json!({ "master_id": 1.5 }), json!({ "master_id": 1, "x": 1 })]
    {
        manager.post(&format!("{}/assign", path(&json!(id))), body).await.problem(422, "invalid");
    }
    assert_eq!(manager.get(&path(&json!(id))).await.header("etag"), "\"1\"");
}

const FIELDS: &[&str] = &[
    "city",
    "phone",
    "type",
    "direction",
    "client_name",
    "description",
    "address",
    "meeting_at",
    "to",
    "reason",
    "callback_at",
    "result",
    "expenses",
    "master_id",
    "body",
    "request_id",
    "login",
    "password",
];

/// JSON that looks like what the endpoints take, with anything inside.
fn bodies() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(MOSCOW.to_owned()),
        Just("+79161234567".to_owned()),
        Just("2026-06-03T10:00:00Z".to_owned()),
        Just("warranty".to_owned()),
        Just("callback".to_owned()),
        Just("1000000.55".to_owned()),
        any::<String>(),
        proptest::collection::vec(any::<char>(), 0..400).prop_map(String::from_iter),
    ];
    let value = prop_oneof![
        6 => text.prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([{}])),
    ];
    proptest::collection::hash_map(proptest::sample::select(FIELDS), value, 0..6)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

#[test]
fn no_body_breaks_the_server() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(TestApp::start());
    let admin = runtime.block_on(app.actor(Role::Admin, &[]));
    let config = Config { cases: 80, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&bodies(), |body| {
            runtime.block_on(async {
                let id = admin.create_request(MOSCOW, "+79161234567").await["id"].clone();
                let path = path(&id);
                let mut answers =
                    vec![admin.post(REQUESTS, body.clone()).await, admin.patch(&path, "*", body.clone()).await];
                for tail in ["transitions", "assign", "comments"] {
                    answers.push(admin.post(&format!("{path}/{tail}"), body.clone()).await);
                }
                for answer in answers {
                    prop_assert!(!answer.status.is_server_error(), "{} {}", answer.status, answer.text);
                    if !answer.status.is_success() {
                        prop_assert_eq!(answer.header("content-type"), "application/problem+json");
                    }
                }
                Ok(())
            })
        })
        .unwrap();
}
