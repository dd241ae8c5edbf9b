//! Bad input, generated: every field of every body and every parameter of every query of the OpenAPI
//! document, with what no form would send. Nothing of it may be a 5xx, or break the shape of an error.

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::{
    authorisation::{
        guarded,
        world::{Place, World},
    },
    support::actor::Answer,
};

/// Values that a field is not made for.
fn nasty() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("a\u{0}b"),
        json!("\u{202e}\u{feff}\u{1f9ff}"),
        json!("x".repeat(5_000)),
        json!("'; DROP TABLE users; --"),
        json!("2026-02-31T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!("-0001-01-01"),
        json!("-1.00"),
        json!("1e30"),
        json!("99999999999999999999999999999.99"),
        json!("0.001"),
        json!("NaN"),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(true),
        json!([]),
        json!([null]),
        json!(["\u{0}"]),
        json!({}),
        json!({ "a": { "a": { "a": [[[[[]]]]] } } }),
    ]
}

#[track_caller]
fn check(answer: &Answer, what: &str) {
    // 503 with Retry-After is an answer, but nothing here is a reason for one.
    assert!(answer.status.as_u16() < 500, "{what}: {} {}", answer.status, answer.text);
    if answer.status.is_client_error() {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        let problem = answer.json();
        assert_eq!(problem["status"], answer.status.as_u16(), "{what}");
        if problem["code"] == "invalid" {
            // An empty pointer is the body itself (RFC 6901).
            let errors = problem["errors"].as_array().unwrap();
            assert!(!errors.is_empty() && errors.iter().all(|error| error["pointer"].is_string()), "{what}: {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_any_body_is_a_server_error() {
    let world = World::new().await;
    let admin = &world.actors[0].1;
    let mut asked = 0;
    for operation in guarded().iter().filter(|operation| operation.method != Method::GET) {
        // Signing out, or another password, would end the session that asks.
        if operation.path.starts_with("/api/v1/auth/") {
            continue;
        }
        let (path, Some(body)) = world.question(operation, Role::Admin, admin, Place::Theirs).await else { continue };
        let fields: Vec<String> = body.as_object().unwrap().keys().cloned().collect();
        let send = async |body: &Value| {
            admin.send(admin.request(operation.method.clone(), &path).header("if-match", "*").json(body)).await
        };
        for field in fields.iter().map(String::as_str).chain(["unheard_of"]) {
            for value in nasty() {
                let mut body = body.clone();
                body[field] = value.clone();
                let answer = send(&body).await;
                check(&answer, &format!("{} {path} {field}={value}", operation.method));
                if field == "unheard_of" {
                    assert_eq!(answer.problem(422, "invalid")["errors"][0]["pointer"], "/unheard_of", "{path}");
                }
                asked += 1;
            }
        }
        for value in nasty() {
            check(&send(&value).await, &format!("{} {path}: {value}", operation.method));
        }
    }
    assert!(asked > 1_000, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_parameter_of_any_query_is_a_server_error() {
    let world = World::new().await;
    let admin = &world.actors[0].1;
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    let mut asked = 0;
    for operation in guarded().iter().filter(|operation| operation.method == Method::GET) {
        let (path, _) = world.question(operation, Role::Admin, admin, Place::Theirs).await;
        let path = path.split('?').next().unwrap();
        let parameters = &document["paths"][&operation.path]["get"]["parameters"];
        let names = parameters.as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query");
        for name in names.map(|parameter| parameter["name"].as_str().unwrap()) {
            for value in nasty() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
                // A report wants its days; each is what is tried, or one that is right.
                let range = if path.contains("/reports/") { "from=2026-06-01&to=2026-06-30&" } else { "" };
                let others: String =
                    range.split_inclusive('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
                let request = admin.request(Method::GET, &format!("{path}?{others}{name}={text}"));
                check(&admin.head(request).await, &format!("GET {path}?{name}={value}"));
                asked += 1;
            }
        }
    }
    assert!(asked > 1_000, "{asked}");
}
