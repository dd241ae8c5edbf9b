//! `/api/v1/reports`: figures worked out by hand for a small October, over the borders of days: of time
//! zones, of daylight saving, to the last microsecond.

mod fixture;

use serde_json::{Value, json};
use switchboard::{auth::Role, db::Conn};

use self::fixture::Fixture;
use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor};

const NOVOSIBIRSK: &str = "novosibirsk";
const BERLIN: &str = "berlin";
const OCTOBER: &str = "from=2026-10-01&to=2026-10-31";

async fn read(actor: &Actor, report: &str, query: &str) -> Value {
    actor.get_anew(&format!("/api/v1/reports/{report}?{query}")).await.expect(200)
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
