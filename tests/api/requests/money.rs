//! What "done" makes in money, and what reopening takes back.

use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{path, pointers};
use crate::support::{MOSCOW, TestApp, actor::Actor};

const REVENUE: &str = "switchboard_revenue_rubles_total{city=\"moscow\"}";
const REFUNDS: &str = "switchboard_refunds_rubles_total{city=\"moscow\"}";

/// A service request that its master works on.
async fn in_progress(manager: &Actor, master: &Actor, phone: &str) -> i64 {
    let id = manager.waiting_request(MOSCOW, phone).await;
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    id
}

/// The ledger: type, amount, whose, by whom, and what it reverses (as a position).
async fn ledger(app: &TestApp) -> Vec<(String, String, i64, i64, bool)> {
    sqlx::query_as(
        "SELECT tt.code, t.amount::text, t.master_id, t.actor_id, t.reverses_id IS NOT NULL
           FROM transactions t JOIN transaction_types tt ON tt.id = t.type_id ORDER BY t.id",
    )
    .fetch_all(&mut app.database.connect().await)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn done_computes_the_net_and_what_is_handed_over() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    app.database.execute(&format!("UPDATE master_profiles SET share = 0.3333 WHERE user_id = {}", master.id)).await;
    let before = app.scrape().await;
    let mut total = 0.0;
    for (n, (result, expenses, net, handover)) in [
        ("5000.00", Some("1000.00"), "4000.00", "1333.20"),
        ("5000", None, "5000.00", "1666.50"),
        ("0.1", Some("0"), "0.10", "0.03"),
        ("0.15", Some("0.0"), "0.15", "0.05"),
        ("100.05", Some("0.05"), "100.00", "33.33"),
        ("0", None, "0.00", "0.00"),
        ("9999999999", Some("9999999999.0000"), "0.00", "0.00"),
        ("9999999999.00", Some("0.01"), "9999999998.99", "3332999999.66"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = in_progress(&manager, &master, &format!("+791612345{n:02}")).await;
        let mut body = json!({ "to": "done", "result": result });
        if let Some(expenses) = expenses {
            body["expenses"] = json!(expenses);
        }
        let done = master.move_to(id, body).await.expect(200);
        assert_eq!((&done["net"], &done["handover"]), (&json!(net), &json!(handover)), "{result} - {expenses:?}");
        assert_eq!(done["closed_at"], "2026-06-01T07:00:00Z");
        assert_eq!(master.get(&path(&json!(id))).await.expect(200), done, "the answer is what is stored");
        total += handover.parse::<f64>().unwrap();
    }
    let ledger = ledger(&app).await;
    assert_eq!(ledger.len(), 8, "one entry a request");
    assert!(ledger.iter().all(|(kind, _, of, by, reverses)| {
        kind == "income" && (*of, *by, *reverses) == (master.id, master.id, false)
    }));
    assert_eq!(ledger[0].1, "1333.20");
    let revenue = app.scrape().await.value(REVENUE) - before.value(REVENUE);
    assert!((revenue - total).abs() < 0.01, "{revenue} is not {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_cannot_be_is_refused_and_books_nothing() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = in_progress(&manager, &master, "+79161234567").await;
    for (result, expenses, expected) in [
        (Value::Null, Value::Null, "/result"),
        (json!("-0.01"), Value::Null, "/result"),
        (json!("1.001"), Value::Null, "/result"),
        (json!("9999999999.01"), Value::Null, "/result"),
        (json!("10000000000"), Value::Null, "/result"),
        (json!("1e400"), Value::Null, "/result"),
        (json!("NaN"), Value::Null, "/result"),
        (json!("Infinity"), Value::Null, "/result"),
        (json!("five thousand"), Value::Null, "/result"),
        (json!(""), Value::Null, "/result"),
        (json!(["1"]), Value::Null, "/result"),
        (json!("100.00"), json!("100.01"), "/expenses"),
        (json!("100.00"), json!("-1"), "/expenses"),
        (json!("100.00"), json!("0.005"), "/expenses"),
    ] {
        let body = json!({ "to": "done", "result": result, "expenses": expenses });
        let problem = master.move_to(id, body.clone()).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [expected], "{body}");
    }
    assert!(ledger(&app).await.is_empty());
    let request = master.get(&path(&json!(id))).await.expect(200);
    assert_eq!((&request["status"], &request["result"]), (&json!("in_progress"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_reverses_the_income_and_the_next_end_books_it_anew() {
    let app = TestApp::start().await;
    let (director, manager, master) = (
        app.actor(Role::Director, &[MOSCOW]).await,
        app.actor(Role::Manager, &[MOSCOW]).await,
        app.actor(Role::Master, &[MOSCOW]).await,
    );
    let id = in_progress(&manager, &master, "+79161234567").await;
    let before = app.scrape().await;
    let done = |result: &str| json!({ "to": "done", "result": result });
    let again = json!({ "to": "in_progress", "reason": "it drips again" });
    master.move_to(id, done("1000.00")).await.expect(200);
    manager.move_to(id, again.clone()).await.problem(403, "forbidden");
    let reasonless = director.move_to(id, json!({ "to": "in_progress" })).await.problem(422, "invalid");
    assert_eq!(pointers(&reasonless), ["/reason"]);
    let reopened = director.move_to(id, again.clone()).await.expect(200);
    for field in ["result", "expenses", "net", "handover", "closed_at"] {
        assert_eq!(reopened[field], Value::Null, "{field}");
    }
    assert_eq!(reopened["master_id"], master.id, "it is still theirs");
    assert_eq!(director.get(&path(&json!(id))).await.expect(200), reopened);
    manager.move_to(id, done("3000.00")).await.expect(200);
    director.move_to(id, again).await.expect(200);
    master.move_to(id, json!({ "to": "refused" })).await.expect(200);
    master.move_to(id, done("1.00")).await.problem(409, "transition_not_allowed");

    let entry = |kind: &str, amount: &str, by: &Actor| {
        (kind.to_owned(), amount.to_owned(), master.id, by.id, kind == "reversal")
    };
    let expected = [
        entry("income", "500.00", &master),
        entry("reversal", "-500.00", &director),
        entry("income", "1500.00", &manager),
        entry("reversal", "-1500.00", &director),
    ];
    assert_eq!(ledger(&app).await, expected);
    let pairs =
        "SELECT count(*) FROM transactions r JOIN transactions i ON i.id = r.reverses_id WHERE r.amount = -i.amount";
    assert_eq!(app.database.count(pairs).await, 2, "each reversal names its own income");
    let changes = app.scrape().await.changes_since(&before);
    assert_eq!((changes[REVENUE], changes[REFUNDS]), (2000.0, 2000.0));
    assert_eq!(changes["switchboard_service_request_completion_seconds_count{type=\"first_time\"}"], 2.0);
    let reopened = "switchboard_service_request_transitions_total{from=\"done\",to=\"in_progress\"}";
    assert_eq!(changes[reopened], 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_income_stands_is_not_deleted() {
    let app = TestApp::start().await;
    let (admin, manager) = (app.actor(Role::Admin, &[]).await, app.actor(Role::Manager, &[MOSCOW]).await);
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let id = in_progress(&manager, &master, "+79161234567").await;
    master.move_to(id, json!({ "to": "done", "result": "1000.00" })).await.expect(200);
    let path = path(&json!(id));
    let problem = admin.delete(&path, "*").await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("reopen"), "{problem}");
    assert_eq!(admin.get(&path).await.expect(200)["status"], "done");
    admin.move_to(id, json!({ "to": "in_progress", "reason": "a test" })).await.expect(200);
    admin.delete(&path, "*").await.expect(204);
    let balance = admin.get("/api/v1/transactions/balance").await.expect(200);
    assert_eq!(balance["balance"], "0.00", "nothing is left that nobody could take back");
}

/// Reopening is the one way to take an income back, so it must not depend on who is still there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_master_did_who_has_gone_is_corrected_or_given_to_another() {
    let app = TestApp::start().await;
    let (director, manager) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Manager, &[MOSCOW]).await);
    let (gone, other) = (app.actor(Role::Master, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let mut ids = Vec::new();
    for phone in ["+79161234561", "+79161234562"] {
        let id = in_progress(&manager, &gone, phone).await;
        gone.move_to(id, json!({ "to": "done", "result": "1000.00" })).await.expect(200);
        ids.push(id);
    }
    manager.delete(&format!("/api/v1/users/masters/{}", gone.id), "*").await.expect(204);
    for id in &ids {
        let again = json!({ "to": "in_progress", "reason": "the sum was another" });
        director.move_to(*id, again).await.expect(200);
    }
    // With the share of whoever did the work.
    let corrected = director.move_to(ids[0], json!({ "to": "done", "result": "3000.00" })).await.expect(200);
    assert_eq!((&corrected["handover"], &corrected["master_id"]), (&json!("1500.00"), &json!(gone.id)));
    for body in
        [json!({ "to": "refused" }), json!({ "to": "new", "reason": "for another" }), json!({ "to": "waiting" })]
    {
        manager.move_to(ids[1], body).await.expect(200);
    }
    manager.assign(ids[1], gone.id).await.problem(422, "invalid");
    assert_eq!(manager.assign(ids[1], other.id).await.expect(200)["master_id"], other.id);
    let balance = director.get("/api/v1/transactions/balance?by=master").await.expect(200);
    assert_eq!(balance["balance"], "1500.00");
}

/// While replicas are replaced, those of the version before write to the ledger too: without `automatic`,
/// which they do not know.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_before_books_is_taken_back_by_reopening_and_the_other_way_round() {
    let app = TestApp::start().await;
    let (director, manager) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Manager, &[MOSCOW]).await);
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let again = json!({ "to": "in_progress", "reason": "it drips" });
    let id = in_progress(&manager, &master, "+79161234567").await;
    let close = format!(
        "UPDATE requests SET status = 'done', result = 10, expenses = 0, net = 10, handover = 5, closed_at = now() WHERE id = {id};
         INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, at)
         SELECT city_id, 1, id, master_id, handover, now() FROM requests WHERE id = {id}"
    );
    app.database.execute(&close).await;
    director.move_to(id, again).await.expect(200);

    master.move_to(id, json!({ "to": "done", "result": "20.00" })).await.expect(200);
    let reopen = "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, reverses_id, at)
                  SELECT city_id, 3, request_id, master_id, -amount, id, now() FROM transactions WHERE amount = 10";
    app.database.execute(reopen).await;
    let balance = director.get("/api/v1/transactions/balance").await.expect(200);
    assert_eq!((&balance["balance"], &balance["rows"][0]["entries"]), (&json!("0.00"), &json!(4)));
}
