//! A small October, as rows of the database.

use serde_json::{Value, json};
use switchboard::auth::Role;

use super::{BERLIN, NOVOSIBIRSK};
use crate::support::{MOSCOW, TestApp, actor::Actor};

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
pub struct Fixture {
    pub app: TestApp,
    /// Two of Novosibirsk and one of Moscow.
    pub masters: [Actor; 3],
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
    pub async fn call(&self, city: &str, key: &str, at: &str, result: &str, seconds: (i64, i64), request: Option<i64>) {
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

    pub async fn event(&self, request: i64, at: &str, to: &str, diff: Value) {
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

    pub async fn offer(&self, request: i64, at: &str, master: i64) {
        self.event(request, at, "offered", json!({ "master_id": [null, master] })).await;
    }

    /// An entry of the ledger; its id.
    pub async fn book(&self, kind: &str, amount: i64, at: &str, request: Option<i64>, reverses: Option<i64>) -> i64 {
        let (request, reverses) = (number(request), number(reverses));
        let sql = format!(
            "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, reverses_id, at)
             SELECT COALESCE(r.city_id, (SELECT id FROM cities WHERE code = '{NOVOSIBIRSK}')), t.id, r.id, r.master_id,
                    {amount}, false, {reverses}, '{at}'
               FROM transaction_types t LEFT JOIN requests r ON r.id = {request} WHERE t.code = '{kind}' RETURNING id"
        );
        self.app.database.count(&sql).await
    }

    pub async fn new() -> Self {
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

    pub async fn admin(&self) -> Actor {
        self.app.actor(Role::Admin, &[]).await
    }
}
