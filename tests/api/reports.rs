//! `/api/v1/reports`: figures worked out by hand for a small October, over the borders of days: of time
//! zones, of daylight saving, to the last microsecond.

use serde_json::{Value, json};
use switchboard::{auth::Role, db::Conn};

use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor};

const NOVOSIBIRSK: &str = "novosibirsk";
const BERLIN: &str = "berlin";
const OCTOBER: &str = "from=2026-10-01&to=2026-10-31";

/// A service request of the fixture. Times are UTC; an empty one is none.
#[derive(Clone, Copy)]
struct Request<'a> {
    city: &'a str,
    campaign: &'a str,
    source: &'a str,
    status: &'a str,
    created: &'a str,
    first_response: &'a str,
    closed: &'a str,
    master: Option<i64>,
    /// Result, expenses, handover.
    money: Option<(i64, i64, i64)>,
    deleted: bool,
}

const PLAIN: Request<'static> = Request {
    city: NOVOSIBIRSK,
    campaign: "",
    source: "call",
    status: "new",
    created: "",
    first_response: "",
    closed: "",
    master: None,
    money: None,
    deleted: false,
};

fn time(at: &str) -> String {
    if at.is_empty() { "NULL".to_owned() } else { format!("timestamptz '{at}'") }
}

fn number(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

/// What stands in the database.
struct Fixture {
    app: TestApp,
    /// Two of Novosibirsk and one of Moscow.
    masters: [Actor; 3],
}

impl Fixture {
    async fn request(&self, request: Request<'_>) -> i64 {
        let Request { city, campaign, source, status, created, first_response, closed, master, money, deleted } =
            request;
        let part = |of: fn((i64, i64, i64)) -> i64| number(money.map(of));
        let sql = format!(
            "INSERT INTO requests (client_id, city_id, type_id, campaign_id, source, status, address, meeting_at, master_id,
                                   created_at, updated_at, first_response_at, closed_at, result, expenses, net, handover, deleted_at)
             SELECT (SELECT min(id) FROM clients), ci.id, 1, (SELECT id FROM advertising_campaigns WHERE code = '{campaign}'),
                    '{source}', '{status}', 'x', now(), {}, {created}, {created}, {}, {}, {}, {}, {}, {}, {}
               FROM cities ci WHERE ci.code = '{city}' RETURNING id",
            number(master),
            time(first_response),
            time(closed),
            part(|(result, ..)| result),
            part(|(_, expenses, _)| expenses),
            part(|(result, expenses, _)| result - expenses),
            part(|(.., handover)| handover),
            if deleted { "now()" } else { "NULL" },
            created = time(created),
        );
        self.app.database.count(&sql).await
    }

    /// An incoming call; `result` may be empty, `wait` and `talk` are seconds.
    async fn call(&self, city: &str, key: &str, at: &str, result: &str, seconds: (i64, i64), request: Option<i64>) {
        let campaign = if key.starts_with("ad") { format!("{city}_ads") } else { String::new() };
        let result = if result.is_empty() { "NULL".to_owned() } else { format!("'{result}'") };
        let (wait, talk) = seconds;
        let request = number(request);
        let sql = format!(
            "INSERT INTO calls (provider, call_key, request_id, city_id, campaign_id, direction, received_at, result, wait_s, talk_s)
             SELECT 'mango', '{key}', {request}, (SELECT id FROM cities WHERE code = '{city}'),
                    (SELECT id FROM advertising_campaigns WHERE code = '{campaign}'), 'incoming', '{at}', {result}, {wait}, {talk}"
        );
        self.app.database.execute(&sql).await;
    }

    async fn event(&self, request: i64, at: &str, to: &str, diff: Value) {
        let sql = if to == "call_attached" {
            format!(
                "INSERT INTO request_events (request_id, at, kind, diff) VALUES ({request}, '{at}', '{to}', '{diff}')"
            )
        } else {
            format!(
                "INSERT INTO request_events (request_id, at, kind, from_status, to_status, diff)
                 VALUES ({request}, '{at}', 'transition', 'waiting', '{to}', '{diff}')"
            )
        };
        self.app.database.execute(&sql).await;
    }

    async fn offer(&self, request: i64, at: &str, master: i64) {
        self.event(request, at, "offered", json!({ "master_id": [null, master] })).await;
    }

    /// An entry of the ledger; its id.
    async fn book(&self, kind: &str, amount: i64, at: &str, request: Option<i64>, reverses: Option<i64>) -> i64 {
        let (request, reverses) = (number(request), number(reverses));
        let sql = format!(
            "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, reverses_id, at)
             SELECT COALESCE(r.city_id, (SELECT id FROM cities WHERE code = '{NOVOSIBIRSK}')), t.id, r.id, r.master_id,
                    {amount}, false, {reverses}, '{at}'
               FROM transaction_types t LEFT JOIN requests r ON r.id = {request} WHERE t.code = '{kind}' RETURNING id"
        );
        self.app.database.count(&sql).await
    }

    async fn new() -> Self {
        let app = TestApp::start().await;
        app.database
            .execute(
                "INSERT INTO cities (code, name_ru, name_en, timezone)
                 VALUES ('novosibirsk', 'Н', 'N', 'Asia/Novosibirsk'), ('berlin', 'Б', 'B', 'Europe/Berlin');
                 INSERT INTO advertising_campaigns (city_id, code, name)
                 SELECT id, 'novosibirsk_ads', 'x' FROM cities WHERE code = 'novosibirsk';
                 INSERT INTO clients (phone_e164, created_at) VALUES ('+79161234567', now())",
            )
            .await;
        let masters = [
            app.actor(Role::Master, &[NOVOSIBIRSK]).await,
            app.actor(Role::Master, &[NOVOSIBIRSK]).await,
            app.actor(Role::Master, &[MOSCOW]).await,
        ];
        let [first, second, third] = [masters[0].id, masters[1].id, masters[2].id];
        // A name that a spreadsheet would run.
        let names = format!(
            "UPDATE users SET name = 'Anton' WHERE id = {first}; UPDATE users SET name = '=1+1,\"x\"' WHERE id = {second};
             UPDATE users SET name = 'Maxim' WHERE id = {third}"
        );
        app.database.execute(&names).await;
        let fixture = Self { app, masters };
        fixture.fill(first, second, third).await;
        fixture
    }

    #[expect(clippy::too_many_lines, reason = "it is read beside the figures that follow from it")]
    /// October. Midnight is 17:00 UTC in Novosibirsk (+7), 21:00 in Moscow (+3), and in Berlin 22:00 until
    /// the 25th and 23:00 after it.
    async fn fill(&self, first: i64, second: i64, third: i64) {
        // r1: 01:30 on 2 October in Novosibirsk. Answered after 90 s, done after exactly a day.
        let r1 = self
            .request(Request {
                campaign: "novosibirsk_ads",
                status: "done",
                created: "2026-10-01T18:30:00Z",
                first_response: "2026-10-01T18:31:30Z",
                closed: "2026-10-02T18:30:00Z",
                master: Some(first),
                money: Some((5000, 1000, 2000)),
                ..PLAIN
            })
            .await;
        self.book("income", 2000, "2026-10-02T18:30:00Z", Some(r1), None).await;
        // r2: the last microsecond of 1 October there. Answered after 30 s.
        let r2 = self
            .request(Request {
                campaign: "novosibirsk_ads",
                status: "refused",
                created: "2026-10-01T16:59:59.999999Z",
                first_response: "2026-10-01T17:00:29.999999Z",
                closed: "2026-10-01T18:00:00Z",
                ..PLAIN
            })
            .await;
        // r3: deleted.
        let r3 = self.request(Request { city: MOSCOW, created: "2026-10-01T18:30:00Z", deleted: true, ..PLAIN }).await;
        // r4: created in the last microsecond of September in Moscow, done in the last one of October.
        let r4 = self
            .request(Request {
                city: MOSCOW,
                source: "manual",
                status: "done",
                created: "2026-09-30T20:59:59.999999Z",
                closed: "2026-10-31T20:59:59.999999Z",
                master: Some(third),
                money: Some((3000, 0, 1500)),
                ..PLAIN
            })
            .await;
        self.book("income", 1500, "2026-10-31T20:59:59.999999Z", Some(r4), None).await;
        // r5: done a microsecond later, which is November.
        let r5 = self
            .request(Request {
                city: MOSCOW,
                campaign: "moscow_ads",
                status: "done",
                created: "2026-10-01T10:00:00Z",
                closed: "2026-10-31T21:00:00Z",
                master: Some(third),
                money: Some((9999, 0, 5000)),
                ..PLAIN
            })
            .await;
        self.book("income", 5000, "2026-10-31T21:00:00Z", Some(r5), None).await;
        // r6: done on the 10th, reopened at 17:30 UTC on the 12th, which is the 13th in Novosibirsk.
        let r6 = self
            .request(Request {
                campaign: "novosibirsk_ads",
                status: "in_progress",
                created: "2026-10-09T04:00:00Z",
                master: Some(first),
                ..PLAIN
            })
            .await;
        let income = self.book("income", 700, "2026-10-10T05:00:00Z", Some(r6), None).await;
        self.book("reversal", -700, "2026-10-12T17:30:00Z", Some(r6), Some(income)).await;
        // An expense and its reversal are neither revenue nor refunds.
        let expense = self.book("expense", -300, "2026-10-05T05:00:00Z", None, None).await;
        self.book("reversal", 300, "2026-10-06T05:00:00Z", None, Some(expense)).await;
        // r7: no order, answered and ended after 60 s.
        let r7 = Request { status: "not_order", created: "2026-10-03T00:00:00Z", ..PLAIN };
        let after = "2026-10-03T00:01:00Z";
        self.request(Request { first_response: after, closed: after, ..r7 }).await;
        // r8: done, dear and deleted.
        let r8 = Request { status: "done", created: "2026-10-03T00:00:00Z", closed: "2026-10-04T00:00:00Z", ..PLAIN };
        self.request(Request { master: Some(first), money: Some((1_000_000, 0, 1)), deleted: true, ..r8 }).await;
        // r9 and r10: done after one and two hours. r11: refused, with a master.
        let plain = Request { created: "2026-10-20T00:00:00Z", master: Some(first), ..PLAIN };
        let done = Request { status: "done", ..plain };
        let r9 = Request { closed: "2026-10-20T01:00:00Z", money: Some((1000, 0, 500)), ..done };
        let r9 = self.request(r9).await;
        let r10 = Request { closed: "2026-10-20T02:00:00Z", money: Some((600, 0, 300)), ..done };
        let r10 = self.request(r10).await;
        self.book("income", 500, "2026-10-20T01:00:00Z", Some(r9), None).await;
        self.book("income", 300, "2026-10-20T02:00:00Z", Some(r10), None).await;
        self.request(Request { status: "refused", closed: "2026-10-22T00:00:00Z", ..plain }).await;

        // Offers: r1 first to the second master; r4 in September and once more in October.
        self.offer(r1, "2026-10-01T19:00:00Z", second).await;
        self.offer(r1, "2026-10-01T20:00:00Z", first).await;
        self.offer(r4, "2026-09-30T20:59:59.999999Z", third).await;
        self.offer(r4, "2026-10-02T00:00:00Z", third).await;
        for (request, at) in [(r6, "2026-10-09T05:00:00Z"), (r9, "2026-10-20T00:10:00Z"), (r10, "2026-10-20T00:10:00Z")]
        {
            self.offer(request, at, first).await;
        }
        // Accepted two hours and half an hour before done; of r1 the second time counts.
        self.event(r1, "2026-10-01T20:30:00Z", "accepted", json!({})).await;
        self.event(r1, "2026-10-02T16:30:00Z", "accepted", json!({})).await;
        self.event(r9, "2026-10-20T00:30:00Z", "accepted", json!({})).await;

        // Calls: r1 and r2 were created by one each, another joined r1; one is not over.
        self.call(NOVOSIBIRSK, "ad1", "2026-10-01T18:30:00Z", "answered", (10, 100), Some(r1)).await;
        self.call(NOVOSIBIRSK, "ad2", "2026-10-01T16:59:59.999999Z", "missed", (30, 0), Some(r2)).await;
        self.call(NOVOSIBIRSK, "ad3", "2026-10-01T19:00:00Z", "answered", (20, 200), Some(r1)).await;
        self.event(r1, "2026-10-01T19:00:01Z", "call_attached", json!({ "call_key": [null, "ad3"] })).await;
        self.call(NOVOSIBIRSK, "ad4", "2026-10-01T17:00:00Z", "", (1, 1), None).await;
        // In Moscow both are still of the 1st: one whose request was deleted, one that a person linked.
        self.call(MOSCOW, "ad5", "2026-10-01T18:30:00Z", "answered", (5, 50), Some(r3)).await;
        self.call(MOSCOW, "k6", "2026-10-01T20:59:59.999999Z", "missed", (60, 0), Some(r1)).await;
        let linked = self.app.database.count("SELECT id FROM calls WHERE call_key = 'k6'").await;
        self.event(r1, "2026-10-05T00:00:00Z", "call_attached", json!({ "call_id": [null, linked] })).await;
        // Neither outgoing calls nor those without a city are in the report.
        self.app
            .database
            .execute(
                "INSERT INTO calls (provider, call_key, city_id, direction, received_at, result, triage)
                 SELECT 'mango', 'out', id, 'outgoing', timestamptz '2026-10-01T18:30:00Z', 'answered', NULL FROM cities WHERE code = 'moscow'
                 UNION ALL SELECT 'mango', 'lost', NULL, 'incoming', '2026-10-01T18:30:00Z', 'missed', 'unknown_line'",
            )
            .await;
        // Berlin: around a day of 25 hours and around one of 23.
        for at in [
            "2026-10-24T21:59:59.999999Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T22:59:59.999999Z",
            "2026-10-25T23:00:00Z",
            "2026-03-28T22:59:59.999999Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T21:59:59.999999Z",
            "2026-03-29T22:00:00Z",
        ] {
            self.call(BERLIN, at, at, "missed", (1, 0), None).await;
        }
    }

    async fn admin(&self) -> Actor {
        self.app.actor(Role::Admin, &[]).await
    }
}

async fn read(actor: &Actor, report: &str, query: &str) -> Value {
    actor.get(&format!("/api/v1/reports/{report}?{query}")).await.expect(200)
}

/// The row that a field names.
#[track_caller]
fn row<'a>(report: &'a Value, field: &str, name: impl Into<Value>) -> &'a Value {
    let name = name.into();
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row[field] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_on_the_day_it_is_in_their_city() {
    let fixture = Fixture::new().await;
    let admin = fixture.admin().await;
    let report = read(&admin, "call-centre", "from=2026-10-01&to=2026-10-02").await;
    assert_eq!(
        report,
        json!({
            "from": "2026-10-01", "to": "2026-10-02",
            "rows": [
                // ad5 and k6: one of two was missed; the request of ad5 is deleted, that of k6 was linked by hand.
                { "city": MOSCOW, "day": "2026-10-01", "incoming": 2, "answered": 1, "missed": 1, "missed_ratio": 0.5,
                  "mean_answer_wait_s": 5.0, "mean_talk_s": 50.0, "requests_created": 0, "deduplicated": 0,
                  "request_ratio": 0.0, "requests_finished": 0, "requests_done": 0, "conversion": null },
                // ad2, which created r2, refused.
                { "city": NOVOSIBIRSK, "day": "2026-10-01", "incoming": 1, "answered": 0, "missed": 1, "missed_ratio": 1.0,
                  "mean_answer_wait_s": null, "mean_talk_s": null, "requests_created": 1, "deduplicated": 0,
                  "request_ratio": 1.0, "requests_finished": 1, "requests_done": 0, "conversion": 0.0 },
                // ad1, which created r1, done; ad3, which joined it; ad4, which is not over. (10 + 20) ÷ 2, (100 + 200) ÷ 2.
                { "city": NOVOSIBIRSK, "day": "2026-10-02", "incoming": 3, "answered": 2, "missed": 0, "missed_ratio": 0.0,
                  "mean_answer_wait_s": 15.0, "mean_talk_s": 150.0, "requests_created": 1, "deduplicated": 1,
                  "request_ratio": 0.3333, "requests_finished": 1, "requests_done": 1, "conversion": 1.0 },
            ],
            // (10 + 20 + 5) ÷ 3 and (100 + 200 + 50) ÷ 3: of all calls, not of the rows' means.
            "totals": { "incoming": 6, "answered": 3, "missed": 2, "missed_ratio": 0.4, "mean_answer_wait_s": 11.7,
                        "mean_talk_s": 116.7, "requests_created": 2, "deduplicated": 1, "request_ratio": 0.3333,
                        "requests_finished": 2, "requests_done": 1, "conversion": 0.5 },
        })
    );
    // The 25-hour day holds the two calls in its first and last microsecond, and no others; the 23-hour day too.
    for (query, days) in [
        ("from=2026-10-24&to=2026-10-26&city=berlin", [("2026-10-24", 1), ("2026-10-25", 2), ("2026-10-26", 1)]),
        ("from=2026-03-28&to=2026-03-30&city=berlin", [("2026-03-28", 1), ("2026-03-29", 2), ("2026-03-30", 1)]),
    ] {
        let report = read(&admin, "call-centre", query).await;
        for (day, incoming) in days {
            assert_eq!(row(&report, "day", day)["incoming"], incoming, "{day}");
        }
        assert_eq!(report["totals"]["incoming"], 4);
        let (day, query) = (days[1].0, format!("from={0}&to={0}&city=berlin", days[1].0));
        assert_eq!(read(&admin, "call-centre", &query).await["totals"]["incoming"], 2, "{day} alone");
    }
    // Nothing is known of other days, and nothing is claimed.
    let empty = read(&admin, "call-centre", "from=2020-01-01&to=2020-12-31").await;
    assert_eq!(empty["rows"], json!([]));
    let totals = &empty["totals"];
    assert_eq!(totals["incoming"], 0);
    for unknown in ["missed_ratio", "mean_answer_wait_s", "mean_talk_s", "request_ratio", "conversion"] {
        assert_eq!(totals[unknown], Value::Null, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cities_are_reported_to_the_last_microsecond() {
    let fixture = Fixture::new().await;
    let admin = fixture.admin().await;
    let report = read(&admin, "cities", OCTOBER).await;
    let nothing = |city: &str| {
        json!({ "city": city, "created": 0, "open": 0, "done": 0, "refused": 0, "not_order": 0, "conversion": null,
                "mean_first_response_s": null, "mean_processing_s": null, "median_processing_s": null,
                "revenue": "0.00", "refunds": "0.00", "average_ticket": null, "handover": "0.00" })
    };
    assert_eq!(
        report["rows"],
        json!([
            nothing(BERLIN),
            nothing(KAZAN),
            // Created: r5 alone; r4 is of September, r3 deleted. Done: r4 alone, after 31 days; r5 is of November.
            { "city": MOSCOW, "created": 1, "open": 0, "done": 1, "refused": 0, "not_order": 0, "conversion": 1.0,
              "mean_first_response_s": null, "mean_processing_s": 2_678_400.0, "median_processing_s": 2_678_400.0,
              "revenue": "1500.00", "refunds": "0.00", "average_ticket": "3000.00", "handover": "1500.00" },
            // Created: r1, r2, r6, r7, r9, r10, r11; r6 is open. Done: r1, r9, r10, 3 of 6. First response: (90 + 30 + 60) ÷ 3.
            // Processing: 86400, 3600 and 7200. Revenue: 2000 + 700 + 500 + 300. Ticket: (5000 + 1000 + 600) ÷ 3.
            { "city": NOVOSIBIRSK, "created": 7, "open": 1, "done": 3, "refused": 2, "not_order": 1, "conversion": 0.5,
              "mean_first_response_s": 60.0, "mean_processing_s": 32_400.0, "median_processing_s": 7_200.0,
              "revenue": "3500.00", "refunds": "700.00", "average_ticket": "2200.00", "handover": "2800.00" },
        ])
    );
    assert_eq!(
        report["totals"],
        // 4 of 7; (86400 + 3600 + 7200 + 2678400) ÷ 4; the median of four is between 7200 and 86400; 9600 ÷ 4.
        json!({ "created": 8, "open": 1, "done": 4, "refused": 2, "not_order": 1, "conversion": 0.5714,
                "mean_first_response_s": 60.0, "mean_processing_s": 693_900.0, "median_processing_s": 46_800.0,
                "revenue": "5000.00", "refunds": "700.00", "average_ticket": "2400.00", "handover": "4300.00" })
    );
    // Money on its own day: r6 was booked on the 10th and taken back on the 13th, Novosibirsk time. The expense of
    // the 5th and its reversal are no business of these columns.
    for (day, revenue, refunds) in [
        ("2026-10-05", "0.00", "0.00"),
        ("2026-10-06", "0.00", "0.00"),
        ("2026-10-10", "700.00", "0.00"),
        ("2026-10-12", "0.00", "0.00"),
        ("2026-10-13", "0.00", "700.00"),
    ] {
        let report = read(&admin, "cities", &format!("from={day}&to={day}&city=novosibirsk")).await;
        assert_eq!(
            (&report["totals"]["revenue"], &report["totals"]["refunds"]),
            (&json!(revenue), &json!(refunds)),
            "{day}"
        );
    }
    // A day of November has r5, and October's last does not.
    for (day, done) in [("2026-10-31", 1), ("2026-11-01", 1)] {
        let report = read(&admin, "cities", &format!("from={day}&to={day}&city=moscow")).await;
        assert_eq!(report["totals"]["done"], done, "{day}");
    }
    let ticket = &read(&admin, "cities", "from=2026-11-01&to=2026-11-01").await["totals"]["average_ticket"];
    assert_eq!(ticket, "9999.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_and_campaigns_are_reported_by_what_was_theirs() {
    let fixture = Fixture::new().await;
    let admin = fixture.admin().await;
    let [first, second, third] = [fixture.masters[0].id, fixture.masters[1].id, fixture.masters[2].id];
    let report = read(&admin, "masters", OCTOBER).await;
    let expected = [
        // Offered r1, r6, r9, r10; done r1, r9, r10; refused r11. Worked 7200 s on r1 and 1800 s on r9; of r10 nobody knows.
        json!({ "master_id": first, "name": "Anton", "assigned": 4, "done": 3, "refused": 1, "conversion": 0.75,
                "result": "6600.00", "net": "5600.00", "handover": "2800.00", "average_ticket": "2200.00", "mean_work_s": 4500.0 }),
        json!({ "master_id": second, "name": "=1+1,\"x\"", "assigned": 1, "done": 0, "refused": 0, "conversion": null,
                "result": "0.00", "net": "0.00", "handover": "0.00", "average_ticket": null, "mean_work_s": null }),
        json!({ "master_id": third, "name": "Maxim", "assigned": 1, "done": 1, "refused": 0, "conversion": 1.0,
                "result": "3000.00", "net": "3000.00", "handover": "1500.00", "average_ticket": "3000.00", "mean_work_s": null }),
    ];
    for master in &expected {
        assert_eq!(row(&report, "master_id", master["master_id"].clone()), master);
    }
    assert_eq!(report["rows"].as_array().unwrap().len(), 3);
    assert_eq!(
        report["totals"],
        json!({ "assigned": 6, "done": 4, "refused": 1, "conversion": 0.8, "result": "9600.00", "net": "8600.00",
                "handover": "4300.00", "average_ticket": "2400.00", "mean_work_s": 4500.0 })
    );

    let report = read(&admin, "campaigns", OCTOBER).await;
    assert_eq!(
        report,
        json!({
            "from": "2026-10-01", "to": "2026-10-31",
            "rows": [
                { "city": KAZAN, "campaign": "kazan_ads", "calls": 0, "requests": 0, "done": 0, "finished": 0,
                  "conversion": null, "revenue": "0.00", "refunds": "0.00" },
                // ad5, r5; what r5 brought is of November.
                { "city": MOSCOW, "campaign": "moscow_ads", "calls": 1, "requests": 1, "done": 0, "finished": 0,
                  "conversion": null, "revenue": "0.00", "refunds": "0.00" },
                // ad1 to ad4; r1, r2, r6; r1 done and r2 refused; 2000 + 700.
                { "city": NOVOSIBIRSK, "campaign": "novosibirsk_ads", "calls": 4, "requests": 3, "done": 1, "finished": 2,
                  "conversion": 0.5, "revenue": "2700.00", "refunds": "700.00" },
            ],
            "totals": { "calls": 5, "requests": 4, "done": 1, "finished": 2, "conversion": 0.5, "revenue": "2700.00",
                        "refunds": "700.00" },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_their_own_part_of_a_report() {
    let fixture = Fixture::new().await;
    let app = &fixture.app;
    for role in [Role::Director, Role::Manager] {
        let boss = app.actor(role, &[MOSCOW]).await;
        for (report, field, name) in [
            ("call-centre", "city", json!(MOSCOW)),
            ("cities", "city", json!(MOSCOW)),
            ("masters", "master_id", json!(fixture.masters[2].id)),
            ("campaigns", "city", json!(MOSCOW)),
        ] {
            let report = read(&boss, report, OCTOBER).await;
            assert_eq!(report["rows"].as_array().unwrap().len(), 1, "{report}");
            assert_eq!(report["rows"][0][field], name);
            // The totals are those of what one sees.
            let mut visible = report["rows"][0].clone();
            visible.as_object_mut().unwrap().retain(|name, _| report["totals"].get(name).is_some());
            assert_eq!(report["totals"], visible);
        }
        // Another's city is as empty as one that does not exist.
        for city in [NOVOSIBIRSK, "atlantis"] {
            let report = read(&boss, "cities", &format!("{OCTOBER}&city={city}")).await;
            assert_eq!((&report["rows"], &report["totals"]["created"]), (&json!([]), &json!(0)));
        }
    }
    for role in [Role::Marketer, Role::Operator] {
        let actor = app.actor(role, &[NOVOSIBIRSK]).await;
        assert_eq!(read(&actor, "call-centre", OCTOBER).await["totals"]["incoming"], 4);
        for report in ["cities", "masters", "campaigns", "cities.csv", "masters.csv", "campaigns.csv"] {
            actor.get(&format!("/api/v1/reports/{report}?{OCTOBER}")).await.problem(403, "forbidden");
        }
    }
    let master = &fixture.masters[0];
    for report in ["call-centre", "call-centre.csv"] {
        master.get(&format!("/api/v1/reports/{report}?{OCTOBER}")).await.problem(403, "forbidden");
    }
    // r1, r6, r9, r10, r11; the first response of r1 alone is known.
    let mine = read(master, "cities", OCTOBER).await;
    assert_eq!(
        mine["rows"],
        json!([{ "city": NOVOSIBIRSK, "created": 5, "open": 1, "done": 3, "refused": 1, "not_order": 0, "conversion": 0.75,
                 "mean_first_response_s": 90.0, "mean_processing_s": 32_400.0, "median_processing_s": 7_200.0,
                 "revenue": "3500.00", "refunds": "700.00", "average_ticket": "2200.00", "handover": "2800.00" }])
    );
    let mine = read(master, "masters", OCTOBER).await;
    assert_eq!(mine["rows"].as_array().unwrap().len(), 1);
    assert_eq!((&mine["rows"][0]["name"], &mine["totals"]["assigned"]), (&json!("Anton"), &json!(4)));
    // r1 and r6. Calls are not for masters.
    let mine = read(master, "campaigns", OCTOBER).await;
    assert_eq!(
        mine["rows"],
        json!([{ "city": NOVOSIBIRSK, "campaign": "novosibirsk_ads", "calls": null, "requests": 2, "done": 1, "finished": 1,
                 "conversion": 1.0, "revenue": "2700.00", "refunds": "700.00" }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_figures_come_as_a_file() {
    let fixture = Fixture::new().await;
    let admin = fixture.admin().await;
    let [first, second, third] = [fixture.masters[0].id, fixture.masters[1].id, fixture.masters[2].id];
    let files = [
        (
            "call-centre",
            "city,day,incoming,answered,missed,missed_ratio,mean_answer_wait_s,mean_talk_s,requests_created,deduplicated,\
             request_ratio,requests_finished,requests_done,conversion\r\n\
             moscow,2026-10-01,2,1,1,0.5,5.0,50.0,0,0,0.0,0,0,\r\n\
             novosibirsk,2026-10-01,1,0,1,1.0,,,1,0,1.0,1,0,0.0\r\n\
             novosibirsk,2026-10-02,3,2,0,0.0,15.0,150.0,1,1,0.3333,1,1,1.0\r\n\
             berlin,2026-10-24,1,0,1,1.0,,,0,0,0.0,0,0,\r\n\
             berlin,2026-10-25,2,0,2,1.0,,,0,0,0.0,0,0,\r\n\
             berlin,2026-10-26,1,0,1,1.0,,,0,0,0.0,0,0,\r\n"
                .to_owned(),
        ),
        (
            "cities",
            "city,created,open,done,refused,not_order,conversion,mean_first_response_s,mean_processing_s,median_processing_s,\
             revenue,refunds,average_ticket,handover\r\n\
             berlin,0,0,0,0,0,,,,,0.00,0.00,,0.00\r\n\
             kazan,0,0,0,0,0,,,,,0.00,0.00,,0.00\r\n\
             moscow,1,0,1,0,0,1.0,,2678400.0,2678400.0,1500.00,0.00,3000.00,1500.00\r\n\
             novosibirsk,7,1,3,2,1,0.5,60.0,32400.0,7200.0,3500.00,700.00,2200.00,2800.00\r\n"
                .to_owned(),
        ),
        (
            "masters",
            // The second one's name begins with an apostrophe now: it is text.
            format!(
                "master_id,name,assigned,done,refused,conversion,result,net,handover,average_ticket,mean_work_s\r\n\
                 {second},\"'=1+1,\"\"x\"\"\",1,0,0,,0.00,0.00,0.00,,\r\n\
                 {first},Anton,4,3,1,0.75,6600.00,5600.00,2800.00,2200.00,4500.0\r\n\
                 {third},Maxim,1,1,0,1.0,3000.00,3000.00,1500.00,3000.00,\r\n"
            ),
        ),
        (
            "campaigns",
            "city,campaign,calls,requests,done,finished,conversion,revenue,refunds\r\n\
             kazan,kazan_ads,0,0,0,0,,0.00,0.00\r\n\
             moscow,moscow_ads,1,1,0,0,,0.00,0.00\r\n\
             novosibirsk,novosibirsk_ads,4,3,1,2,0.5,2700.00,700.00\r\n"
                .to_owned(),
        ),
    ];
    for (report, expected) in files {
        let answer = admin.get(&format!("/api/v1/reports/{report}.csv?{OCTOBER}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
        let name = format!("attachment; filename=\"{report}_2026-10-01_2026-10-31.csv\"");
        assert_eq!(answer.header("content-disposition"), name);
        assert_eq!(answer.text, format!("\u{feff}{expected}"), "{report}");
        let header = expected.split_inclusive("\r\n").next().unwrap();
        let empty = admin.get(&format!("/api/v1/reports/{report}.csv?{OCTOBER}&city=atlantis")).await;
        assert_eq!(empty.text, format!("\u{feff}{header}"));
    }
    // A year comes month by month, each day once.
    let year = admin.get("/api/v1/reports/call-centre.csv?from=2026-01-01&to=2026-12-31").await;
    let days: Vec<&str> = year.text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    let expected = ["2026-03-28", "2026-03-29", "2026-03-30", "2026-10-01", "2026-10-01", "2026-10-02"];
    assert_eq!(days[..6], expected);
    assert_eq!(days[6..], ["2026-10-24", "2026-10-25", "2026-10-26"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_none_is_named() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    for report in ["call-centre", "cities", "masters", "campaigns"] {
        for path in [report.to_owned(), format!("{report}.csv")] {
            for (query, pointers) in [
                ("", vec!["from", "to"]),
                ("from=2026-10-01", vec!["to"]),
                ("from=2026-10-02&to=2026-10-01", vec!["to"]),
                ("from=2025-01-01&to=2026-01-02", vec!["to"]),
                ("from=2026-02-30&to=2026-03-01", vec!["from"]),
                ("from=1999-01-01&to=1999-01-02", vec!["from", "to"]),
                ("from=2026-10-01&to=2026-10-02&town=x", vec!["town"]),
                ("from=2026-10-01&to=2026-10-02&city=", vec!["city"]),
                ("from=2026-10-01&to=2026-10-02&city=%00", vec!["city"]),
            ] {
                let problem = admin.get(&format!("/api/v1/reports/{path}?{query}")).await.problem(422, "invalid");
                let named: Vec<&str> = problem["errors"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|error| error["pointer"].as_str().unwrap())
                    .collect();
                assert_eq!(named, pointers, "{path}?{query}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_few_at_a_time_and_have_more_time_than_others() {
    let app = TestApp::start().await;
    let admin = app.actor(Role::Admin, &[]).await;
    let path = format!("/api/v1/reports/cities?{OCTOBER}");
    let turns = app.app.report_turns.acquire_many(3).await.unwrap();
    let busy = admin.get(&path).await;
    assert_eq!(busy.header("retry-after"), "1");
    busy.problem(503, "overloaded");
    admin.get("/api/v1/requests").await.expect(200);
    drop(turns);
    admin.get(&path).await.expect(200);
    assert_eq!(app.app.report_turns.available_permits(), 3, "what was taken was given back");

    let limit = async |db: &mut Conn| -> String {
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(db.parts().0).await.unwrap()
    };
    let mut long = app.app.db.begin_long().await.unwrap();
    assert_eq!(limit(&mut long).await, "9s");
    drop(long);
    assert_eq!(limit(&mut app.app.db.acquire().await.unwrap()).await, "3s", "the connection is as it was");
}
