//! Who may do what: every operation of the OpenAPI document, for every role, on what is theirs and
//! on what is not. An operation without a row in [`MATRIX`] fails the test.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{
    KAZAN, MANGO_SALT, MOSCOW, MOSCOW_LINE, PASSWORD, TestApp,
    actor::{Actor, Answer, number},
    telephony::{Call, form},
};

/// Method, path, the status of success, and who: a letter a role in the order of [`Role::ALL`]
/// (admin, director, manager, marketer, operator, master), y may, n may not. An empty list means that
/// the operation asks nobody who they are.
const MATRIX: &[(&str, &str, u16, &str)] = &[
    ("POST", "/api/v1/auth/login", 200, ""),
    ("POST", "/api/v1/auth/logout", 204, "yyyyyy"),
    ("GET", "/api/v1/auth/me", 200, "yyyyyy"),
    ("GET", "/api/v1/requests", 200, "yyyyyy"),
    ("POST", "/api/v1/requests", 201, "yyyyyn"),
    ("GET", "/api/v1/requests/{id}", 200, "yyyyyy"),
    ("PATCH", "/api/v1/requests/{id}", 200, "yyyyyn"),
    ("DELETE", "/api/v1/requests/{id}", 204, "ynnnnn"),
    ("POST", "/api/v1/requests/{id}/transitions", 200, "yyyyyy"),
    ("POST", "/api/v1/requests/{id}/assign", 200, "yyyynn"),
    ("GET", "/api/v1/requests/{id}/comments", 200, "yyyyyy"),
    ("POST", "/api/v1/requests/{id}/comments", 201, "yyyyyy"),
    ("GET", "/api/v1/requests/{id}/history", 200, "yyyyyy"),
    ("GET", "/api/v1/calls", 200, "yyyyyn"),
    ("GET", "/api/v1/calls/triage", 200, "yyyyyn"),
    ("GET", "/api/v1/calls/{id}", 200, "yyyyyn"),
    ("POST", "/api/v1/calls/{id}/link", 200, "yyyyyn"),
    ("POST", "/api/v1/webhooks/telephony/{provider}", 200, ""),
    ("POST", "/api/v1/webhooks/telephony/{provider}/events/{kind}", 200, ""),
    ("POST", "/api/v1/webhooks/telephony/{provider}/events/{kind}/{detail}", 200, ""),
    ("GET", "/api/v1/dictionaries/cities", 200, "yyyyyy"),
    ("GET", "/api/v1/dictionaries/request-types", 200, "yyyyyy"),
    ("GET", "/api/v1/dictionaries/directions", 200, "yyyyyy"),
    ("GET", "/api/v1/dictionaries/transaction-types", 200, "yyyyyy"),
    ("GET", "/api/v1/dictionaries/campaigns", 200, "yyyyyy"),
    ("GET", "/api/v1/dictionaries/roles", 200, "yyyyyy"),
    ("GET", "/health/live", 200, ""),
    ("GET", "/health/ready", 200, ""),
];

#[test]
fn every_operation_has_its_row_and_every_row_its_operation() {
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            operations.insert((method.to_uppercase(), path.clone()));
        }
    }
    let rows: BTreeSet<_> =
        MATRIX.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(rows.len(), MATRIX.len(), "a row is there twice");
    let missing: Vec<_> = operations.difference(&rows).collect();
    assert!(missing.is_empty(), "say in MATRIX who may do this: {missing:?}");
    let stale: Vec<_> = rows.difference(&operations).collect();
    assert!(stale.is_empty(), "no such operations: {stale:?}");
}

/// Where something is, seen from the people of Moscow.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// In their city; for a master, given to them.
    Theirs,
    /// In another city, and another master's.
    Elsewhere,
}

struct World {
    app: TestApp,
    actors: Vec<(Role, Actor)>,
    /// Masters of both cities.
    masters: [i64; 2],
}

impl World {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let mut actors = Vec::new();
        for role in Role::ALL {
            actors.push((*role, app.actor(*role, &[MOSCOW]).await));
        }
        let moscow_master = actors.iter().find(|(role, _)| *role == Role::Master).unwrap().1.id;
        let masters = [moscow_master, app.actor(Role::Master, &[KAZAN]).await.id];
        Self { app, actors, masters }
    }

    fn admin(&self) -> &Actor {
        &self.actors[0].1
    }

    /// A service request on which `role` could make this very move, if it may and if it is theirs.
    async fn request(&self, path: &str, role: Role, place: Place) -> i64 {
        let (city, master) = match place {
            Place::Theirs => (MOSCOW, self.masters[0]),
            Place::Elsewhere => (KAZAN, self.masters[1]),
        };
        let phone = format!("+7916{:07}", number());
        if role == Role::Master {
            let id = self.admin().waiting_request(city, &phone).await;
            self.admin().assign(id, master).await.expect(200);
            id
        } else if path.ends_with("/assign") {
            self.admin().waiting_request(city, &phone).await
        } else {
            self.admin().create_request(city, &phone).await["id"].as_i64().unwrap()
        }
    }

    async fn call(&self, place: Place) -> i64 {
        let city = if place == Place::Theirs { MOSCOW } else { KAZAN };
        let sql = format!(
            "INSERT INTO calls (provider, call_key, direction, city_id, received_at)
             SELECT 'mango', 'call{}', 'incoming', id, now() FROM cities WHERE code = '{city}' RETURNING id",
            number()
        );
        self.app.database.count(&sql).await
    }

    /// Makes the call that `row` names as well as it can be made, on something of that place.
    async fn attempt(&self, row: &Row, role: Role, actor: &Actor, place: Place) -> Answer {
        let (method, path, ..) = *row;
        let (path, body) = if path.contains("/requests/{id}") {
            let id = self.request(path, role, place).await;
            let body = match path.rsplit('/').next().unwrap() {
                "assign" => json!({ "master_id": self.masters[usize::from(place == Place::Elsewhere)] }),
                "transitions" if role == Role::Master => json!({ "to": "accepted" }),
                "transitions" => json!({ "to": "no_answer" }),
                "comments" => json!({ "body": "The dog bites." }),
                _ => json!({ "description": "The tap drips." }),
            };
            (path.replace("{id}", &id.to_string()), body)
        } else if path.contains("/calls/{id}") {
            let id = self.call(place).await;
            let request = self.request(path, Role::Operator, place).await;
            (path.replace("{id}", &id.to_string()), json!({ "request_id": request }))
        } else if path == "/api/v1/requests" {
            (path.to_owned(), json!({ "city": MOSCOW, "phone": format!("+7916{:07}", number()) }))
        } else {
            (path.to_owned(), json!({ "login": actor.login, "password": PASSWORD }))
        };
        let request = actor.request(Method::from_bytes(method.as_bytes()).unwrap(), &path).header("if-match", "*");
        actor.send(if method == "GET" { request } else { request.json(&body) }).await
    }
}

type Row = (&'static str, &'static str, u16, &'static str);

fn guarded() -> impl Iterator<Item = &'static Row> {
    MATRIX.iter().filter(|(.., who)| !who.is_empty())
}

fn may(row: &Row, role: Role) -> bool {
    let letter = Role::ALL.iter().position(|known| *known == role).unwrap();
    row.3.as_bytes()[letter] == b'y'
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_on_its_own_what_the_matrix_says_and_nothing_else() {
    let world = World::new().await;
    for row in guarded() {
        for (role, actor) in &world.actors {
            // Signing out would end the test for the rest of the rows.
            let actor = if row.1.ends_with("/logout") {
                &Actor::sign_in(&world.app.url(""), actor.id, &actor.login).await
            } else {
                actor
            };
            let answer = world.attempt(row, *role, actor, Place::Theirs).await;
            let expected = if may(row, *role) { row.2 } else { 403 };
            assert_eq!(answer.status.as_u16(), expected, "{role:?} {row:?}: {}", answer.text);
            if expected == 403 {
                answer.problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_elsewhere_does_not_exist() {
    let world = World::new().await;
    for row in guarded().filter(|row| row.1.contains("{id}")) {
        for (role, actor) in &world.actors {
            let answer = world.attempt(row, *role, actor, Place::Elsewhere).await;
            match (may(row, *role), *role) {
                (true, Role::Admin) => assert_eq!(answer.status.as_u16(), row.2, "{row:?}: {}", answer.text),
                (true, _) => {
                    assert_eq!(answer.status, 404, "{role:?} {row:?}: {}", answer.text);
                    // Word for word what somebody hears who asks for something that was never there.
                    let (never, method) = (row.1.replace("{id}", "999999999"), Method::from_bytes(row.0.as_bytes()));
                    let body = answer.text.clone();
                    answer.problem(404, "not_found");
                    let request = actor.request(method.unwrap(), &never).header("if-match", "*");
                    let missing = match row.1.rsplit('/').next().unwrap() {
                        "assign" => request.json(&json!({ "master_id": world.masters[0] })),
                        "transitions" => request.json(&json!({ "to": "no_answer" })),
                        "comments" if row.0 == "POST" => request.json(&json!({ "body": "x" })),
                        "link" => request.json(&json!({ "request_id": 1 })),
                        _ if row.0 == "PATCH" => request.json(&json!({})),
                        _ => request,
                    };
                    assert_eq!(actor.send(missing).await.text, body, "{role:?} {row:?}");
                }
                (false, _) => drop(answer.problem(403, "forbidden")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_everything_but_the_door_is_shut() {
    let world = World::new().await;
    let (nobody, mut forger) = (world.app.stranger(), world.app.stranger());
    forger.token = Some("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiIxIn0.".to_owned());
    for row in guarded() {
        for stranger in [&nobody, &forger] {
            let answer = world.attempt(row, Role::Admin, stranger, Place::Theirs).await;
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{row:?}");
            let problem: Value = answer.problem(401, "unauthenticated");
            assert_eq!(problem["detail"], Value::Null, "{row:?}: it does not say what is wrong with the token");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_asks_nobody_who_they_are() {
    let app = TestApp::start().await;
    let (user, stranger) = (app.actor(Role::Operator, &[MOSCOW]).await, app.stranger());
    let event = Call::new("entry", "+79161234567", MOSCOW_LINE).appeared();
    let recording = json!({ "entry_id": "e", "recording_id": "r", "timestamp": 1_780_000_000 }).to_string();
    for (method, path, success, _) in MATRIX.iter().filter(|(.., who)| who.is_empty()) {
        let answer = match path.split("/telephony/{provider}").nth(1) {
            Some("") => stranger.deliver_raw("", &form(&event.json.replace("entry", "other"), MANGO_SALT)).await,
            Some("/events/{kind}") => stranger.deliver(&event).await,
            Some(_) => stranger.deliver_raw("/events/record/added", &form(&recording, MANGO_SALT)).await,
            None if *method == "POST" => {
                stranger.post(path, json!({ "login": user.login, "password": PASSWORD })).await
            }
            None => stranger.get(path).await,
        };
        assert_eq!(answer.status.as_u16(), *success, "{method} {path}: {}", answer.text);
    }
}
