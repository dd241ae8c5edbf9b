//! `GET /api/v1/requests`: each filter by itself, pages, and what is no filter. All of them together,
//! and whose rows they may show, is in `scope`.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{REQUESTS, path, pointers};
use crate::support::{KAZAN, MOSCOW, MOSCOW_LINE, TestApp, actor::Actor, telephony::Call};

async fn ids(actor: &Actor, query: &str) -> Vec<i64> {
    actor.all(&format!("{REQUESTS}?{query}")).await.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

fn with(mut body: Value, field: &str, value: &str) -> Value {
    body[field] = json!(value);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_finds_what_it_names() {
    let app = TestApp::start().await;
    let (director, master) =
        (app.actor(Role::Director, &[MOSCOW, KAZAN]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let create = async |body: Value| {
        app.clock.advance(TimeDelta::hours(1));
        director.post(REQUESTS, body).await.expect(201)["id"].as_i64().unwrap()
    };
    let olga = json!({ "city": MOSCOW, "phone": "+79160000001", "client_name": "Ольга Петрова" });
    let olga = create(with(olga, "description", "50% of the TAP drips")).await;
    let anna = json!({ "city": KAZAN, "phone": "+79160000002", "client_name": "Anna", "type": "warranty" });
    let anna = create(with(anna, "address", "Baumana_7 \\ yard")).await;
    let ivan = json!({ "city": MOSCOW, "phone": "+79160000003", "description": "500 taps" });
    let ivan = create(with(ivan, "address", "BaumanaX7")).await;
    app.clock.advance(TimeDelta::hours(1));
    app.stranger().deliver(&Call::new("entry", "+79160000004", MOSCOW_LINE).appeared()).await.expect(200);
    app.drain_inbox().await;
    let call = ids(&director, "limit=1").await[0];
    let visit = json!({ "to": "waiting", "address": "Arbat 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
    director.move_to(ivan, visit).await.expect(200);
    director.assign(ivan, master.id).await.expect(200);
    director.move_to(anna, json!({ "to": "refused" })).await.expect(200);

    let all = vec![call, ivan, anna, olga];
    let cases = [
        ("", all.clone()),
        ("city=moscow", vec![call, ivan, olga]),
        ("city=kazan", vec![anna]),
        ("city=omsk", vec![]),
        ("status=new", vec![call, olga]),
        ("status=refused,offered", vec![ivan, anna]),
        ("status=refused,%20offered", vec![ivan, anna]),
        ("status=done", vec![]),
        (&format!("master={}", master.id), vec![ivan]),
        ("master=0", vec![]),
        ("type=warranty", vec![anna]),
        ("type=first_time", vec![call, ivan, olga]),
        ("campaign=moscow_ads", vec![call]),
        ("campaign=kazan_ads", vec![]),
        // Created at 08:00, 09:00, 10:00 and 11:00; from is inclusive, to is not.
        ("created_from=2026-06-01T09:00:00Z", vec![call, ivan, anna]),
        ("created_to=2026-06-01T09:00:00Z", vec![olga]),
        ("created_from=2026-06-01T12:00:00%2B03:00&created_to=2026-06-01T13:00:00%2B03:00", vec![anna]),
        ("phone=%2B79160000001", vec![olga]),
        ("phone=8%20(916)%20000-00-02", vec![anna]),
        ("phone=9160000003", vec![ivan]),
        ("phone=%2B79169999999", vec![]),
        ("text=tap", vec![ivan, olga]),
        ("text=%D0%BE%D0%BB%D1%8C%D0%B3%D0%B0", vec![olga]),
        ("text=arbat", vec![ivan]),
        // All words, the last one perhaps unfinished unless it is short or a number; punctuation separates them and means nothing.
        ("text=tap%20drips", vec![olga]),
        ("text=drips%20taps", vec![]),
        ("text=drip%20tap", vec![]),
        ("text=tap%20drip", vec![olga]),
        ("text=ap", vec![]),
        ("text=50%25", vec![olga]),
        ("text=ta", vec![]),
        ("text=baumana%207", vec![anna]),
        ("text=%D0%9E%D0%9B%D0%AC%D0%93%D0%90%20%D0%BF%D0%B5%D1%82", vec![olga]),
        ("text=arbat'%3B--%20!1%3A*%26", vec![ivan]),
        ("text=nobody", vec![]),
        // A number finds its request, a phone or its last digits the client's.
        (&format!("text=%23{anna}"), vec![anna]),
        ("text=%239999", vec![]),
        ("text=8%20916%20000-00-03", vec![ivan]),
        ("text=0001", vec![olga]),
        ("phone=0001", vec![olga]),
        ("phone=000-00-0", vec![]),
        ("city=moscow&status=new&text=tap", vec![olga]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&director, query).await, expected, "{query}");
    }
    director.delete(&path(&json!(olga)), "*").await.problem(403, "forbidden");
    let admin = app.actor(Role::Admin, &[]).await;
    assert_eq!(admin.delete(&path(&json!(olga)), "*").await.status, 204);
    assert_eq!(ids(&director, "").await, [call, ivan, anna], "what is deleted is not listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_complete_and_without_repeats_while_rows_are_added() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    // Some of the same microsecond: the id then decides.
    for n in 0..23 {
        app.clock.advance(TimeDelta::seconds(i64::from(n % 5 == 0)));
        operator.create_request(MOSCOW, &format!("+791600000{n:02}")).await;
    }
    let expected = ids(&operator, "limit=200").await;
    assert_eq!(expected.len(), 23);
    for limit in [1, 4, 22, 23, 24] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = operator
                .get(&format!("{REQUESTS}?limit={limit}&created_to=2026-06-01T08:00:00Z{cursor}"))
                .await
                .expect(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen.extend(items.iter().map(|row| row["id"].as_i64().unwrap()));
            pages += 1;
            // Newer than everything: it belongs before the page that was read first.
            if pages == 1 {
                operator.create_request(MOSCOW, "+79169999999").await;
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let unique: BTreeSet<i64> = seen.iter().copied().collect();
        assert_eq!(unique.len(), seen.len(), "limit {limit}: a row twice");
        let old: Vec<i64> = seen.into_iter().filter(|id| expected.contains(id)).collect();
        assert_eq!(old, expected, "limit {limit}");
        assert!(pages >= 23_usize.div_ceil(limit), "limit {limit}: {pages} pages");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_fifty_rows_unless_asked_otherwise_and_never_more_than_200() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    operator.create_request(MOSCOW, "+79161234567").await;
    app.database
        .execute(
            "INSERT INTO requests (client_id, city_id, type_id, source, status, created_at, updated_at)
             SELECT client_id, city_id, type_id, source, status, created_at, updated_at
               FROM requests, generate_series(1, 250)",
        )
        .await;
    for (query, rows, more) in [("", 50, true), ("?limit=1", 1, true), ("?limit=200", 200, true)] {
        let page = operator.get(&format!("{REQUESTS}{query}")).await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), rows, "{query}");
        assert_eq!(page["next_cursor"].is_string(), more, "{query}");
    }
    assert_eq!(ids(&operator, "limit=200").await.len(), 251);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_filter_is_named() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let long = format!("text={}", "x".repeat(101));
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=many", "limit"),
        ("cursor=", "cursor"),
        ("cursor=!", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=f_________________8", "cursor"),
        ("status=nwe", "status"),
        ("status=", "status"),
        ("status=new,", "status"),
        ("status=new%00", "status"),
        ("master=me", "master"),
        ("phone=nobody", "phone"),
        ("created_from=yesterday", "created_from"),
        ("created_from=2026-06-01", "created_from"),
        ("created_to=%2B262142-12-31T23:59:59Z", "created_to"),
        ("created_to=1970-01-01T00:00:00Z", "created_to"),
        ("text=", "text"),
        ("text=a%00b", "text"),
        ("text=%FF", "text"),
        ("text=%25", "text"),
        ("city=%00", "city"),
        (long.as_str(), "text"),
        ("colour=red", "colour"),
    ] {
        let problem = operator.get(&format!("{REQUESTS}?{query}")).await.problem(422, "invalid");
        assert_eq!(pointers(&problem), [parameter], "{query}");
    }
    // Given twice; which one would be meant?
    operator.get(&format!("{REQUESTS}?limit=1&limit=2")).await.problem(422, "invalid");
}
