//! The documents: OpenAPI, its page, and the metric reference.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchboard::{
    auth::{
        Action, Role,
        policy::{self, Scope},
    },
    http::docs,
    server,
    telemetry::metrics,
};

use crate::support::{TestApp, process};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    serde_json::to_value(server::openapi()).unwrap()
}

/// Method, path and operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        assert!(item.keys().all(|method| METHODS.contains(&method.as_str())), "{path}");
        item.iter().map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    });
    operations.collect()
}

fn is_probe(path: &str) -> bool {
    ["/health/live", "/health/ready"].contains(&path)
}

/// The answers that an operation must document, from what it takes and who may call it.
fn expected_errors(method: &str, path: &str, operation: &Value) -> BTreeSet<&'static str> {
    let mut expected = BTreeSet::new();
    if is_probe(path) {
        return expected;
    }
    let public = operation.get("security").is_some();
    // What a provider posts is stored before anybody reads it.
    let json = operation["requestBody"]["content"].get("application/json").is_some() && !path.contains("/webhooks/");
    expected.extend(["500", "503", "504"]);
    if !path.ends_with("/auth/csrf") {
        expected.insert("401");
    }
    // Whatever a cookie can do needs a token of the page.
    if method != "get" && !path.contains("/webhooks/") {
        expected.insert("403");
    }
    if path.contains("{id}") || path.contains("{provider}") {
        expected.insert("404");
    }
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let query = parameters.iter().any(|parameter| parameter["in"] == "query");
    if json || query {
        expected.insert("422");
    }
    if json {
        expected.extend(["400", "413", "415"]);
    }
    if let Some(if_match) = parameters.iter().find(|parameter| parameter["name"] == "If-Match") {
        expected.insert("412");
        if if_match["required"] == true {
            expected.insert("428");
        }
    }
    if parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key") {
        expected.extend(["400", "409", "422"]);
    }
    if public && path.ends_with("/login") {
        expected.insert("429");
    }
    if path.contains("/webhooks/") {
        expected.extend(["400", "413"]);
    }
    expected
}

#[test]
fn every_operation_says_what_it_does_and_what_it_may_answer() {
    let document = document();
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    let operations = operations(&document);
    assert!(operations.len() >= 28);
    for (method, path, operation) in operations {
        let what = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{what}: no summary");
        let tag = operation["tags"][0].as_str().unwrap_or_else(|| panic!("{what}: no tag"));
        assert!(tags.contains(tag), "{what}: the tag {tag} is not described");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{what}: its operationId is taken");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{what}: no success");
        for (status, answer) in answers {
            assert!(!answer["description"].as_str().unwrap().is_empty(), "{what}: {status}");
            if status.starts_with(['4', '5']) && !is_probe(path) {
                assert_eq!(answer["content"].as_object().unwrap().len(), 1, "{what}: {status}");
                let problem = &answer["content"]["application/problem+json"];
                assert_eq!(problem["schema"], json!({ "$ref": "#/components/schemas/Problem" }), "{what}: {status}");
                assert_eq!(problem["example"]["status"].to_string(), *status, "{what}: {status}");
            }
        }
        for status in expected_errors(method, path, operation) {
            assert!(answers.contains_key(status), "{what}: {status} is not documented");
        }
        for segment in path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().unwrap();
            let known = parameters.iter().any(|parameter| parameter["name"] == segment && parameter["in"] == "path");
            assert!(known, "{what}: {segment} is not described");
        }
    }
}

#[test]
fn every_operation_says_who_may_do_it() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        let action = operation["x-action"].as_str().unwrap_or_else(|| panic!("{what}: no x-action"));
        if action == docs::PUBLIC {
            assert!(operation.get("security").is_some() && operation.get("x-roles").is_none(), "{what}");
            continue;
        }
        assert!(operation.get("security").is_none(), "{what}: it needs a session");
        let action = Action::ALL.iter().find(|known| known.as_str() == action);
        let action = action.unwrap_or_else(|| panic!("{what}: no such action"));
        let roles = operation["x-roles"].as_object().unwrap();
        for role in Role::ALL {
            let scope = policy::scope(*role, *action).map(|scope| match scope {
                Scope::All => "all",
                Scope::Cities => "cities",
                Scope::Own => "own",
            });
            assert_eq!(roles.get(role.as_str()).and_then(Value::as_str), scope, "{what}: {role:?}");
        }
        let everybody = roles.len() == Role::ALL.len();
        assert!(everybody || operation["responses"].get("403").is_some(), "{what}: 403 is not documented");
    }
}

/// Where an example is still the stand-in for one that nobody wrote.
fn stand_ins(example: &Value) -> Vec<String> {
    match example {
        Value::String(text) if text == "…" => vec![String::new()],
        Value::Array(items) => items.iter().flat_map(stand_ins).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| stand_ins(value).into_iter().map(move |rest| format!("/{name}{rest}")))
            .collect(),
        _ => vec![],
    }
}

#[test]
fn everything_has_an_example() {
    let document = document();
    let mut lacking = Vec::new();
    let mut check = |what: String, holder: &Value| match holder.get("example") {
        Some(example) => lacking.extend(stand_ins(example).into_iter().map(|field| format!("{what}{field}"))),
        None => lacking.push(what),
    };
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            // The page would send it, and everybody who tries it the same.
            if parameter["name"] != "Idempotency-Key" {
                check(format!("{what} {}", parameter["name"]), parameter);
            }
        }
        let mut contents: Vec<(String, &Value)> = operation["requestBody"]["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(kind, content)| (kind.clone(), content))
            .collect();
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let answers = answer["content"].as_object().into_iter().flatten();
            contents.extend(answers.map(|(kind, content)| (format!("{status} {kind}"), content)));
        }
        for (kind, content) in contents {
            // Bytes are their own example.
            if content["schema"]["format"] != "binary" && !kind.contains("multipart/") {
                check(format!("{what} {kind}"), content);
            }
        }
    }
    assert!(lacking.is_empty(), "{lacking:#?}");
}

#[test]
fn only_the_door_is_open_without_a_session() {
    let document = document();
    assert!(document["security"].as_array().is_some_and(|ways| ways.len() == 2), "a token or a cookie");
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    for way in document["security"].as_array().unwrap() {
        for scheme in way.as_object().unwrap().keys() {
            assert!(schemes.contains_key(scheme), "{scheme}");
        }
    }
    for (method, path, operation) in operations(&document) {
        let door = ["login", "refresh", "csrf", "logout"].iter().any(|name| path == format!("/api/v1/auth/{name}"));
        let open = is_probe(path) || path.contains("/webhooks/") || door;
        assert_eq!(operation.get("security").is_some(), open, "{method} {path}");
    }
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if name == "$ref" => found.push(target),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_document_is_the_printed_one() {
    let app = TestApp::start().await;
    let answer = app.stranger().get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let served = answer.expect(200);
    let printed = tokio::task::spawn_blocking(|| process::run(&["openapi"], &[], b"").success()).await.unwrap();
    assert_eq!(served, serde_json::from_str::<Value>(&printed).unwrap());
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interactive_page_is_served_and_a_browser_may_run_it() {
    let app = TestApp::start().await;
    let stranger = app.stranger();
    let mut path = "/".to_owned();
    let page = loop {
        let answer = stranger.get(&path).await;
        if !answer.status.is_redirection() {
            break answer;
        }
        answer.header("location").clone_into(&mut path);
    };
    assert!(path.starts_with("/docs"), "{path}");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.header("content-type"));
    // The page's own scripts and styles, which its policy must let in, and which must be there.
    let policy = page.header("content-security-policy").to_owned();
    let directive =
        |name: &str| policy.split(';').map(str::trim).find_map(|part| part.strip_prefix(name)).map(str::to_owned);
    for name in ["script-src", "style-src", "connect-src"] {
        let sources = directive(name).or_else(|| directive("default-src")).unwrap();
        assert!(sources.contains("'self'"), "{name}: {policy}");
    }
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let is_asset = |part: &&str| [".js", ".css"].iter().any(|end| part.ends_with(end));
    let assets: Vec<&str> = page.text.split(['"', '\'']).filter(is_asset).collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        let asset = format!("/docs/{}", asset.trim_start_matches("./"));
        assert_eq!(stranger.get(&asset).await.status, 200, "{asset}");
    }
    // It reads our document and nobody else's.
    assert!(stranger.get("/docs/swagger-initializer.js").await.text.contains("/openapi.json"));
}

#[test]
fn the_metric_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let written = std::fs::read_to_string(path).expect("docs/METRICS.md is missing: run `make docs`");
    assert!(written == metrics::reference(), "docs/METRICS.md is not what the catalogue says: run `make docs`");
    assert_eq!(process::run(&["metrics"], &[], b"").success(), written);
}
