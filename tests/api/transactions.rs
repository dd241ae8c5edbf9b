//! `/api/v1/transactions`: booking by hand, taking back, and who sees which money. What the state
//! machine books is in `requests::money`, whether it all adds up in `ledger`.

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor};

const TRANSACTIONS: &str = "/api/v1/transactions";
const REVENUE: &str = "switchboard_revenue_rubles_total{city=\"moscow\"}";
const REFUNDS: &str = "switchboard_refunds_rubles_total{city=\"moscow\"}";

fn expense(amount: &str) -> Value {
    json!({ "type": "expense", "city": MOSCOW, "amount": amount })
}

fn income(amount: &str) -> Value {
    json!({ "type": "income", "city": MOSCOW, "amount": amount })
}

async fn book(actor: &Actor, body: Value) -> Value {
    actor.post(TRANSACTIONS, body).await.expect(201)
}

fn path(transaction: &Value) -> String {
    format!("{TRANSACTIONS}/{}", transaction["id"])
}

async fn reverse(actor: &Actor, transaction: &Value) -> crate::support::actor::Answer {
    actor.post(&format!("{}/reverse", path(transaction)), json!({ "reason": "Booked twice" })).await
}

/// A service request that its master has done, for 1000 rubles.
pub async fn done(manager: &Actor, master: &Actor, city: &str, phone: &str) -> i64 {
    let id = manager.waiting_request(city, phone).await;
    manager.assign(id, master.id).await.expect(200);
    for to in ["accepted", "en_route", "in_progress"] {
        master.move_to(id, json!({ "to": to })).await.expect(200);
    }
    master.move_to(id, json!({ "to": "done", "result": "1000.00" })).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_type_says_the_sign_and_the_answer_is_what_is_stored() {
    let app = TestApp::start().await;
    let (director, master) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let request = director.create_request(MOSCOW, "+79161234567").await;
    let before = app.scrape().await;
    let body = json!({
        "type": "expense", "city": MOSCOW, "amount": "1500.5", "master_id": master.id, "request_id": request["id"],
        "note": "Spare parts",
    });
    let answer = director.post(TRANSACTIONS, body).await;
    let location = answer.header("location").to_owned();
    let spent = answer.expect(201);
    assert_eq!(location, path(&spent));
    let expected = json!({
        "id": spent["id"], "type": "expense", "amount": "-1500.50", "city_id": request["city_id"], "city": MOSCOW,
        "master_id": master.id, "request_id": request["id"], "automatic": false, "reverses_id": null,
        "reversed_by": null, "note": "Spare parts", "reason": null, "actor_id": director.id,
        "at": "2026-06-01T07:00:00Z",
    });
    assert_eq!(spent, expected);
    assert_eq!(director.get(&location).await.expect(200), expected);
    let earned = book(&director, income("20")).await;
    assert_eq!((&earned["amount"], &earned["master_id"]), (&json!("20.00"), &Value::Null));
    assert_eq!(director.all(TRANSACTIONS).await, [earned, spent]);
    let changes = app.scrape().await.changes_since(&before);
    assert_eq!(changes[REVENUE], 20.0, "an expense is no revenue");
    assert!(!changes.contains_key(REFUNDS), "nor a refund");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_booked_is_refused_field_by_field() {
    let app = TestApp::start().await;
    let (director, elsewhere) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Director, &[KAZAN]).await);
    let (stranger, request) =
        (app.actor(Role::Master, &[KAZAN]).await, elsewhere.create_request(KAZAN, "+79161234567").await);
    let both = app.actor(Role::Director, &[MOSCOW, KAZAN]).await;
    for (field, value, pointer) in [
        ("amount", json!("0"), "/amount"),
        ("amount", json!("-1"), "/amount"),
        ("amount", json!("0.001"), "/amount"),
        ("amount", json!("9999999999.01"), "/amount"),
        ("amount", json!("1e400"), "/amount"),
        ("amount", json!("NaN"), "/amount"),
        ("amount", json!(""), "/amount"),
        ("amount", json!([1]), "/amount"),
        ("type", json!("reversal"), "/type"),
        ("type", json!("theft"), "/type"),
        ("type", json!(""), "/type"),
        ("city", json!(KAZAN), "/city"),
        ("city", json!("atlantis"), "/city"),
        ("master_id", json!(stranger.id), "/master_id"),
        ("master_id", json!(director.id), "/master_id"),
        ("master_id", json!(-1), "/master_id"),
        ("request_id", request["id"].clone(), "/request_id"),
        ("request_id", json!(999_999), "/request_id"),
        ("note", json!("x".repeat(501)), "/note"),
        ("note", json!("a\u{0}b"), "/note"),
        ("automatic", json!(true), "/automatic"),
        ("reverses_id", json!(1), "/reverses_id"),
    ] {
        let mut body = expense("1.00");
        body[field] = value;
        let problem = director.post(TRANSACTIONS, body.clone()).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    // Mine, but not of the city that is booked for.
    let body = json!({ "type": "income", "city": MOSCOW, "amount": "1", "request_id": request["id"], "master_id": stranger.id });
    let problem = both.post(TRANSACTIONS, body).await.problem(422, "invalid");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    assert_eq!(app.database.count("SELECT count(*) FROM transactions").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_is_taken_back_once() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let (spent, earned) = (book(&director, expense("10.00")).await, book(&director, income("30.00")).await);
    for body in [json!({}), json!({ "reason": "" }), json!({ "reason": " " }), json!({ "reason": "x".repeat(501) })] {
        director.post(&format!("{}/reverse", path(&spent)), body).await.problem(422, "invalid");
    }
    let before = app.scrape().await;
    let taken_back = reverse(&director, &spent).await.expect(201);
    assert_eq!(
        (&taken_back["type"], &taken_back["amount"], &taken_back["reverses_id"], &taken_back["reason"]),
        (&json!("reversal"), &json!("10.00"), &spent["id"], &json!("Booked twice"))
    );
    assert_eq!(director.get(&path(&spent)).await.expect(200)["reversed_by"], taken_back["id"]);
    assert!(!app.scrape().await.changes_since(&before).contains_key(REFUNDS), "an expense is no income");
    let again = reverse(&director, &spent).await.problem(409, "conflict");
    assert_eq!(again["detail"], "It is reversed already.");
    let back_and_forth = reverse(&director, &taken_back).await.problem(409, "conflict");
    assert!(back_and_forth["detail"].as_str().unwrap().starts_with("A reversal cannot"), "{back_and_forth}");
    reverse(&director, &earned).await.expect(201);
    assert_eq!(app.scrape().await.changes_since(&before)[REFUNDS], 30.0);
    reverse(&director, &json!({ "id": 999_999 })).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_who_take_back_at_once_one_does() {
    let app = TestApp::start().await;
    let director = app.actor(Role::Director, &[MOSCOW]).await;
    let earned = book(&director, income("30.00")).await;
    let answers = join_all((0..8).map(|_| reverse(&director, &earned))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.problem(409, "conflict")["detail"], "It is reversed already.");
    }
    assert_eq!(app.scrape().await.value(REFUNDS), 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_finished_request_earned_is_taken_back_by_reopening_it() {
    let app = TestApp::start().await;
    let (director, master) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = done(&director, &master, MOSCOW, "+79161234567").await;
    // Booked by hand on the same request: reopening must not take this for its income.
    let tip = json!({ "type": "income", "city": MOSCOW, "amount": "7", "request_id": id, "master_id": master.id });
    let tip = book(&director, tip).await;
    let [_, earned] = &director.all(TRANSACTIONS).await[..] else { panic!("two entries") };
    assert_eq!((&earned["automatic"], &earned["amount"]), (&json!(true), &json!("500.00")));
    let problem = reverse(&director, earned).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains("reopen the request"), "{problem}");
    director.move_to(id, json!({ "to": "in_progress", "reason": "it drips" })).await.expect(200);
    let earned = director.get(&path(earned)).await.expect(200);
    let reversal = director.get(&format!("{TRANSACTIONS}/{}", earned["reversed_by"])).await.expect(200);
    assert_eq!((&reversal["automatic"], &reversal["amount"]), (&json!(true), &json!("-500.00")));
    assert_eq!(director.get(&path(&tip)).await.expect(200)["reversed_by"], Value::Null);
    reverse(&director, &tip).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_finds_what_it_names_page_by_page() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let (here, there) = (app.actor(Role::Master, &[MOSCOW]).await, app.actor(Role::Master, &[KAZAN]).await);
    let id = done(&admin, &here, MOSCOW, "+79161234567").await;
    app.clock.advance(TimeDelta::hours(1));
    let spent = book(&admin, json!({ "type": "expense", "city": KAZAN, "amount": "1", "master_id": there.id })).await;
    app.clock.advance(TimeDelta::hours(1));
    let earned = book(&admin, income("2")).await;
    let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>();
    let all = ids(&admin.all(&format!("{TRANSACTIONS}?limit=1")).await);
    let [last, middle, first] = all[..] else { panic!("{all:?}") };
    assert_eq!((&json!(last), &json!(middle)), (&earned["id"], &spent["id"]));
    for (query, expected) in [
        ("city=moscow".to_owned(), vec![last, first]),
        ("city=atlantis".to_owned(), vec![]),
        (format!("master={}", there.id), vec![middle]),
        (format!("request={id}"), vec![first]),
        ("type=income".to_owned(), vec![last, first]),
        ("type=expense".to_owned(), vec![middle]),
        ("from=2026-06-01T11:00:00%2B03:00".to_owned(), vec![last, middle]),
        ("to=2026-06-01T08:00:00Z".to_owned(), vec![first]),
        ("from=2026-06-01T08:00:00Z&to=2026-06-01T09:00:00Z".to_owned(), vec![middle]),
    ] {
        assert_eq!(ids(&admin.all(&format!("{TRANSACTIONS}?{query}")).await), expected, "{query}");
    }
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("cursor=!", "cursor"),
        ("from=yesterday", "from"),
        ("from=1999-01-01T00:00:00Z", "from"),
        ("from=2026-06-02T00:00:00Z&to=2026-06-01T00:00:00Z", "to"),
        ("sign=1", "sign"),
        ("master=x", "master"),
    ] {
        let problem = admin.get(&format!("{TRANSACTIONS}?{query}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], parameter, "{query}");
    }
    admin.get(&format!("{TRANSACTIONS}/balance?by=day")).await.problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_seen_by_those_it_concerns() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let (mine, other) = (app.actor(Role::Master, &[MOSCOW]).await, app.actor(Role::Master, &[KAZAN]).await);
    done(&admin, &mine, MOSCOW, "+79161234567").await;
    done(&admin, &other, KAZAN, "+79161234568").await;
    let rent = book(&admin, expense("100.00")).await;
    let here = app.actor(Role::Director, &[MOSCOW]).await;
    let reader = app.actor(Role::Manager, &[MOSCOW]).await;
    let row =
        |city: Option<&str>, master: Option<&Actor>, income: &str, expenses: &str, balance: &str, entries: i64| {
            json!({ "city": city, "master_id": master.map(|master| master.id), "income": income, "expenses": expenses,
                "balance": balance, "entries": entries })
        };
    for (actor, entries, city_rows, balance) in [
        (
            &admin,
            3,
            vec![
                row(Some(KAZAN), None, "500.00", "0.00", "500.00", 1),
                row(Some(MOSCOW), None, "500.00", "100.00", "400.00", 2),
            ],
            "900.00",
        ),
        (&here, 2, vec![row(Some(MOSCOW), None, "500.00", "100.00", "400.00", 2)], "400.00"),
        (&reader, 2, vec![row(Some(MOSCOW), None, "500.00", "100.00", "400.00", 2)], "400.00"),
        (&mine, 1, vec![row(Some(MOSCOW), None, "500.00", "0.00", "500.00", 1)], "500.00"),
        (&other, 1, vec![row(Some(KAZAN), None, "500.00", "0.00", "500.00", 1)], "500.00"),
    ] {
        assert_eq!(actor.all(TRANSACTIONS).await.len(), entries, "{}", actor.login);
        let sums = actor.get(&format!("{TRANSACTIONS}/balance")).await.expect(200);
        assert_eq!(sums, json!({ "by": "city", "rows": city_rows, "balance": balance }), "{}", actor.login);
    }
    let by_master = here.get(&format!("{TRANSACTIONS}/balance?by=master")).await.expect(200);
    let rows = [row(None, Some(&mine), "500.00", "0.00", "500.00", 1), row(None, None, "0.00", "100.00", "-100.00", 1)];
    assert_eq!(by_master["rows"], json!(rows));
    let later = admin.get(&format!("{TRANSACTIONS}/balance?from=2026-06-02T00:00:00Z")).await.expect(200);
    assert_eq!(later, json!({ "by": "city", "rows": [], "balance": "0.00" }));
    let kazan = admin.get(&format!("{TRANSACTIONS}/balance?city=kazan")).await.expect(200);
    assert_eq!(kazan["balance"], "500.00");

    for nobody in [&mine, &app.actor(Role::Director, &[KAZAN]).await] {
        nobody.get(&path(&rent)).await.problem(404, "not_found");
    }
    reverse(&app.actor(Role::Director, &[KAZAN]).await, &rent).await.problem(404, "not_found");
    reverse(&reader, &rent).await.problem(403, "forbidden");
    reader.post(TRANSACTIONS, expense("1")).await.problem(403, "forbidden");
    app.actor(Role::Operator, &[MOSCOW]).await.get(TRANSACTIONS).await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_a_ledger_that_does_not_add_up() {
    let app = TestApp::start().await;
    let (director, master) = (app.actor(Role::Director, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = done(&director, &master, MOSCOW, "+79161234567").await;
    let (spent, earned) = (book(&director, expense("10.00")).await, book(&director, income("30.00")).await);
    let taken_back = reverse(&director, &spent).await.expect(201);
    let entry = |kind: &str, columns: &str, values: &str| {
        format!(
            "INSERT INTO transactions (type_id, at, city_id{columns})
             SELECT (SELECT id FROM transaction_types WHERE code = '{kind}'), now(), city_id{values} FROM transactions WHERE id = {}",
            earned["id"]
        )
    };
    let manual = |kind: &str, amount: &str| entry(kind, ", automatic, amount", &format!(", false, {amount}"));
    let reversal = |of: &Value, amount: &str, master: &str| {
        entry("reversal", ", automatic, amount, reverses_id, master_id", &format!(", false, {amount}, {of}, {master}"))
    };
    for (statement, constraint) in [
        (manual("income", "-1"), "transactions_sign_of_type"),
        (manual("expense", "1"), "transactions_sign_of_type"),
        (manual("expense", "0"), "transactions_sign_of_type"),
        (manual("reversal", "-1"), "transactions_reversal_names_original"),
        (
            entry("income", ", automatic, amount, reverses_id", &format!(", false, -30, {}", earned["id"])),
            "transactions_reversal_names_original",
        ),
        (reversal(&earned["id"], "-29.99", "NULL"), "transactions_reversal_is_exact"),
        (reversal(&earned["id"], "30", "NULL"), "transactions_reversal_is_exact"),
        (reversal(&earned["id"], "-30", &master.id.to_string()), "transactions_reversal_is_exact"),
        (reversal(&taken_back["id"], "-10", "NULL"), "transactions_reversal_is_final"),
        (reversal(&spent["id"], "10", "NULL"), "transactions_reverses_id_key"),
        (
            entry("income", ", automatic, amount, request_id", &format!(", true, 1, {id}")),
            "transactions_one_income_of_request",
        ),
        (entry("income", ", automatic, amount", ", true, 1"), "transactions_automatic_has_request"),
        (entry("income", ", automatic, amount, reason", ", false, 1, 'x'"), "transactions_reason_is_of_reversal"),
        (entry("income", ", automatic, amount, note", ", false, 1, ''"), "transactions_note_check"),
    ] {
        assert_eq!(app.database.refusal(&statement).await, constraint, "{statement}");
    }
    app.database.execute(&reversal(&earned["id"], "-30", "NULL")).await;
}
