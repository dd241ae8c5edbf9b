//! Lists show what is yours and nothing else, whatever is asked for.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{KAZAN, KAZAN_LINE, MOSCOW, MOSCOW_LINE, TestApp, actor::Actor, telephony::Call};

/// Sixty requests over both cities, four masters, all types and five states.
async fn fill(app: &TestApp, masters: [i64; 4]) {
    let [a, b, c, d] = masters;
    app.database
        .execute(&format!(
            "INSERT INTO clients (phone_e164, created_at)
                 SELECT '+7916000000' || n, now() FROM generate_series(0, 9) AS n;
             INSERT INTO requests (client_id, city_id, type_id, campaign_id, source, status, client_name, description,
                                   address, meeting_at, master_id, created_at, updated_at, closed_at)
                 SELECT (SELECT id FROM clients WHERE phone_e164 = '+7916000000' || n % 10), ci.id,
                        (SELECT id FROM request_types ORDER BY id OFFSET n % 3 LIMIT 1),
                        CASE WHEN n % 4 = 0 THEN ca.id END, 'manual',
                        (ARRAY['new', 'no_answer', 'waiting', 'offered', 'refused'])[1 + n % 5],
                        'Client ' || n % 10, 'tap ' || n % 7, 'Street ' || n % 6, now(),
                        CASE WHEN n % 5 = 3
                             THEN (ARRAY[{a}, {b}, {c}, {d}])[CASE ci.code WHEN 'moscow' THEN 1 ELSE 3 END + n / 2 % 2] END,
                        timestamptz '2026-06-01T00:00:00Z' + n / 3 * interval '1 hour', now(),
                        CASE WHEN n % 5 = 4 THEN now() END
                   FROM generate_series(0, 59) AS n
                   JOIN cities ci ON ci.code = (ARRAY['moscow', 'kazan'])[1 + n % 2]
                   JOIN advertising_campaigns ca ON ca.city_id = ci.id"
        ))
        .await;
}

/// What is asked for: each parameter or none.
#[derive(Clone, Debug)]
struct Question {
    city: Option<&'static str>,
    status: Option<&'static str>,
    master: Option<usize>,
    kind: Option<&'static str>,
    campaign: Option<&'static str>,
    hours: Option<(u32, u32)>,
    phone: Option<u32>,
    text: Option<&'static str>,
    limit: u32,
}

fn questions() -> impl Strategy<Value = Question> {
    let maybe = |values: &'static [&'static str]| proptest::option::weighted(0.3, proptest::sample::select(values));
    (
        maybe(&[MOSCOW, KAZAN, "omsk"]),
        maybe(&["new", "offered", "offered,refused", "new,no_answer,waiting", "done"]),
        proptest::option::weighted(0.2, 0..4_usize),
        maybe(&["first_time", "repeat", "warranty"]),
        maybe(&["moscow_ads", "kazan_ads"]),
        proptest::option::weighted(0.3, (0..12_u32, 8..20_u32)),
        proptest::option::weighted(0.2, 0..10_u32),
        maybe(&["STREET 1", "tap 3", "Client", "nothing like it"]),
        // Mostly a few pages, at times one for each row.
        prop_oneof![1 => 1..3_u32, 9 => 7..40_u32],
    )
        .prop_map(|(city, status, master, kind, campaign, hours, phone, text, limit)| Question {
            city,
            status,
            master,
            kind,
            campaign,
            hours,
            phone,
            text,
            limit,
        })
}

fn hour(hour: u32) -> String {
    format!("2026-06-01T{hour:02}:00:00Z")
}

impl Question {
    fn path(&self, masters: [i64; 4]) -> String {
        let (from, to) = self.hours.unzip();
        let parameters = [
            ("city", self.city.map(str::to_owned)),
            ("status", self.status.map(str::to_owned)),
            ("master", self.master.map(|n| masters[n].to_string())),
            ("type", self.kind.map(str::to_owned)),
            ("campaign", self.campaign.map(str::to_owned)),
            ("created_from", from.map(hour)),
            ("created_to", to.map(hour)),
            ("phone", self.phone.map(|n| format!("8916000000{n}"))),
            ("text", self.text.map(|text| text.replace(' ', "%20"))),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", value?)));
        format!("/api/v1/requests?limit={}{}", self.limit, given.collect::<String>())
    }

    /// The same question, answered without SQL.
    fn wants(&self, row: &Value, masters: [i64; 4]) -> bool {
        let is = |field: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| row[field] == wanted);
        let contains = |text: &str| {
            let fields =
                ["address", "description", "client_name"].map(|field| row[field].as_str().unwrap().to_lowercase());
            let words: Vec<&str> =
                fields.iter().flat_map(|field| field.split(|c: char| !c.is_alphanumeric())).collect();
            let text = text.to_lowercase();
            let (whole, last) = text.rsplit_once(' ').unwrap_or(("", &text));
            let unfinished = last.chars().count() >= 3 && last.chars().any(char::is_alphabetic);
            whole.split_whitespace().all(|part| words.contains(&part))
                && words.iter().any(|word| *word == last || (unfinished && word.starts_with(last)))
        };
        let created = row["created_at"].as_str().unwrap();
        is("city", self.city)
            && self.status.is_none_or(|list| list.split(',').any(|status| row["status"] == status))
            && self.master.is_none_or(|n| row["master_id"] == masters[n])
            && is("type", self.kind)
            && is("campaign", self.campaign)
            && self.hours.is_none_or(|(from, to)| created >= hour(from).as_str() && created < hour(to).as_str())
            && self.phone.is_none_or(|n| row["client_phone"] == format!("+7916000000{n}"))
            && self.text.is_none_or(contains)
    }
}

#[test]
fn no_filter_and_no_page_shows_a_row_of_somebody_else() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(TestApp::start());
    let (actors, masters) = runtime.block_on(async {
        let mut masters = Vec::new();
        for city in [MOSCOW, MOSCOW, KAZAN, KAZAN] {
            masters.push(app.actor(Role::Master, &[city]).await);
        }
        let ids: [i64; 4] = std::array::from_fn(|n| masters[n].id);
        fill(&app, ids).await;
        let actors = [
            app.actor(Role::Admin, &[]).await,
            app.actor(Role::Director, &[MOSCOW, KAZAN]).await,
            app.actor(Role::Operator, &[MOSCOW]).await,
            app.actor(Role::Marketer, &[KAZAN]).await,
            masters.swap_remove(0),
        ];
        (actors, ids)
    });
    let everything = runtime.block_on(actors[0].all("/api/v1/requests?limit=200"));
    assert_eq!(everything.len(), 60);
    let theirs: [fn(&Value, i64) -> bool; 5] = [
        |_, _| true,
        |_, _| true,
        |row, _| row["city"] == MOSCOW,
        |row, _| row["city"] == KAZAN,
        |row, id| row["master_id"] == id,
    ];
    // How often there was something to see, and something to hide.
    let (mut seen, mut hidden) = ([0; 5], [0; 5]);
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let asked = std::cell::RefCell::new((&mut seen, &mut hidden));
    TestRunner::new(config)
        .run(&questions(), |question| {
            let matching: Vec<&Value> = everything.iter().filter(|row| question.wants(row, masters)).collect();
            for (n, actor) in actors.iter().enumerate() {
                let got = runtime.block_on(actor.all(&question.path(masters)));
                let expected: Vec<&Value> = matching.iter().copied().filter(|row| theirs[n](row, actor.id)).collect();
                prop_assert_eq!(got.iter().collect::<Vec<_>>(), expected.clone(), "actor {}", n);
                let mut asked = asked.borrow_mut();
                asked.0[n] += expected.len();
                asked.1[n] += matching.len() - expected.len();
            }
            Ok(())
        })
        .unwrap();
    assert!(seen.iter().all(|rows| *rows > 0), "{seen:?}");
    assert!(hidden[2..].iter().all(|rows| *rows > 0), "{hidden:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_those_of_your_cities_and_those_of_no_city() {
    let app = TestApp::start().await;
    let pbx = app.stranger();
    for (entry, line) in [("here", MOSCOW_LINE), ("there", KAZAN_LINE), ("nowhere", "74959999999")] {
        pbx.deliver(&Call::new(entry, "+79161234567", line).appeared()).await.expect(200);
    }
    app.drain_inbox().await;
    let lines = async |actor: &Actor, path: &str| -> Vec<Value> {
        actor.all(path).await.into_iter().map(|call| call["line"].clone()).collect()
    };
    let (here, there, nowhere) = (json!("+74950000101"), json!("+78430000101"), json!("+74959999999"));
    let both = [MOSCOW, KAZAN];
    for (role, cities, expected) in [
        (Role::Admin, &both[..0], vec![nowhere.clone(), there.clone(), here.clone()]),
        (Role::Director, &both, vec![nowhere.clone(), there.clone(), here.clone()]),
        (Role::Operator, &both[..1], vec![nowhere.clone(), here]),
        (Role::Operator, &both[1..], vec![nowhere.clone(), there]),
    ] {
        let actor = app.actor(role, cities).await;
        assert_eq!(lines(&actor, "/api/v1/calls?limit=1").await, expected, "{role:?} {cities:?}");
        assert_eq!(lines(&actor, "/api/v1/calls/triage").await, std::slice::from_ref(&nowhere));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_sees_a_request_while_it_is_theirs() {
    let app = TestApp::start().await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    let path = format!("/api/v1/requests/{id}");
    let sees = async || (master.get(&path).await.status.as_u16(), master.all("/api/v1/requests").await.len());
    assert_eq!(sees().await, (404, 0), "in their city, but nobody's yet");
    manager.assign(id, master.id).await.expect(200);
    assert_eq!(sees().await, (200, 1));
    assert_eq!(master.move_to(id, json!({ "to": "waiting" })).await.expect(200)["master_id"], Value::Null);
    assert_eq!(sees().await, (404, 0), "given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_active_master_of_the_city_can_be_assigned() {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    let disabled = app.actor(Role::Master, &[MOSCOW]).await;
    app.database.execute(&format!("UPDATE users SET status = 'disabled' WHERE id = {}", disabled.id)).await;
    let elsewhere = app.actor(Role::Master, &[KAZAN]).await;
    for (who, nobody) in [
        ("a master of another city", elsewhere.id),
        ("a disabled master", disabled.id),
        ("no master", manager.id),
        ("nobody", 999_999_999),
        ("not even an id", -1),
    ] {
        let problem = manager.assign(id, nobody).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/master_id", "{who}");
    }
    let request = manager.get(&format!("/api/v1/requests/{id}")).await.expect(200);
    assert_eq!((&request["status"], &request["version"]), (&json!("waiting"), &json!(2)), "nothing happened");
    assert_eq!(
        app.scrape().await.value("switchboard_service_request_transition_rejections_total{reason=\"missing_field\"}"),
        5.0
    );
    let here = app.actor(Role::Master, &[KAZAN, MOSCOW]).await;
    assert_eq!(manager.assign(id, here.id).await.expect(200)["master_id"], here.id);
}
