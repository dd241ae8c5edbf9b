//! Who may do what, generated: every operation of the OpenAPI document × every role × what is theirs
//! and what is elsewhere. What the outcome must be comes from [`RIGHTS`], written down here once more
//! and by nobody else; what an operation needs in order to succeed comes from [`world`].

pub mod world;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{auth::Role, http::docs};

use self::world::{Place, World};
use crate::support::{
    KAZAN, MANGO_SALT, MOSCOW_LINE, PASSWORD, TestApp,
    telephony::{Call, form},
};

/// The matrix: what each role may do, a letter a role in the order of [`Role::ALL`] (admin, director,
/// manager, marketer, operator, master): A all, C of their own cities, O their own, - nothing.
const RIGHTS: &[(&str, &str)] = &[
    ("own_account", "OOOOOO"),
    ("read_requests", "ACCCCO"),
    ("edit_intake", "ACCCC-"),
    ("assign_master", "ACCC--"),
    ("move_requests", "ACCCCO"),
    ("comment", "ACCCCO"),
    ("delete_requests", "A-----"),
    ("calls", "ACCCC-"),
    ("read_transactions", "ACC--O"),
    ("manage_transactions", "AC----"),
    ("read_masters", "ACCCCO"),
    ("edit_masters", "ACC--O"),
    ("manage_masters", "ACC---"),
    ("create_employees", "ACC---"),
    ("manage_employees", "AC----"),
    ("manage_administrators", "A-----"),
    ("read_dictionaries", "ACCCCO"),
    ("manage_dictionaries", "A-----"),
    ("manage_campaigns", "ACC---"),
    ("read_files", "ACCCCO"),
    ("delete_files", "ACC---"),
    ("call_centre_report", "ACCCC-"),
    ("money_reports", "ACC--O"),
    ("business_metrics", "ACC---"),
    ("detailed_health", "A-----"),
    ("security", "A-----"),
];

/// One operation of the document.
#[derive(Debug)]
pub struct Operation {
    pub method: Method,
    /// With its `{segments}`.
    pub path: String,
    action: String,
    /// The status of success.
    success: u16,
}

impl Operation {
    /// The letter of a role.
    fn right(&self, role: Role) -> char {
        let at = Role::ALL.iter().position(|known| *known == role).unwrap();
        let (_, letters) = RIGHTS.iter().find(|(action, _)| *action == self.action).unwrap();
        letters.chars().nth(at).unwrap()
    }

    /// Whether it is about one thing that belongs to a city or a person.
    fn has_a_place(&self) -> bool {
        self.path.contains('{') && world::PLACELESS.iter().all(|prefix| !self.path.starts_with(prefix))
    }
}

fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let success = operation["responses"].as_object().unwrap().keys().find(|status| status.starts_with('2'));
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                action: operation["x-action"].as_str().unwrap().to_owned(),
                success: success.unwrap().parse().unwrap(),
            });
        }
    }
    operations
}

pub fn guarded() -> Vec<Operation> {
    operations().into_iter().filter(|operation| operation.action != docs::PUBLIC).collect()
}

#[test]
fn every_operation_has_a_right_and_every_right_an_operation() {
    let used: BTreeSet<String> = guarded().into_iter().map(|operation| operation.action).collect();
    let known: BTreeSet<String> = RIGHTS.iter().map(|(action, _)| (*action).to_owned()).collect();
    assert_eq!(used, known);
    assert!(RIGHTS.iter().all(|(_, letters)| letters.len() == Role::ALL.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_do_on_its_own_what_the_matrix_says_and_nothing_else() {
    let world = World::new().await;
    for operation in guarded() {
        for (role, actor) in &world.actors {
            // Some operations end the session, or the password; the rest of the rows need them.
            let actor = match operation.path.rsplit_once('/') {
                Some((_, "password" | "logout-all")) => &world.app.actor(*role, &[world::HOME]).await,
                _ => actor,
            };
            let answer = world.attempt(&operation, *role, actor, Place::Theirs).await;
            if operation.right(*role) == '-' {
                answer.problem(403, "forbidden");
            } else {
                assert_eq!(answer.status.as_u16(), operation.success, "{role:?} {operation:?}: {}", answer.text);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_elsewhere_does_not_exist() {
    let world = World::new().await;
    for operation in guarded().iter().filter(|operation| operation.has_a_place()) {
        for (role, actor) in &world.actors {
            let answer = world.attempt(operation, *role, actor, Place::Elsewhere).await;
            match operation.right(*role) {
                '-' => drop(answer.problem(403, "forbidden")),
                'A' => assert_eq!(answer.status.as_u16(), operation.success, "{operation:?}: {}", answer.text),
                _ => {
                    assert_eq!(answer.status, 404, "{role:?} {operation:?}: {}", answer.text);
                    // Word for word what somebody hears who asks for something that was never there.
                    let elsewhere = without_trace(answer.problem(404, "not_found"));
                    let never = world.attempt(operation, *role, actor, Place::Nowhere).await;
                    assert_eq!(without_trace(never.problem(404, "not_found")), elsewhere, "{role:?} {operation:?}");
                }
            }
        }
    }
}

fn without_trace(mut problem: Value) -> Value {
    problem.as_object_mut().unwrap().remove("trace_id");
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_creates_anything_in_a_city_that_is_not_theirs() {
    let world = World::new().await;
    let mut seen = 0;
    for operation in
        guarded().iter().filter(|operation| operation.method == Method::POST && !operation.path.contains('{'))
    {
        for (role, actor) in &world.actors {
            let (_, Some(mut body)) = world.question(operation, *role, actor, Place::Theirs).await else { continue };
            let field = ["city", "cities"].into_iter().find(|field| body.get(field).is_some());
            let (Some(field), 'C') = (field, operation.right(*role)) else { continue };
            body[field] = if field == "city" { json!(KAZAN) } else { json!([KAZAN]) };
            let problem = actor.post(&operation.path, body).await.problem(422, "invalid");
            assert!(problem["errors"][0]["pointer"].as_str().unwrap().starts_with(&format!("/{field}")), "{problem}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_leave_out_what_is_elsewhere() {
    let world = World::new().await;
    for (list, one) in world::LISTS {
        let all = operations();
        let operation =
            all.iter().find(|operation| operation.method == Method::GET && operation.path == *list).unwrap();
        let one = all.iter().find(|operation| operation.path == *one).unwrap();
        for (role, actor) in world.actors.iter().filter(|(role, _)| operation.right(*role) != '-') {
            let theirs = world.id(one, *role, actor, Place::Theirs).await;
            let elsewhere = world.id(one, *role, actor, Place::Elsewhere).await;
            let rows = actor.everything(list).await;
            let lists = |id: i64| rows.iter().any(|row| row["id"] == id);
            assert!(lists(theirs), "{role:?} {list}: {theirs} is missing");
            assert_eq!(lists(elsewhere), operation.right(*role) == 'A', "{role:?} {list}: {elsewhere}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_everything_but_the_door_is_shut() {
    let world = World::new().await;
    let (nobody, mut forger) = (world.app.stranger(), world.app.stranger());
    forger.token = Some("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiIxIn0.".to_owned());
    for operation in guarded() {
        for stranger in [&nobody, &forger] {
            let answer = world.attempt(&operation, Role::Admin, stranger, Place::Nowhere).await;
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{operation:?}");
            let problem: Value = answer.problem(401, "unauthenticated");
            assert_eq!(problem["detail"], Value::Null, "{operation:?}: it does not say what is wrong with the token");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_asks_nobody_who_they_are() {
    let app = TestApp::start().await;
    let (user, stranger) = (app.actor(Role::Operator, &[world::HOME]).await, app.stranger());
    let event = Call::new("entry", "+79161234567", MOSCOW_LINE).appeared();
    let recording = json!({ "entry_id": "e", "recording_id": "r", "timestamp": 1_780_000_000 }).to_string();
    for operation in operations().iter().filter(|operation| operation.action == docs::PUBLIC) {
        let answer = match operation.path.split("/telephony/{provider}").nth(1) {
            Some("") => stranger.deliver_raw("", &form(&event.json.replace("entry", "other"), MANGO_SALT)).await,
            Some("/events/{kind}") => stranger.deliver(&event).await,
            Some(_) => stranger.deliver_raw("/events/record/added", &form(&recording, MANGO_SALT)).await,
            None if operation.path.ends_with("/refresh") => user.refresh().await,
            // There need be no session: then it is as good as over.
            None if operation.path.ends_with("/logout") => {
                stranger
                    .send(stranger.request(Method::POST, &operation.path).header("sec-fetch-site", "same-origin"))
                    .await
            }
            None if operation.method == Method::POST => {
                let body = json!({ "login": user.login, "password": PASSWORD, "session": "token" });
                stranger.post(&operation.path, body).await
            }
            None => stranger.get(&operation.path).await,
        };
        assert_eq!(answer.status.as_u16(), operation.success, "{operation:?}: {}", answer.text);
    }
}
