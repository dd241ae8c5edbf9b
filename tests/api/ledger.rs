//! Whatever people do, and however many of them at once: the balance is what the histories of the
//! service requests and the accepted bookings say.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use futures_util::future::join_all;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use switchboard::auth::Role;

use crate::support::{KAZAN, MOSCOW, TestApp, actor::Actor, config};

const TRANSACTIONS: &str = "/api/v1/transactions";
/// Requests that the hands of one case fight for.
const REQUESTS: usize = 3;

#[derive(Clone, Debug)]
enum Deed {
    Close { request: Index, result: i64, expenses: i64 },
    Reopen { request: Index },
    Book { kind: &'static str, city: &'static str, kopecks: i64, of_master: bool, of_request: Option<Index> },
    Reverse { entry: Index },
}

fn deed() -> impl Strategy<Value = Deed> {
    let book = (
        prop_oneof![Just("income"), Just("expense")],
        prop_oneof![Just(MOSCOW), Just(KAZAN)],
        1..1_000_000_i64,
        any::<bool>(),
        proptest::option::of(any::<Index>()),
    );
    prop_oneof![
        3 => (any::<Index>(), 0..1_000_000_i64, 0..1_000_000_i64)
            .prop_map(|(request, net, expenses)| Deed::Close { request, result: net + expenses, expenses }),
        2 => any::<Index>().prop_map(|request| Deed::Reopen { request }),
        2 => book.prop_map(|(kind, city, kopecks, of_master, of_request)| Deed::Book { kind, city, kopecks, of_master, of_request }),
        2 => any::<Index>().prop_map(|entry| Deed::Reverse { entry }),
    ]
}

/// What several hands do, each one after the other.
fn hands() -> impl Strategy<Value = Vec<Vec<Deed>>> {
    proptest::collection::vec(proptest::collection::vec(deed(), 6..14), 1..4)
}

fn rubles(kopecks: i64) -> String {
    Decimal::new(kopecks, 2).to_string()
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().map_or(Decimal::ZERO, |text| text.parse().unwrap())
}

/// Everything that was accepted, apart from what histories tell.
#[derive(Default)]
struct Accepted {
    by_city: BTreeMap<String, Decimal>,
    by_master: BTreeMap<Option<i64>, Decimal>,
    closed: usize,
    reopened: usize,
    reversed: usize,
    refused: usize,
}

impl Accepted {
    fn add(&mut self, city: &str, master: Option<i64>, amount: Decimal) {
        *self.by_city.entry(city.to_owned()).or_default() += amount;
        *self.by_master.entry(master).or_default() += amount;
    }
}

struct World {
    app: TestApp,
    admin: Actor,
    masters: [(&'static str, i64); 2],
    /// City, master, number.
    requests: Mutex<Vec<(&'static str, i64, i64)>>,
    accepted: Mutex<Accepted>,
}

impl World {
    async fn start() -> Self {
        let mut config = config();
        // Who waits for a row must not run out of time: that would be another test.
        config.database.query_timeout_ms = 30_000;
        config.database.acquire_timeout_ms = 10_000;
        let app = TestApp::start_with(config).await;
        let (admin, here) = (app.actor(Role::Admin, &[]).await, app.actor(Role::Master, &[MOSCOW]).await);
        let there = app.actor(Role::Master, &[KAZAN]).await;
        let masters = [(MOSCOW, here.id), (KAZAN, there.id)];
        Self { app, admin, masters, requests: Mutex::default(), accepted: Mutex::default() }
    }

    fn accepted(&self) -> std::sync::MutexGuard<'_, Accepted> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn master_of(&self, city: &str) -> i64 {
        self.masters.iter().find(|(of, _)| *of == city).unwrap().1
    }

    /// Requests that are being worked on.
    async fn open_requests(&self) -> Vec<(&'static str, i64, i64)> {
        let mut opened = Vec::new();
        for n in 0..REQUESTS {
            let (city, master) = self.masters[n % 2];
            let id = self.admin.waiting_request(city, &format!("+7916123456{n}")).await;
            self.admin.assign(id, master).await.expect(200);
            for to in ["accepted", "en_route", "in_progress"] {
                self.admin.move_to(id, json!({ "to": to })).await.expect(200);
            }
            opened.push((city, master, id));
        }
        self.requests.lock().unwrap().extend(&opened);
        opened
    }

    async fn act(&self, deed: &Deed, requests: &[(&'static str, i64, i64)]) {
        match deed {
            Deed::Close { request, result, expenses } => {
                let body = json!({ "to": "done", "result": rubles(*result), "expenses": rubles(*expenses) });
                self.count_move(request.get(requests).2, body, |accepted| accepted.closed += 1).await;
            }
            Deed::Reopen { request } => {
                let body = json!({ "to": "in_progress", "reason": "it drips" });
                self.count_move(request.get(requests).2, body, |accepted| accepted.reopened += 1).await;
            }
            Deed::Book { kind, city, kopecks, of_master, of_request } => {
                let master = of_master.then(|| self.master_of(city));
                let here: Vec<i64> = requests.iter().filter(|(of, ..)| of == city).map(|(.., id)| *id).collect();
                let request = of_request.map(|request| *request.get(&here));
                let body = json!({
                    "type": kind, "city": city, "amount": rubles(*kopecks), "master_id": master, "request_id": request,
                });
                self.admin.post(TRANSACTIONS, body).await.expect(201);
                let sign = if *kind == "income" { 1 } else { -1 };
                self.accepted().add(city, master, Decimal::new(sign * kopecks, 2));
            }
            Deed::Reverse { entry } => {
                let entries = self.admin.all(&format!("{TRANSACTIONS}?limit=200")).await;
                if entries.is_empty() {
                    return;
                }
                let entry = entry.get(&entries);
                let path = format!("{TRANSACTIONS}/{}/reverse", entry["id"]);
                let answer = self.admin.post(&path, json!({ "reason": "a mistake" })).await;
                let mut accepted = self.accepted();
                if answer.status == 201 {
                    assert_eq!((&entry["automatic"], &entry["reverses_id"]), (&json!(false), &Value::Null));
                    accepted.reversed += 1;
                    let master = entry["master_id"].as_i64();
                    accepted.add(entry["city"].as_str().unwrap(), master, -decimal(&entry["amount"]));
                } else {
                    answer.problem(409, "conflict");
                    accepted.refused += 1;
                }
            }
        }
    }

    async fn count_move(&self, id: i64, body: Value, count: impl Fn(&mut Accepted)) {
        let answer = self.admin.move_to(id, body).await;
        let mut accepted = self.accepted();
        if answer.status == 200 {
            count(&mut accepted);
        } else {
            answer.problem(409, "transition_not_allowed");
            accepted.refused += 1;
        }
    }

    /// What the balance must be, by city and by master.
    async fn expected(&self) -> (BTreeMap<String, Decimal>, BTreeMap<Option<i64>, Decimal>) {
        let requests = self.requests.lock().unwrap().clone();
        let (mut by_city, mut by_master) = {
            let accepted = self.accepted();
            (accepted.by_city.clone(), accepted.by_master.clone())
        };
        for (city, master, id) in requests {
            let history = self.admin.all(&format!("/api/v1/requests/{id}/history?limit=200")).await;
            let earned: Decimal = history
                .iter()
                .map(|event| &event["diff"]["handover"])
                .map(|of| decimal(&of[1]) - decimal(&of[0]))
                .sum();
            *by_city.entry(city.to_owned()).or_default() += earned;
            *by_master.entry(Some(master)).or_default() += earned;
        }
        (by_city, by_master)
    }

    async fn check(&self) {
        let (by_city, by_master) = self.expected().await;
        let rows = async |by: &str| {
            let balance = self.admin.get(&format!("{TRANSACTIONS}/balance?by={by}")).await.expect(200);
            let rows = balance["rows"].as_array().unwrap().clone();
            let sum: Decimal = rows.iter().map(|row| decimal(&row["balance"])).sum();
            assert_eq!(sum, decimal(&balance["balance"]));
            for row in &rows {
                assert_eq!(decimal(&row["income"]) - decimal(&row["expenses"]), decimal(&row["balance"]), "{row}");
            }
            rows
        };
        for row in rows("city").await {
            assert_eq!(decimal(&row["balance"]), by_city[row["city"].as_str().unwrap()], "{row}");
        }
        let masters = rows("master").await;
        for row in &masters {
            assert_eq!(decimal(&row["balance"]), by_master[&row["master_id"].as_i64()], "{row}");
        }
        let listed: Vec<Option<i64>> = masters.iter().map(|row| row["master_id"].as_i64()).collect();
        for (master, balance) in by_master {
            assert!(listed.contains(&master) || balance.is_zero(), "{master:?} is missing");
        }
        // Of the last requests is enough: nobody touches the earlier ones again.
        let requests: Vec<_> = self.requests.lock().unwrap().iter().rev().take(REQUESTS).copied().collect();
        for (_, _, id) in requests {
            let request = self.admin.get(&format!("/api/v1/requests/{id}")).await.expect(200);
            let entries = self.admin.all(&format!("{TRANSACTIONS}?request={id}&limit=200")).await;
            let standing: Vec<&Value> = entries
                .iter()
                .filter(|entry| {
                    entry["automatic"] == true && entry["type"] == "income" && entry["reversed_by"].is_null()
                })
                .collect();
            let expected: Vec<&Value> = Some(&request["handover"]).into_iter().filter(|sum| !sum.is_null()).collect();
            assert_eq!(request["status"] == "done", expected.len() == 1);
            assert_eq!(standing.iter().map(|entry| &entry["amount"]).collect::<Vec<_>>(), expected, "{entries:#?}");
        }
    }
}

#[test]
fn the_balance_is_what_histories_and_bookings_say() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::start());
    let config = Config { cases: 12, max_shrink_iters: 20, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&hands(), |hands| {
            runtime.block_on(async {
                let requests = world.open_requests().await;
                join_all(hands.iter().map(async |deeds| {
                    for deed in deeds {
                        world.act(deed, &requests).await;
                    }
                }))
                .await;
                world.check().await;
            });
            Ok(())
        })
        .unwrap();
    let Accepted { closed, reopened, reversed, refused, .. } = &*world.accepted();
    assert!([closed, reopened, reversed, refused].into_iter().all(|count| *count > 3), "too little happened");
    let standing = "SELECT count(*) FROM transactions t WHERE automatic AND reverses_id IS NULL
                     AND NOT EXISTS (SELECT FROM transactions r WHERE r.reverses_id = t.id)";
    let done = "SELECT count(*) FROM requests WHERE status = 'done'";
    let counts =
        runtime.block_on(async { (world.app.database.count(standing).await, world.app.database.count(done).await) });
    assert_eq!(counts.0, counts.1);
}
