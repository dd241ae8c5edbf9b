//! No sequence of API calls reaches a state that the table forbids.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use switchboard::{
    auth::Role,
    requests::state::{self, Need, Status, TABLE},
};

use crate::support::{MOSCOW, TestApp, actor::Actor};

/// One attempt: who tries to go where, and whether they bring what the state needs.
#[derive(Clone, Debug)]
struct Attempt {
    actor: usize,
    to: Status,
    complete: bool,
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    // Half of the attempts follow the table from wherever they are, so that deep states are reached.
    let to = proptest::sample::select(Status::ALL);
    let attempt = (0..6_usize, to, proptest::bool::weighted(0.8)).prop_map(|(actor, to, complete)| Attempt {
        actor,
        to,
        complete,
    });
    proptest::collection::vec(attempt, 25..40)
}

/// The API's answer must be what the pure table says.
async fn attempt(actors: &[(Role, Actor)], master_id: i64, id: i64, attempt: &Attempt, state: &mut Model) {
    let (role, actor) = &actors[attempt.actor];
    let rule = state::decide(state.status, attempt.to, *role);
    let answer = if attempt.to == Status::Offered {
        actor.assign(id, master_id).await
    } else {
        actor.move_to(id, body(attempt, rule.ok())).await
    };
    // A master sees a request only while it is theirs.
    if *role == Role::Master && !state.has_master {
        let expected = if attempt.to == Status::Offered { 403 } else { 404 };
        assert_eq!(answer.status.as_u16(), expected, "{attempt:?} {}", answer.text);
        return;
    }
    let may_assign = matches!(role, Role::Admin | Role::Director | Role::Manager | Role::Marketer);
    let expected = match rule {
        _ if attempt.to == Status::Offered && !may_assign => 403,
        Err(state::Refusal::NotAllowed) => 409,
        Err(state::Refusal::Forbidden(_)) => 403,
        Ok(rule) if !attempt.complete && state.lacks(rule) => 422,
        Ok(_) => 200,
    };
    assert_eq!(answer.status.as_u16(), expected, "from {:?}: {attempt:?} {}", state.status, answer.text);
    if expected == 409 {
        let allowed: Vec<&str> = state::allowed(state.status, *role).into_iter().map(Status::as_str).collect();
        assert_eq!(answer.json()["allowed"], json!(allowed));
    }
    if expected == 200 {
        let view = answer.json();
        assert_eq!(view["status"], attempt.to.as_str());
        state.arrive(attempt);
        state.check(&view);
    }
}

/// What the state needs, and nothing else: a move takes no other fields.
fn body(attempt: &Attempt, rule: Option<&state::Rule>) -> Value {
    let mut body = json!({ "to": attempt.to });
    for need in rule.filter(|_| attempt.complete).map_or(&[][..], |rule| rule.needs) {
        let (field, value) = match need {
            Need::CallbackAt => ("callback_at", "2026-06-02T10:00:00+03:00"),
            Need::Address => ("address", "Tverskaya 1"),
            Need::MeetingAt => ("meeting_at", "2026-06-03T10:00:00+03:00"),
            Need::ResumeAt => ("resume_at", "2026-06-04T10:00:00+03:00"),
            Need::ResultAndExpenses => {
                body["expenses"] = json!("0.01");
                ("result", "100.10")
            }
            Need::Reason => ("reason", "because"),
            Need::Master => continue,
        };
        body[field] = json!(value);
    }
    body
}

/// What the test knows about the request.
struct Model {
    status: Status,
    has_visit: bool,
    has_master: bool,
    moves: i64,
    version: i64,
}

impl Model {
    fn lacks(&self, rule: &state::Rule) -> bool {
        let visit_known = |need: &Need| matches!(need, Need::Address | Need::MeetingAt) && self.has_visit;
        rule.needs.iter().any(|need| *need != Need::Master && !visit_known(need))
    }

    fn arrive(&mut self, attempt: &Attempt) {
        self.status = attempt.to;
        self.has_visit |= attempt.to == Status::Waiting;
        self.has_master = match attempt.to {
            Status::Offered => true,
            Status::Waiting | Status::New | Status::Callback => false,
            _ => self.has_master,
        };
        self.moves += 1;
        self.version += 1;
    }

    /// What every state promises.
    fn check(&self, view: &Value) {
        assert_eq!(view["version"], self.version);
        assert_eq!(view["closed_at"].is_null(), !self.status.is_finished());
        assert_eq!(view["result"].is_null(), self.status != Status::Done);
        assert_eq!(view["master_id"].is_null(), !self.has_master);
        if self.status == Status::Done {
            // 100.10 − 0.01 = 100.09, and half of that is 50.045: kopecks are rounded away from zero.
            assert_eq!((&view["net"], &view["handover"]), (&json!("100.09"), &json!("50.05")));
        }
    }
}

#[test]
fn no_sequence_of_api_calls_reaches_a_forbidden_state() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(TestApp::start());
    let actors: Vec<(Role, Actor)> = runtime.block_on(async {
        let mut actors = Vec::new();
        for role in Role::ALL {
            actors.push((*role, app.actor(*role, &[MOSCOW]).await));
        }
        actors
    });
    let master_id = actors.iter().find(|(role, _)| *role == Role::Master).unwrap().1.id;
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&attempts(), |sequence| {
            runtime.block_on(play(&app, &actors, master_id, &sequence));
            Ok(())
        })
        .unwrap();

    // And what the database remembers of all of it stands in the table.
    let moves: Vec<(String, String)> = runtime.block_on(async {
        let sql = "SELECT DISTINCT from_status, to_status FROM request_events WHERE kind = 'transition'";
        sqlx::query_as(sql).fetch_all(&mut app.database.connect().await).await.unwrap()
    });
    assert!(moves.len() > 20, "the sequences reach only {} of {} moves", moves.len(), TABLE.len());
    for (from, to) in moves {
        assert!(TABLE.iter().any(|rule| rule.from.as_str() == from && rule.to.as_str() == to), "{from} → {to}");
    }
}

async fn play(app: &TestApp, actors: &[(Role, Actor)], master_id: i64, sequence: &[Attempt]) {
    let operator = &actors.iter().find(|(role, _)| *role == Role::Operator).unwrap().1;
    let id = operator.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    let mut model = Model { status: Status::New, has_visit: false, has_master: false, moves: 0, version: 1 };
    for (n, wild) in sequence.iter().enumerate() {
        // Every second attempt goes where the table points from here, or a walk would hardly leave `new`.
        let next = if n % 2 == 0 {
            wild.clone()
        } else {
            let ways: Vec<_> = TABLE.iter().filter(|rule| rule.from == model.status).collect();
            let rule = ways[(wild.to as usize + n) % ways.len()];
            let actor = actors.iter().position(|(role, _)| rule.roles.contains(role)).unwrap();
            Attempt { actor, to: rule.to, complete: true }
        };
        attempt(actors, master_id, id, &next, &mut model).await;
    }
    let admin = &actors.iter().find(|(role, _)| *role == Role::Admin).unwrap().1;
    let view = admin.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    assert_eq!(view["status"], model.status.as_str(), "refused attempts changed nothing");
    let history = admin.get(&format!("/api/v1/requests/{id}/history?limit=200")).await.expect(200);
    let moved = history["items"].as_array().unwrap().iter().filter(|event| event["kind"] == "transition").count();
    assert_eq!(i64::try_from(moved).unwrap(), model.moves, "every move, and nothing else, is history");
    let owed: Option<String> = sqlx::query_scalar("SELECT sum(amount)::text FROM transactions WHERE request_id = $1")
        .bind(id)
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    let expected = if model.status == Status::Done { "50.05" } else { "0.00" };
    assert_eq!(owed.as_deref().unwrap_or("0.00"), expected, "the ledger agrees with the state");
}
