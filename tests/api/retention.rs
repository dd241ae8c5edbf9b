//! What is removed because of its age, and what is not.

use chrono::TimeDelta;
use serde_json::{Value, json};
use switchboard::{auth::Role, db::DbError, keeping::retention};

use crate::support::{MOSCOW, MOSCOW_LINE, TestApp, config, telephony::Call};

async fn sweep(app: &TestApp) -> Result<(), DbError> {
    retention::sweep(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await
}

/// Everything in these tables, as one text.
async fn content(app: &TestApp, tables: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for table in tables {
        let sql = format!("SELECT COALESCE(string_agg(t::text, E'\\n' ORDER BY id::text), '') FROM {table} t");
        all.push(
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut app.database.connect().await).await.unwrap(),
        );
    }
    all
}

const TOUCHED: [&str; 7] =
    ["requests", "request_comments", "request_events", "clients", "calls", "webhook_events", "sessions"];

/// A request that is done, with everything that people write down about a client.
async fn done_request(app: &TestApp, phone: &str) -> i64 {
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    let id = manager.waiting_request(MOSCOW, phone).await;
    let path = format!("/api/v1/requests/{id}");
    let told = json!({ "client_name": "Olga Petrova", "description": "the code is 4711", "direction": "locks" });
    manager.patch(&path, "*", told).await.expect(200);
    manager.post(&format!("{path}/comments"), json!({ "body": "Olga's dog bites" })).await.expect(201);
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    let done = json!({ "to": "done", "result": "3000.00", "expenses": "500.00", "reason": "Olga paid in cash" });
    manager.move_to(id, done).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_goes_and_figures_stay() {
    let app = TestApp::start().await;
    let old = done_request(&app, "+79161234501").await;
    let regular = done_request(&app, "+79161234502").await;
    // A call, of the same client as the first, that became a request and was refused.
    app.stranger().deliver_all(&Call::new("old", "79161234501", MOSCOW_LINE).answered()).await;
    app.drain_inbox().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let called = admin.all("/api/v1/requests?status=new").await[0]["id"].as_i64().unwrap();
    admin.move_to(called, json!({ "to": "refused" })).await.expect(200);
    let deleted = admin.waiting_request(MOSCOW, "+79161234503").await;
    admin.delete(&format!("/api/v1/requests/{deleted}"), "*").await.expect(204);
    let open = admin.waiting_request(MOSCOW, "+79161234504").await;

    app.clock.advance(TimeDelta::days(1825) - TimeDelta::seconds(1));
    let before = content(&app, &["requests", "request_comments", "request_events", "clients", "calls"]).await;
    sweep(&app).await.unwrap();
    let after = content(&app, &["requests", "request_comments", "request_events", "clients", "calls"]).await;
    assert_eq!(after, before, "a second too early");
    app.clock.advance(TimeDelta::seconds(2));
    let admin = app.actor(Role::Admin, &[]).await;
    let fresh = admin.waiting_request(MOSCOW, "+79161234502").await;
    let told = json!({ "client_name": "Anna" });
    admin.patch(&format!("/api/v1/requests/{fresh}"), "*", told).await.expect(200);
    let figures = "SELECT string_agg(concat_ws('|', id, status, type_id, direction_id, city_id, master_id, result, expenses, net, handover,
                      created_at, meeting_at, first_response_at, assigned_at, closed_at, updated_at), E'\\n' ORDER BY id) FROM requests";
    let figures =
        async || -> String { sqlx::query_scalar(figures).fetch_one(&mut app.database.connect().await).await.unwrap() };
    let (before, ledger) = (figures().await, content(&app, &["transactions"]).await);
    sweep(&app).await.unwrap();
    assert_eq!(figures().await, before);
    assert_eq!(content(&app, &["transactions"]).await, ledger);

    let gone = "SELECT array_agg(id ORDER BY id)::text FROM requests WHERE anonymised_at IS NOT NULL";
    let gone: String = sqlx::query_scalar(gone).fetch_one(&mut app.database.connect().await).await.unwrap();
    let mut expected = [old, regular, called, deleted];
    expected.sort_unstable();
    assert_eq!(gone, format!("{{{}}}", expected.map(|id| id.to_string()).join(",")));
    let everything =
        content(&app, &["requests", "request_comments", "request_events", "clients", "calls"]).await.join("\n");
    // The edit of the fresh one quotes the name that it took over.
    let everything = everything.replace(r#"[""Olga Petrova"", ""Anna""]"#, "");
    for told in ["Olga", "4711", "dog", "79161234501", "79161234503"] {
        assert!(!everything.contains(told), "{told}: {everything}");
    }
    // Of the client who called again, and of the one whose request is open, the number is needed.
    for (id, phone) in [(fresh, "+79161234502"), (regular, "+79161234502"), (open, "+79161234504")] {
        assert_eq!(admin.get(&format!("/api/v1/requests/{id}")).await.expect(200)["client_phone"], phone);
    }
    assert_eq!(admin.get(&format!("/api/v1/requests/{open}")).await.expect(200)["address"], "Tverskaya 1");

    let path = format!("/api/v1/requests/{old}");
    let view = admin.get(&path).await.expect(200);
    for (field, value) in [
        ("client_name", Value::Null),
        ("address", Value::Null),
        ("description", Value::Null),
        ("status", json!("done")),
        ("direction", json!("locks")),
        ("result", json!("3000.00")),
        ("handover", json!("1250.00")),
    ] {
        assert_eq!(view[field], value, "{field}");
    }
    assert!(view["client_phone"].as_str().unwrap().starts_with("anonymised-"), "{view}");
    let history = admin.all(&format!("{path}/history")).await;
    assert_eq!(history.len(), 9, "{history:#?}");
    let last = history.last().unwrap();
    assert_eq!(last["reason"], "[removed]");
    assert_eq!(last["diff"]["result"], json!([null, "3000.00"]));
    assert!(
        history
            .iter()
            .any(|entry| entry["kind"] == "edited" && entry["diff"] == json!({ "direction": [null, "locks"] })),
        "{history:#?}"
    );
    let reopened = admin.move_to(old, json!({ "to": "in_progress", "reason": "again" })).await;
    assert!(reopened.problem(409, "conflict")["detail"].as_str().unwrap().contains("personal data"));

    let scrape = app.scrape().await;
    for (table, rows) in [("requests", 4.0), ("request_comments", 2.0), ("clients", 2.0), ("calls", 1.0)] {
        assert_eq!(scrape.value(&format!("switchboard_retention_rows_total{{table=\"{table}\"}}")), rows, "{table}");
    }
    let swept = content(&app, &TOUCHED).await;
    sweep(&app).await.unwrap();
    assert_eq!(content(&app, &TOUCHED).await, swept, "again changes nothing");
    // The number is new to us now.
    admin.create_request(MOSCOW, "+79161234501").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_can_lose_personal_data_and_nothing_else() {
    let app = TestApp::start().await;
    let (old, other) = (done_request(&app, "+79161234501").await, done_request(&app, "+79161234502").await);
    let anonymise = format!(
        "UPDATE requests SET client_name = NULL, address = NULL, description = NULL, anonymised_at = now() WHERE id = {old}"
    );
    app.database.execute(&anonymise).await;
    let on = "SET switchboard.anonymising = 'on'";
    let cleared =
        "diff = request_diff_without_person(diff), reason = CASE WHEN reason IS NULL THEN NULL ELSE '[removed]' END";
    for statements in [
        format!("UPDATE request_events SET {cleared} WHERE request_id = {old}"),
        format!("{on}; UPDATE request_events SET {cleared} WHERE request_id = {other}"),
        format!("{on}; UPDATE request_events SET diff = '{{}}' WHERE request_id = {old}"),
        format!("{on}; UPDATE request_events SET {cleared}, at = now() WHERE request_id = {old}"),
        format!(
            "{on}; UPDATE request_events SET {cleared}, to_status = 'new' WHERE request_id = {old} AND to_status = 'done'"
        ),
        format!(
            "{on}; UPDATE request_events SET diff = request_diff_without_person(diff), reason = 'nothing' WHERE request_id = {old}"
        ),
        format!("{on}; DELETE FROM request_events WHERE request_id = {old}"),
        format!("{on}; UPDATE transactions SET amount = 0"),
    ] {
        let refusal = app.database.refusal(&statements).await;
        assert!(refusal.contains("is append-only"), "{statements}: {refusal}");
    }
    app.database.execute(&format!("{on}; UPDATE request_events SET {cleared} WHERE request_id = {old}")).await;
    for (wrong, constraint) in [
        (format!("UPDATE requests SET address = 'Tverskaya 1' WHERE id = {old}"), "requests_anonymised_is_nameless"),
        (format!("UPDATE requests SET address = NULL WHERE id = {other}"), "requests_visit_has_place_and_time"),
        (
            "UPDATE clients SET phone_e164 = 'anonymised-0', anonymised_at = now()".to_owned(),
            "clients_phone_e164_check",
        ),
        ("UPDATE clients SET phone_e164 = 'anonymised-' || id".to_owned(), "clients_phone_e164_check"),
        ("UPDATE clients SET anonymised_at = now()".to_owned(), "clients_phone_e164_check"),
    ] {
        assert_eq!(app.database.refusal(&wrong).await, constraint, "{wrong}");
    }
}

/// Seven old requests of as many clients.
async fn seven_old_requests(app: &TestApp) {
    let sql = "WITH client AS (
                   INSERT INTO clients (phone_e164, created_at) SELECT '+7916000000' || n, '2015-01-01' FROM generate_series(1, 7) n RETURNING id
               )
               INSERT INTO requests (client_id, city_id, type_id, source, status, client_name, created_at, updated_at, closed_at)
               SELECT client.id, (SELECT min(id) FROM cities), (SELECT min(id) FROM request_types), 'manual', 'refused', 'Olga',
                      '2015-01-01', '2015-01-02', '2015-01-02' FROM client";
    app.database.execute(sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_a_transaction_and_a_failure_costs_no_more() {
    let mut config = config();
    config.retention.batch_rows = 2;
    let app = TestApp::start_with(config).await;
    seven_old_requests(&app).await;
    let fifth = app.database.count("SELECT id FROM requests ORDER BY id OFFSET 4 LIMIT 1").await;
    let obstacle = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk full'; END $$;
         CREATE TRIGGER obstacle BEFORE UPDATE ON requests FOR EACH ROW WHEN (OLD.id = {fifth}) EXECUTE FUNCTION refuse()"
    );
    app.database.execute(&obstacle).await;
    let anonymised = "SELECT count(*) FROM requests WHERE anonymised_at IS NOT NULL";
    // On one connection: the one that failed must be usable, and have nothing open.
    let mut db = app.app.db.connect_alone().await.unwrap();
    retention::sweep(&app.app, &mut db).await.unwrap_err();
    assert_eq!(app.database.count(anonymised).await, 4);
    assert_eq!(app.database.count("SELECT count(*) FROM clients WHERE anonymised_at IS NOT NULL").await, 4);
    assert_eq!(app.scrape().await.value("switchboard_retention_rows_total{table=\"requests\"}"), 4.0);

    app.database.execute("DROP TRIGGER obstacle ON requests").await;
    retention::sweep(&app.app, &mut db).await.unwrap();
    assert_eq!(app.database.count(anonymised).await, 7);
    let largest = "SELECT max(count) FROM (SELECT count(*) FROM requests GROUP BY xmin::text) AS batch";
    assert_eq!(app.database.count(largest).await, 2);
    assert_eq!(app.database.count("SELECT count(DISTINCT xmin::text) FROM requests").await, 4);
    assert_eq!(app.scrape().await.value("switchboard_retention_rows_total{table=\"requests\"}"), 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_somebody_holds_waits_for_the_next_round() {
    let mut config = config();
    config.retention.batch_rows = 7;
    let app = TestApp::start_with(config).await;
    seven_old_requests(&app).await;
    let mut holder = app.database.connect().await;
    let mut held = sqlx::Connection::begin(&mut holder).await.unwrap();
    sqlx::Executor::execute(&mut *held, "SELECT 1 FROM clients WHERE phone_e164 = '+79160000003' FOR UPDATE")
        .await
        .unwrap();
    sweep(&app).await.unwrap();
    let left = "SELECT count(*) FROM requests WHERE anonymised_at IS NULL";
    assert_eq!(app.database.count(left).await, 1);
    held.rollback().await.unwrap();
    sweep(&app).await.unwrap();
    assert_eq!(app.database.count(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_sessions_go_after_their_days_and_zero_is_for_ever() {
    let mut config = config();
    config.retention.personal_data_days = 0;
    let app = TestApp::start_with(config).await;
    seven_old_requests(&app).await;
    app.actor(Role::Operator, &[MOSCOW]).await;
    let events = "INSERT INTO webhook_events (provider, kind, event_key, payload, status, next_attempt_at, received_at)
                  SELECT 'mango', 'call', 'k' || age || status, '{}', status, now(), '2026-06-01T07:00:00Z'::timestamptz - age * interval '1 day'
                    FROM unnest(ARRAY[0, 89, 91]) age, unnest(ARRAY['pending', 'processed', 'ignored', 'failed']) status";
    app.database.execute(events).await;
    sweep(&app).await.unwrap();
    let left = "SELECT count(*) FROM webhook_events";
    assert_eq!(app.database.count(left).await, 9);
    assert_eq!(app.database.count(&format!("{left} WHERE event_key LIKE 'k91%' AND status = 'pending'")).await, 1);
    assert_eq!(app.database.count("SELECT count(*) FROM sessions").await, 1);
    // A session that nobody refreshes ends after seven days; thirty days later it goes, and its tokens.
    app.clock.advance(TimeDelta::days(7) + TimeDelta::days(30));
    sweep(&app).await.unwrap();
    assert_eq!(app.database.count("SELECT count(*) FROM sessions").await, 1);
    app.clock.advance(TimeDelta::seconds(1));
    sweep(&app).await.unwrap();
    assert_eq!(app.database.count("SELECT count(*) FROM sessions").await, 0);
    assert_eq!(app.database.count("SELECT count(*) FROM refresh_tokens").await, 0);
    assert_eq!(app.database.count("SELECT count(*) FROM requests WHERE anonymised_at IS NOT NULL").await, 0);
    let scrape = app.scrape().await;
    assert_eq!(scrape.value("switchboard_retention_rows_total{table=\"sessions\"}"), 1.0);
    assert_eq!(scrape.value("switchboard_retention_rows_total{table=\"requests\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_to_sign_in_and_the_audit_log_go_after_their_days() {
    let mut config = config();
    config.retention.batch_rows = 2;
    let app = TestApp::start_with(config).await;
    // Ages in seconds, around the edge of each.
    let rows = "INSERT INTO login_attempts (at, address, result)
                SELECT '2026-06-01T07:00:00Z'::timestamptz - age * interval '1 second', '203.0.113.7', 'rejected'
                  FROM unnest(ARRAY[0, 2592000, 2592001, 2592002, 9999999]) age;
                INSERT INTO login_failures (login_key, address, failures, last_at)
                SELECT decode(repeat('ab', 32), 'hex'), '203.0.113.' || age, 1,
                       '2026-06-01T07:00:00Z'::timestamptz - age * interval '1 second'
                  FROM unnest(ARRAY[0, 172800, 172801, 200000, 300000]) age;
                INSERT INTO audit_log (at, via, action, subject, address)
                SELECT '2026-06-01T07:00:00Z'::timestamptz - age * interval '1 second', 'cli', 'imported', 'users', '203.0.113.7'
                  FROM unnest(ARRAY[0, 94608000, 94608001, 94608002, 99999999]) age;
                INSERT INTO users (login, password_hash, name, role, created_at) VALUES ('olga', 'x', 'x', 'operator', now());
                INSERT INTO sessions (id, user_id, token_version, created_at, refreshed_at, expires_at)
                SELECT lpad(age::text, 32, '0'), (SELECT max(id) FROM users), 1, '2026-01-01', '2026-01-01',
                       '2026-06-01T07:00:00Z'::timestamptz - age * interval '1 second'
                  FROM unnest(ARRAY[2592000, 2592001]) age;
                INSERT INTO refresh_tokens (hash, session_id)
                SELECT sha256((id || n)::bytea), id FROM sessions, generate_series(1, 5) n";
    app.database.execute(rows).await;
    sweep(&app).await.unwrap();
    let left = async |table: &str| app.database.count(&format!("SELECT count(*) FROM {table}")).await;
    assert_eq!(left("login_attempts WHERE address = '203.0.113.7'").await, 2);
    assert_eq!(left("login_failures").await, 2);
    assert_eq!(left("audit_log").await, 2);
    assert_eq!((left("sessions").await, left("refresh_tokens").await), (1, 5));
    let scrape = app.scrape().await;
    for (table, rows) in [
        ("login_attempts", 3.0),
        ("login_failures", 3.0),
        ("audit_log", 3.0),
        ("sessions", 1.0),
        ("refresh_tokens", 5.0),
    ] {
        assert_eq!(scrape.value(&format!("switchboard_retention_rows_total{{table=\"{table}\"}}")), rows, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_on_calls_stays_what_it_was() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    app.stranger().deliver_all(&Call::new("first", "79161234501", MOSCOW_LINE).answered()).await;
    app.stranger().deliver_all(&Call::new("other", "79161234502", "74950009999").answered()).await;
    app.drain_inbox().await;
    let id = admin.all("/api/v1/requests").await[0]["id"].as_i64().unwrap();
    // A person finds out that the call on an unknown line was about the same.
    let call = admin.all("/api/v1/calls/triage").await[0]["id"].as_i64().unwrap();
    admin.post(&format!("/api/v1/calls/{call}/link"), json!({ "request_id": id })).await.expect(200);
    admin.move_to(id, json!({ "to": "refused" })).await.expect(200);
    let path = "/api/v1/reports/call-centre?from=2026-06-01&to=2026-06-01";
    let before = admin.get_anew(path).await.expect(200);
    assert_eq!(
        (&before["totals"]["incoming"], &before["totals"]["requests_created"]),
        (&json!(2), &json!(1)),
        "{before}"
    );

    app.clock.advance(TimeDelta::days(1826));
    sweep(&app).await.unwrap();
    assert_eq!(app.database.count("SELECT count(*) FROM calls WHERE anonymised_at IS NOT NULL").await, 2);
    assert_eq!(app.actor(Role::Admin, &[]).await.get_anew(path).await.expect(200), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_recordings_go_by_their_own_age_and_nobody_is_forgotten() {
    let app = TestApp::start().await;
    let old = done_request(&app, "+79161234501").await;
    // Of a request that goes: attached with the work, and a year later. Of a call that goes, of one that
    // nobody ever heard of, and of such a one from yesterday.
    let rows = format!(
        "INSERT INTO calls (provider, call_key, request_id, direction, received_at) VALUES ('mango', 'known', {old}, 'incoming', '2026-06-01T07:00:00Z');
         INSERT INTO files (request_id, kind, object, name, mime, bytes, sha256, uploaded_by, at)
         SELECT {old}, 'photo', 'files/' || name, name, 'image/png', 1, repeat('0', 64), (SELECT min(id) FROM users), at::timestamptz
           FROM (VALUES ('work', '2026-06-01T07:00:00Z'), ('later', '2027-06-01T07:00:00Z')) AS f (name, at);
         INSERT INTO recordings (provider, call_key, recording_id, status, next_attempt_at, at, object, mime, bytes, sha256)
         SELECT 'mango', key, key, 'stored', at::timestamptz, at::timestamptz, 'recordings/' || key, 'audio/mpeg', 1, repeat('0', 64)
           FROM (VALUES ('known', '2026-06-01T07:00:00Z'), ('unknown', '2026-06-01T07:00:00Z'), ('fresh', '2031-05-31T07:00:00Z')) AS r (key, at)"
    );
    app.database.execute(&rows).await;
    app.clock.advance(TimeDelta::days(1826));
    sweep(&app).await.unwrap();
    let left = "SELECT string_agg(object, ' ' ORDER BY object) FROM
                (SELECT object FROM files UNION ALL SELECT object FROM recordings) AS kept";
    let left: String = sqlx::query_scalar(left).fetch_one(&mut app.database.connect().await).await.unwrap();
    assert_eq!(left, "files/later recordings/fresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_found_by_what_stands_for_a_number_and_nothing_personal_is_added() {
    let app = TestApp::start().await;
    let old = done_request(&app, "+79161234501").await;
    app.database.execute("ALTER TABLE clients ALTER COLUMN id RESTART WITH 770042").await;
    let other = done_request(&app, "+79161234502").await;
    app.clock.advance(TimeDelta::days(1826));
    sweep(&app).await.unwrap();
    let admin = app.actor(Role::Admin, &[]).await;
    let view = admin.get(&format!("/api/v1/requests/{other}")).await.expect(200);
    assert_eq!(view["client_phone"], "anonymised-770042");
    for filter in ["phone=0042", "text=770042"] {
        assert_eq!(admin.all(&format!("/api/v1/requests?{filter}")).await.len(), 0, "{filter}");
    }
    let comment = admin.post(&format!("/api/v1/requests/{old}/comments"), json!({ "body": "Olga called" })).await;
    comment.problem(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_sent_again_when_the_inbox_has_forgotten_it_changes_nothing() {
    let mut config = config();
    config.retention.personal_data_days = 100;
    let app = TestApp::start_with(config.clone()).await;
    let call = Call::new("old", "79161234501", MOSCOW_LINE);
    app.stranger().deliver_all(&call.answered()).await;
    app.stranger().deliver_all(&Call::new("lost", "79161234502", "74950009999").answered()).await;
    app.drain_inbox().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let id = admin.all("/api/v1/requests").await[0]["id"].as_i64().unwrap();
    admin.move_to(id, json!({ "to": "refused" })).await.expect(200);
    // Once as a call of which everything is known, and once as one without its number.
    for days in [91, 10] {
        app.clock.advance(TimeDelta::days(days));
        sweep(&app).await.unwrap();
        assert_eq!(app.database.count("SELECT count(*) FROM webhook_events").await, 0);
        let before = content(&app, &["calls", "requests", "clients", "request_events"]).await;
        // To a process that has not seen them.
        let later = TestApp::over(config.clone(), app.database.clone()).await;
        later.clock.advance(app.app.clock.now() - later.app.clock.now());
        later.stranger().deliver(&call.appeared()).await.expect(200);
        later.stranger().deliver(&Call::new("lost", "79161234502", MOSCOW_LINE).appeared()).await.expect(200);
        app.drain_inbox().await;
        assert_eq!(content(&app, &["calls", "requests", "clients", "request_events"]).await, before, "{days}");
        assert_eq!(app.database.count("SELECT count(*) FROM webhook_events WHERE status = 'processed'").await, 2);
        app.database.execute("DELETE FROM webhook_events").await;
    }
}
