//! `/api/v1/calls`: what came in and went out, and linking it to service requests. How events become
//! calls is in `webhooks`, whose calls one sees in `scope`.

use chrono::TimeDelta;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{
    KAZAN, MOSCOW, MOSCOW_LINE, TestApp,
    actor::Actor,
    eventually,
    telephony::{Call, Event},
};

const CALLS: &str = "/api/v1/calls";
const STRAY_LINE: &str = "74959999999";

async fn deliver(app: &TestApp, events: &[Event]) {
    app.stranger().deliver_all(events).await;
    app.drain_inbox().await;
}

/// The callers of a list, in its order.
async fn callers(actor: &Actor, query: &str) -> Vec<String> {
    let calls = actor.all(&format!("{CALLS}{query}")).await;
    calls.iter().map(|call| call["from"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_call_tells_everything_about_itself() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    deliver(&app, &Call::new("entry", "8 (916) 123-45-67", MOSCOW_LINE).answered()).await;
    let call = operator.all(CALLS).await.remove(0);
    let request = operator.all("/api/v1/requests").await.remove(0);
    let expected = json!({
        "id": call["id"], "provider": "mango", "direction": "incoming", "from": "+79161234567", "to": MOSCOW_LINE,
        "line": "+74950000101", "operator_extension": "101", "request_id": request["id"], "city_id": request["city_id"],
        "campaign": "moscow_ads", "received_at": "2026-06-01T07:00:00Z", "started_at": "2026-06-01T07:00:00Z",
        "answered_at": "2026-06-01T07:00:08Z", "ended_at": "2026-06-01T07:01:00Z", "talk_s": 52, "wait_s": 8,
        "result": "answered", "cause": 1110, "triage": null, "recordings": [],
    });
    assert_eq!(call, expected);
    assert_eq!(operator.get(&format!("{CALLS}/{}", call["id"])).await.expect(200), expected);
    assert_eq!((&request["source"], &request["campaign"]), (&json!("call"), &json!("moscow_ads")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_finds_what_it_names() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let (answered, missed, ringing) = ("79160000001", "79160000002", "79160000003");
    for events in [
        Call::new("answered", answered, MOSCOW_LINE).answered(),
        Call::new("missed", missed, MOSCOW_LINE).missed(),
        vec![Call::new("ringing", ringing, MOSCOW_LINE).appeared()],
        Call::new("outgoing", "79160000004", MOSCOW_LINE).outgoing(),
        Call::new("internal", "", MOSCOW_LINE).internal(),
    ] {
        app.clock.advance(TimeDelta::minutes(1));
        deliver(&app, &events).await;
    }
    let plus = |digits: &str| format!("+{digits}");
    let (answered, missed, ringing, inside) = (plus(answered), plus(missed), plus(ringing), "101".to_owned());
    let newest = &operator.get(&format!("{CALLS}?phone=%2B79160000001")).await.expect(200)["items"][0];
    let request = newest["request_id"].as_i64().unwrap();
    for (query, expected) in [
        (String::new(), vec![&inside, &inside, &ringing, &missed, &answered]),
        ("?result=answered".to_owned(), vec![&inside, &inside, &answered]),
        ("?result=missed".to_owned(), vec![&missed]),
        ("?direction=incoming".to_owned(), vec![&ringing, &missed, &answered]),
        ("?direction=outgoing".to_owned(), vec![&inside]),
        ("?direction=internal".to_owned(), vec![&inside]),
        ("?direction=unknown".to_owned(), vec![]),
        ("?direction=incoming&result=answered".to_owned(), vec![&answered]),
        ("?phone=8%20916%20000-00-02".to_owned(), vec![&missed]),
        ("?phone=%2B79169999999".to_owned(), vec![]),
        (format!("?request={request}"), vec![&answered]),
        ("?request=0".to_owned(), vec![]),
    ] {
        assert_eq!(callers(&operator, &query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    for (query, parameter) in [
        ("result=busy", "result"),
        ("direction=up", "direction"),
        ("phone=nobody", "phone"),
        ("request=x", "request"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=!", "cursor"),
        ("triage=true", "triage"),
    ] {
        let problem = operator.get(&format!("{CALLS}?{query}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], parameter, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_calls_are_complete_and_without_repeats_while_the_phone_rings() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let ring = async |n: u32, line: &str| {
        app.clock.advance(TimeDelta::seconds(i64::from(n.is_multiple_of(3))));
        deliver(&app, &[Call::new(&format!("entry{n}"), &format!("791600000{n:02}"), line).appeared()]).await;
    };
    for n in 0..11 {
        ring(n, STRAY_LINE).await;
    }
    let expected: Vec<String> = (0..11).rev().map(|n| format!("+791600000{n:02}")).collect();
    for list in [CALLS.to_owned(), format!("{CALLS}/triage")] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = operator.get(&format!("{list}?limit=4{cursor}")).await.expect(200);
            let items = page["items"].as_array().unwrap();
            seen.extend(items.iter().map(|call| call["from"].as_str().unwrap().to_owned()));
            let number = 11 + u32::try_from(seen.len()).unwrap() + if list == CALLS { 0 } else { 40 };
            ring(number, STRAY_LINE).await;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        // The second list begins with what rang during the first.
        assert_eq!(seen[seen.len() - 11..], expected, "{list}");
        assert_eq!(seen.len(), if list == CALLS { 11 } else { 14 }, "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_from_inside_are_kept_and_make_no_request() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    deliver(&app, &Call::new("outgoing", "79160000004", MOSCOW_LINE).outgoing()).await;
    deliver(&app, &Call::new("internal", "", MOSCOW_LINE).internal()).await;
    let calls = operator.all(CALLS).await;
    let expect = |call: &Value, direction: &str, to: &str| {
        assert_eq!((&call["direction"], &call["to"]), (&json!(direction), &json!(to)));
        assert_eq!((&call["request_id"], &call["triage"]), (&Value::Null, &Value::Null));
        assert_eq!((&call["result"], &call["talk_s"]), (&json!("answered"), &json!(30)));
    };
    expect(&calls[0], "internal", "102");
    expect(&calls[1], "outgoing", "79160000004");
    assert_eq!(calls[1]["operator_extension"], "101");
    assert!(operator.all("/api/v1/calls/triage").await.is_empty(), "nobody has to look at them");
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 0);
    assert_eq!(app.database.count("SELECT count(*) FROM clients").await, 0);
    let scrape = app.scrape().await;
    for direction in ["outgoing", "internal"] {
        let series = format!("switchboard_calls_total{{direction=\"{direction}\",result=\"answered\"}}");
        assert_eq!(scrape.value(&series), 1.0, "{direction}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_linked_once_and_to_a_request_of_ones_own() {
    let app = TestApp::start().await;
    let (operator, elsewhere) = (app.actor(Role::Operator, &[MOSCOW]).await, app.actor(Role::Operator, &[KAZAN]).await);
    let ours = operator.create_request(MOSCOW, "+79161234567").await;
    let other = operator.create_request(MOSCOW, "+79161234568").await;
    let foreign = elsewhere.create_request(KAZAN, "+79161234569").await;
    deliver(&app, &[Call::new("stray", "79161234567", STRAY_LINE).appeared()]).await;
    let call = elsewhere.all("/api/v1/calls/triage").await.remove(0);
    let path = format!("{CALLS}/{}/link", call["id"]);
    let link = |request: &Value| json!({ "request_id": request });

    for bad in [&foreign["id"], &json!(0), &json!(-1), &json!(999_999_999)] {
        let problem = operator.post(&path, link(bad)).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/request_id", "{bad}");
    }
    for (body, pointer) in [
        (json!({ "request_id": "1" }), "/request_id"),
        (json!({ "request_id": null }), "/request_id"),
        (json!({ "request_id": 1, "force": true }), "/force"),
    ] {
        let problem = operator.post(&path, body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    assert_eq!(elsewhere.all("/api/v1/calls/triage").await, [call], "nothing happened to it");

    let linked = operator.post(&path, link(&ours["id"])).await.expect(200);
    assert_eq!((&linked["request_id"], &linked["triage"]), (&ours["id"], &Value::Null));
    assert_eq!(linked["city_id"], ours["city_id"], "it now belongs to the request's city");
    assert_eq!(operator.post(&path, link(&ours["id"])).await.expect(200), linked, "once more is no error");
    operator.post(&path, link(&other["id"])).await.problem(409, "conflict");
    elsewhere.post(&path, link(&foreign["id"])).await.problem(404, "not_found");
    assert!(elsewhere.all("/api/v1/calls/triage").await.is_empty());
    assert!(operator.all("/api/v1/calls/triage").await.is_empty());

    let history = operator.all(&format!("/api/v1/requests/{}/history", ours["id"])).await;
    let attached: Vec<&Value> = history.iter().filter(|entry| entry["kind"] == "call_attached").collect();
    assert_eq!(attached.len(), 1, "{history:?}");
    assert_eq!(attached[0]["actor_id"], operator.id);
    assert_eq!(attached[0]["diff"], json!({ "call_id": [null, linked["id"]] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_link_a_call_at_once_one_has_to_give_in() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let a = operator.create_request(MOSCOW, "+79161234567").await["id"].clone();
    let b = operator.create_request(MOSCOW, "+79161234568").await["id"].clone();
    for n in 0..10 {
        deliver(&app, &[Call::new(&format!("stray{n}"), "79161234567", STRAY_LINE).appeared()]).await;
        let path = format!("{CALLS}/{}/link", operator.all("/api/v1/calls/triage").await[0]["id"]);
        let (to_a, to_b) = tokio::join!(
            operator.post(&path, json!({ "request_id": a })),
            operator.post(&path, json!({ "request_id": b }))
        );
        let (won, lost) = if to_a.status == 200 { (to_a, to_b) } else { (to_b, to_a) };
        won.expect(200);
        lost.problem(409, "conflict");
    }
    let attached = "SELECT count(*) FROM request_events WHERE kind = 'call_attached'";
    assert_eq!(app.database.count(attached).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_linked_to_a_request_that_is_being_deleted() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let request = operator.create_request(MOSCOW, "+79161234567").await["id"].clone();
    deliver(&app, &[Call::new("stray", "79161234567", STRAY_LINE).appeared()]).await;
    let path = format!("{CALLS}/{}/link", operator.all("/api/v1/calls/triage").await[0]["id"]);
    let mut deleting = app.database.connect().await;
    let delete = format!("UPDATE requests SET deleted_at = now() WHERE id = {request}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {delete}"))).execute(&mut deleting).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let commit = async {
        eventually("the link waits", async || (app.database.count(waiting).await == 1).then_some(())).await;
        sqlx::raw_sql("COMMIT").execute(&mut deleting).await.unwrap();
    };
    let (answer, ()) = tokio::join!(operator.post(&path, json!({ "request_id": request })), commit);
    answer.problem(422, "invalid");
    assert_eq!(operator.all("/api/v1/calls/triage").await.len(), 1, "it waits for somebody still");
}
