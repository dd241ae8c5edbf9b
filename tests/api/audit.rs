//! Who did what: every change of people, rights, money and settings leaves a row, in its transaction, that
//! nobody can change.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use switchboard::{audit::AuditAction, auth::Role};

use crate::{
    authorisation::{
        Operation, guarded,
        world::{Place, Question, World},
    },
    support::{KAZAN, MOSCOW, PASSPORT_KEY, TestApp},
};

/// Changes that have a history of their own, and where it is.
const TOLD_ELSEWHERE: &[(&str, &str)] = &[
    ("POST /api/v1/requests", "request_events"),
    ("PATCH /api/v1/requests/{id}", "request_events"),
    ("POST /api/v1/requests/{id}/assign", "request_events"),
    ("POST /api/v1/requests/{id}/transitions", "request_events, transactions"),
    ("POST /api/v1/requests/{id}/comments", "request_comments"),
    ("POST /api/v1/requests/{id}/files", "request_events, files"),
    ("POST /api/v1/transactions/{id}/files", "files"),
    ("POST /api/v1/calls/{id}/link", "request_events"),
];

/// What is done by none of the operations below.
const OTHER_ACTIONS: &[(AuditAction, &str)] = &[
    (AuditAction::PasswordChanged, "auth, which ends sessions"),
    (AuditAction::SignedOutEverywhere, "auth, which ends sessions"),
    (AuditAction::RefreshTokenReused, "auth, which ends sessions"),
    (AuditAction::PassportRead, "below"),
    (AuditAction::RequestsExported, "below"),
    (AuditAction::Imported, "import"),
    (AuditAction::DatabaseRestored, "backup"),
];

fn name(operation: &Operation) -> String {
    format!("{} {}", operation.method, operation.path)
}

fn is_told_elsewhere(operation: &Operation) -> bool {
    TOLD_ELSEWHERE.iter().any(|(known, _)| *known == name(operation))
}

/// Everything that changes something, but for one's own sessions, each with what it takes to succeed.
async fn changes(world: &World) -> Vec<(Operation, Question)> {
    let mut changes = Vec::new();
    for operation in guarded() {
        if operation.method != Method::GET && !operation.path.starts_with("/api/v1/auth/") {
            let question = world.question(&operation, Role::Admin, &world.actors[0].1, Place::Theirs).await;
            changes.push((operation, question));
        }
    }
    changes
}

/// The rows of the log, each as an object.
async fn log(app: &TestApp, tail: &str) -> Vec<Value> {
    let sql = format!("SELECT to_jsonb(a) FROM audit_log a {tail} ORDER BY id");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut app.database.connect().await).await.unwrap()
}

/// Everything in the database.
async fn content(app: &TestApp) -> Vec<String> {
    let mut connection = app.database.connect().await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let each = tables.iter().map(|table| {
        format!("SELECT concat('{table} ', md5(string_agg(t::text, '|' ORDER BY t::text))) AS digest FROM {table} t")
    });
    let sql = each.collect::<Vec<_>>().join(" UNION ALL ") + " ORDER BY digest";
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_leaves_one_row_or_has_its_own_history() {
    let world = World::new().await;
    let (app, admin) = (&world.app, &world.actors[0].1);
    let mut seen = BTreeSet::new();
    for (operation, question) in changes(&world).await {
        let last = app.database.count("SELECT COALESCE(max(id), 0) FROM audit_log").await;
        let answer = world.ask(&operation, admin, question).await;
        assert!(answer.status.is_success(), "{operation:?}: {}", answer.text);
        let rows = log(app, &format!("WHERE id > {last}")).await;
        if is_told_elsewhere(&operation) {
            assert!(rows.is_empty(), "{operation:?}: {rows:?}");
            continue;
        }
        let [row] = rows.as_slice() else { panic!("{operation:?}: {rows:?}") };
        assert_eq!(row["actor_id"], admin.id, "{operation:?}");
        assert_eq!((&row["via"], &row["address"]), (&json!("api"), &json!(admin.address)), "{operation:?}");
        assert_eq!(row["at"], "2026-06-01T07:00:00+00:00", "{operation:?}");
        let subject = row["subject"].as_str().unwrap();
        let named = format!("SELECT count(*) FROM {subject} WHERE id = {}", row["subject_id"]);
        assert_eq!(app.database.count(&named).await, 1, "{operation:?}: {row}");
        seen.insert(row["action"].as_str().unwrap().to_owned());
    }
    seen.extend(OTHER_ACTIONS.iter().map(|(action, _)| action.as_str().to_owned()));
    let all = AuditAction::ALL.iter().map(|action| action.as_str().to_owned()).collect();
    assert_eq!(seen, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_not_done_and_what_is_not_done_is_not_told() {
    let world = World::new().await;
    let (app, admin) = (&world.app, &world.actors[0].1);
    let changes = changes(&world).await;
    app.database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk full'; END $$;
             CREATE CONSTRAINT TRIGGER obstacle AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let before = content(app).await;
    let mut tried = 0;
    for (operation, question) in changes.into_iter().filter(|(operation, _)| !is_told_elsewhere(operation)) {
        world.ask(&operation, admin, question).await.problem(500, "internal");
        tried += 1;
    }
    assert!(tried >= 20, "{tried}");
    admin.get("/api/v1/requests.csv").await.problem(500, "internal");
    assert_eq!(content(app).await, before);

    // The other way round: at its end, the change itself fails.
    app.database
        .execute(
            "DROP TRIGGER obstacle ON audit_log;
             CREATE CONSTRAINT TRIGGER obstacle AFTER UPDATE ON cities DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    admin.patch("/api/v1/dictionaries/cities/1", "*", json!({ "active": false })).await.problem(500, "internal");
    assert_eq!(content(app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_rights_and_figures_and_nothing_personal() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let newcomer = json!({
        "login": "planted-login", "name": "Planted Name", "phone": "+79165550101", "email": "planted@example.com",
        "password": "planted password", "cities": [MOSCOW], "share": "0.5",
        "passport": { "series": "4509", "number": "555777", "issued_by": "Planted", "issued_on": "2015-03-20" }
    });
    let master = admin.post("/api/v1/users/masters", newcomer).await.expect(201)["id"].as_i64().unwrap();
    let path = format!("/api/v1/users/masters/{master}");
    let changes = json!({
        "name": "Planted Other", "phone": "+79165550102", "email": null, "password": "planted once more",
        "cities": [KAZAN, MOSCOW], "share": "0.6", "status": "disabled", "passport": null
    });
    admin.patch(&path, "*", changes).await.expect(200);
    // What is as it was is no change.
    admin.patch(&path, "*", json!({ "share": "0.60", "status": "disabled" })).await.expect(200);
    admin.delete(&path, "*").await.expect(204);
    let employee = json!({
        "login": "planted-employee", "name": "Planted", "password": "planted password", "cities": [MOSCOW], "role": "operator"
    });
    let employee = admin.post("/api/v1/users/employees", employee).await.expect(201)["id"].as_i64().unwrap();
    let promotion = json!({ "role": "manager" });
    admin.patch(&format!("/api/v1/users/employees/{employee}"), "*", promotion).await.expect(200);
    let expense = json!({ "type": "expense", "city": MOSCOW, "amount": "10.50", "note": "planted note" });
    let booked = admin.post("/api/v1/transactions", expense).await.expect(201)["id"].as_i64().unwrap();
    let reversal = format!("/api/v1/transactions/{booked}/reverse");
    let reversal = admin.post(&reversal, json!({ "reason": "planted" })).await.expect(201)["id"].as_i64().unwrap();
    admin.patch("/api/v1/sla/policies/1", "*", json!({ "target_s": 1200 })).await.expect(200);
    let rename = json!({ "name_en": "Planted City", "timezone": "Asia/Omsk", "active": false });
    admin.patch("/api/v1/dictionaries/cities/1", "*", rename).await.expect(200);

    let rows = log(&app, "").await;
    let told: Vec<Value> =
        rows.iter().map(|row| json!([row["action"], row["subject"], row["subject_id"], row["detail"]])).collect();
    let expected = json!([
        ["user_created", "users", master, { "role": "master", "cities": [MOSCOW], "share": "0.5" }],
        ["user_changed", "users", master, {
            "fields": ["status", "cities", "share", "password", "passport", "name", "phone", "email"],
            "status": ["active", "disabled"], "cities": [[MOSCOW], [KAZAN, MOSCOW]], "share": ["0.5", "0.6"]
        }],
        ["user_deleted", "users", master, { "role": "master", "cities": [KAZAN, MOSCOW] }],
        ["user_created", "users", employee, { "role": "operator", "cities": [MOSCOW], "share": null }],
        ["user_changed", "users", employee, { "fields": ["role"], "role": ["operator", "manager"] }],
        ["transaction_booked", "transactions", booked, { "type": "expense", "amount": "-10.50", "city": MOSCOW }],
        ["transaction_reversed", "transactions", reversal, {
            "type": "reversal", "amount": "10.50", "city": MOSCOW, "reverses_id": booked
        }],
        ["sla_policy_changed", "sla_policies", 1, {
            "type": "first_time", "policy": "first_response", "fields": ["target_s"], "target_s": [900, 1200]
        }],
        ["dictionary_entry_changed", "cities", 1, {
            "fields": ["name_en", "active", "timezone"], "active": [true, false], "timezone": ["Europe/Moscow", "Asia/Omsk"]
        }],
    ]);
    assert_eq!(json!(told), expected);
    let text = json!(rows).to_string().to_lowercase();
    for personal in ["planted", "555", "4509", "example.com"] {
        assert!(!text.contains(personal), "{personal}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_personal_data_out_leaves_a_row_too() {
    let app = TestApp::start().await;
    assert_eq!(app.app.config.privacy.passport_key.expose(), PASSPORT_KEY);
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let path = format!("/api/v1/users/masters/{}", master.id);
    let passport = json!({ "series": "4509", "number": "555777", "issued_by": "UVD", "issued_on": "2015-03-20" });
    manager.get(&path).await.expect(200);
    manager.patch(&path, "*", json!({ "passport": passport })).await.expect(200);
    let last = app.database.count("SELECT COALESCE(max(id), 0) FROM audit_log").await;
    // Who does not get to see it has not read it.
    master.get(&path).await.expect(200);
    manager.get("/api/v1/users/masters").await.expect(200);
    assert_eq!(manager.get(&path).await.expect(200)["passport"], passport);
    let filter = "city=moscow&created_from=2026-05-01T00:00:00Z&phone=79165550101&text=planted";
    assert_eq!(manager.get(&format!("/api/v1/requests.csv?{filter}")).await.status, 200);
    manager.get("/api/v1/requests.csv?city=%00").await.problem(422, "invalid");
    let told: Vec<Value> = log(&app, &format!("WHERE id > {last}")).await;
    let told: Vec<Value> =
        told.iter().map(|row| json!([row["action"], row["actor_id"], row["subject_id"], row["detail"]])).collect();
    let expected = json!([
        ["passport_read", manager.id, master.id, {}],
        ["requests_exported", manager.id, null, {
            "city": MOSCOW, "created_from": "2026-05-01T00:00:00+00:00", "created_to": null
        }],
    ]);
    assert_eq!(json!(told), expected);
    // No trace, no passport.
    app.database
        .execute("ALTER TABLE audit_log ADD CONSTRAINT obstacle CHECK (action <> 'passport_read') NOT VALID")
        .await;
    let answer = manager.get(&path).await;
    assert!(answer.status.is_server_error() && !answer.text.contains("555777"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_lets_nobody_rewrite_it() {
    let app = TestApp::start().await;
    let row = |age: &str| {
        format!(
            "INSERT INTO audit_log (at, via, action, subject) VALUES (now() - interval '{age}', 'cli', 'imported', 'users')"
        )
    };
    for age in ["0 s", "1 year - 1 minute", "1 year 1 minute"] {
        app.database.execute(&row(age)).await;
    }
    for statement in [
        "UPDATE audit_log SET at = now()",
        "UPDATE audit_log SET detail = '{}' WHERE at < now() - interval '1 year'",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE at < now() - interval '364 days'",
        "TRUNCATE audit_log",
        "TRUNCATE users CASCADE",
        "MERGE INTO audit_log USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO audit_log (id, at, via, action, subject) OVERRIDING SYSTEM VALUE
         SELECT id, at, via, 'other', subject FROM audit_log
         ON CONFLICT (id) DO UPDATE SET action = EXCLUDED.action",
    ] {
        let refusal = app.database.refusal(statement).await;
        assert!(refusal.contains("is append-only"), "{statement}: {refusal}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM audit_log").await, 3);
    app.database.execute("DELETE FROM audit_log WHERE at < now() - interval '1 year'").await;
    assert_eq!(app.database.count("SELECT count(*) FROM audit_log").await, 2);
}
