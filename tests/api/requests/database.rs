//! What the database itself refuses, whoever asks: a bug in the program, or a hand-written UPDATE.

use serde_json::json;
use switchboard::auth::Role;

use crate::support::{MOSCOW, TestApp};

#[tokio::test(flavor = "multi_thread")]
async fn no_update_by_hand_makes_a_request_that_nobody_can_work_on() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    operator.create_request(MOSCOW, "+79161234567").await;
    let visit = "address = 'Arbat 1', meeting_at = now()";
    let with_master = format!("{visit}, master_id = {}", operator.id);
    let money = "result = 100, expenses = 40, net = 60, handover = 30, closed_at = now()";
    for (change, constraint) in [
        ("status = 'callback'".to_owned(), "requests_callback_has_time"),
        ("status = 'waiting', address = 'Arbat 1'".to_owned(), "requests_visit_has_place_and_time"),
        ("status = 'waiting', meeting_at = now()".to_owned(), "requests_visit_has_place_and_time"),
        (format!("status = 'offered', {visit}"), "requests_visit_has_master"),
        (format!("status = 'deferred', {with_master}"), "requests_deferred_has_time"),
        (format!("status = 'done', closed_at = now(), {with_master}"), "requests_done_has_money"),
        (
            format!("status = 'done', {with_master}, {money}, handover = NULL").replace("handover = 30, ", ""),
            "requests_done_has_money",
        ),
        (
            format!("status = 'done', {with_master}, {}", money.replace("closed_at = now()", "closed_at = NULL")),
            "requests_finished_has_time",
        ),
        (format!("status = 'done', {with_master}, {}", money.replace("net = 60", "net = 61")), "requests_check"),
        (
            format!(
                "status = 'done', {with_master}, {}",
                money.replace("expenses = 40, net = 60", "expenses = 140, net = -40")
            ),
            "requests_done_has_money",
        ),
        (
            format!(
                "status = 'done', {with_master}, {}",
                money.replace("expenses = 40, net = 60", "expenses = -1, net = 101")
            ),
            "requests_expenses_check",
        ),
        ("result = 100, expenses = 0, net = 100, handover = 50".to_owned(), "requests_done_has_money"),
        ("status = 'refused'".to_owned(), "requests_finished_has_time"),
        ("closed_at = now()".to_owned(), "requests_finished_has_time"),
        ("status = 'archived'".to_owned(), "requests_status_check"),
        ("source = 'rumour'".to_owned(), "requests_source_check"),
        ("version = 0".to_owned(), "requests_version_check"),
        ("address = ''".to_owned(), "requests_address_check"),
        ("master_id = 999999".to_owned(), "requests_master_id_fkey"),
        ("client_id = NULL".to_owned(), "null value"),
    ] {
        let refusal = app.database.refusal(&format!("UPDATE requests SET {change}")).await;
        assert!(refusal.contains(constraint), "{change}: {refusal}");
    }
    // The statements are not refused for another reason than the one named: as it should be, it works.
    app.database.execute(&format!("UPDATE requests SET status = 'done', {with_master}, {money}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_ledger_cannot_be_rewritten() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    master.move_to(id, json!({ "to": "done", "result": "1000.00" })).await.expect(200);
    let count = async |table: &str| app.database.count(&format!("SELECT count(*) FROM {table}")).await;
    for (table, rows, change) in [("request_events", 7, "reason = 'x'"), ("transactions", 1, "amount = 0")] {
        for statement in [
            format!("UPDATE {table} SET {change}"),
            format!("UPDATE {table} SET {change} WHERE id = (SELECT min(id) FROM {table})"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
            format!("MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE"),
        ] {
            let refusal = app.database.refusal(&statement).await;
            assert!(refusal.contains("append-only"), "{statement}: {refusal}");
        }
        assert_eq!(count(table).await, rows, "{table}");
    }
    // Nor by taking away what they belong to.
    let refusal = app.database.refusal(&format!("DELETE FROM requests WHERE id = {id}")).await;
    assert!(refusal.contains("fkey"), "{refusal}");
    let refusal = app.database.refusal("TRUNCATE requests CASCADE").await;
    assert!(refusal.contains("append-only"), "{refusal}");
    // An income is reversed once.
    let reversal = "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, reverses_id, at)
                    SELECT city_id, 3, request_id, master_id, -amount, automatic, id, now() FROM transactions WHERE reverses_id IS NULL";
    app.database.execute(reversal).await;
    assert_eq!(app.database.refusal(reversal).await, "transactions_reverses_id_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_history_cannot_be_written_does_not_happen() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let request = operator.create_request(MOSCOW, "+79161234567").await;
    let before = app.scrape().await;
    app.database
        .execute("ALTER TABLE request_events ADD CONSTRAINT broken CHECK (kind <> 'transition') NOT VALID")
        .await;
    let answer = operator.move_to(request["id"].as_i64().unwrap(), json!({ "to": "no_answer" })).await;
    let text = answer.text.clone();
    answer.problem(500, "internal");
    assert!(!text.contains("request_events") && !text.contains("broken"), "internals stay inside: {text}");
    let path = super::path(&request["id"]);
    assert_eq!(operator.get(&path).await.expect(200), request);
    let changes = app.scrape().await.changes_since(&before);
    assert!(!changes.keys().any(|series| series.starts_with("switchboard_")), "nothing is counted: {changes:?}");
    assert_eq!(changes["db_client_errors_total{sqlstate_class=\"23\"}"], 1.0);
}
