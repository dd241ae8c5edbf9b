//! What an operation needs in order to succeed: something to act on, in a city of the caller's or
//! elsewhere, and a body.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use switchboard::{auth::Role, reports::collector::collect};

use super::Operation;
use crate::support::{
    KAZAN, MOSCOW, PASSWORD, TestApp,
    actor::{Actor, Answer, number},
    config,
    files::{FORM, photo, png},
    morning,
};

/// The city of the people who ask.
pub const HOME: &str = MOSCOW;

/// Where something is, seen from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In their city; for a master, their own.
    Theirs,
    /// In another city, and another master's.
    Elsewhere,
    /// It has never been there.
    Nowhere,
}

/// Operations about one thing that is everybody's.
pub const PLACELESS: &[&str] = &[
    "/api/v1/users/administrators/",
    "/api/v1/dictionaries/cities/",
    "/api/v1/dictionaries/request-types/",
    "/api/v1/dictionaries/directions/",
    "/api/v1/dictionaries/transaction-types/",
    "/api/v1/sla/policies/",
];

/// Lists, and the operation on one of what they list.
pub const LISTS: &[(&str, &str)] = &[
    ("/api/v1/requests", "/api/v1/requests/{id}"),
    ("/api/v1/calls", "/api/v1/calls/{id}"),
    ("/api/v1/users/masters", "/api/v1/users/masters/{id}"),
    ("/api/v1/users/employees", "/api/v1/users/employees/{id}"),
    ("/api/v1/dictionaries/campaigns", "/api/v1/dictionaries/campaigns/{id}"),
    ("/api/v1/transactions", "/api/v1/transactions/{id}"),
];

/// What is asked: the path, and the body of a JSON request.
pub type Question = (String, Option<Value>);

pub struct World {
    pub app: TestApp,
    pub actors: Vec<(Role, Actor)>,
    /// Masters of both cities.
    masters: [i64; 2],
}

impl World {
    pub async fn new() -> Self {
        let mut config = config();
        // One person asks here what a hundred would.
        config.limits.user = "100000/s".parse().unwrap();
        config.limits.ip = "100000/s".parse().unwrap();
        let app = TestApp::start_with(config).await;
        let mut actors = Vec::new();
        for role in Role::ALL {
            actors.push((*role, app.actor(*role, &[HOME]).await));
        }
        let own_master = actors.iter().find(|(role, _)| *role == Role::Master).unwrap().1.id;
        let masters = [own_master, app.actor(Role::Master, &[KAZAN]).await.id];
        // Live events and business metrics come from workers.
        app.tail();
        collect(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
        Self { app, actors, masters }
    }

    fn admin(&self) -> &Actor {
        &self.actors[0].1
    }

    fn city(place: Place) -> &'static str {
        if place == Place::Theirs { HOME } else { KAZAN }
    }

    fn master(&self, place: Place) -> i64 {
        self.masters[usize::from(place != Place::Theirs)]
    }

    async fn create(&self, path: &str, body: Value) -> i64 {
        self.admin().post(path, body).await.expect(201)["id"].as_i64().unwrap()
    }

    /// A service request on which `role` could make this very move, if it may and if it is theirs.
    async fn request(&self, path: &str, role: Role, place: Place) -> i64 {
        let (city, phone) = (Self::city(place), format!("+7916{:07}", number()));
        if role == Role::Master {
            let id = self.admin().waiting_request(city, &phone).await;
            self.admin().assign(id, self.master(place)).await.expect(200);
            id
        } else if path.ends_with("/assign") {
            self.admin().waiting_request(city, &phone).await
        } else {
            self.admin().create_request(city, &phone).await["id"].as_i64().unwrap()
        }
    }

    async fn call(&self, place: Place) -> i64 {
        let sql = format!(
            "INSERT INTO calls (provider, call_key, direction, city_id, received_at)
             SELECT 'mango', 'call{}', 'incoming', id, now() FROM cities WHERE code = '{}' RETURNING id",
            number(),
            Self::city(place)
        );
        self.app.database.count(&sql).await
    }

    async fn person(&self, kind: &str, place: Place) -> i64 {
        let login = format!("somebody{}", number());
        let mut body = json!({ "login": login, "name": "Somebody", "password": "a long sentence is best" });
        match kind {
            "masters" => {
                body["cities"] = json!([Self::city(place)]);
                body["share"] = json!("0.5");
            }
            "employees" => {
                body["cities"] = json!([Self::city(place)]);
                body["role"] = json!("operator");
            }
            _ => {}
        }
        self.create(&format!("/api/v1/users/{kind}"), body).await
    }

    /// An entry of the ledger, the master's of that place.
    async fn transaction(&self, place: Place) -> i64 {
        let body =
            json!({ "type": "expense", "city": Self::city(place), "amount": "10.00", "master_id": self.master(place) });
        self.create("/api/v1/transactions", body).await
    }

    /// An upload of a picture.
    fn upload(request: RequestBuilder) -> RequestBuilder {
        request.header("content-type", FORM).body(photo(&png(100)))
    }

    /// A recording of a call, as the worker leaves it.
    async fn recording(&self, call: i64) {
        let mut writer = self.app.app.storage.create("recordings", morning()).await.unwrap();
        writer.write(vec![b'a'; 100].into()).await.unwrap();
        let mut stored = writer.finish().await.unwrap();
        stored.keep();
        let sql = format!(
            "INSERT INTO recordings (provider, call_key, recording_id, status, next_attempt_at, at, object, mime, bytes, sha256)
             SELECT provider, call_key, call_key, 'stored', now(), now(), '{}', 'audio/mpeg', {}, '{}' FROM calls WHERE id = {call}",
            stored.object, stored.bytes, stored.sha256
        );
        self.app.database.execute(&sql).await;
    }

    async fn file(&self, role: Role, place: Place) -> i64 {
        let request = self.request("", role, place).await;
        let admin = self.admin();
        let upload = Self::upload(admin.request(Method::POST, &format!("/api/v1/requests/{request}/files")));
        admin.send(upload).await.expect(201)["id"].as_i64().unwrap()
    }

    /// The id of something that `operation` is about.
    pub async fn id(&self, operation: &Operation, role: Role, actor: &Actor, place: Place) -> i64 {
        if place == Place::Nowhere {
            return 999_999_999;
        }
        let parts: Vec<&str> = operation.path.trim_start_matches("/api/v1/").split('/').collect();
        match *parts.as_slice() {
            ["requests", ..] => self.request(&operation.path, role, place).await,
            ["calls", .., "recording"] => {
                let call = self.call(place).await;
                self.recording(call).await;
                call
            }
            ["calls", ..] => self.call(place).await,
            ["users", "masters", ..] if role == Role::Master && place == Place::Theirs => actor.id,
            ["users", kind, ..] => self.person(kind, place).await,
            ["transactions", ..] => self.transaction(place).await,
            ["files", ..] => self.file(role, place).await,
            ["dictionaries", "campaigns", ..] => {
                let code = format!("campaign_{}", number());
                let body = json!({ "code": code, "name": "Radio", "city": Self::city(place) });
                self.create("/api/v1/dictionaries/campaigns", body).await
            }
            ["dictionaries", kind, ..] => {
                let mut body = json!({ "code": format!("entry_{}", number()), "name_ru": "Новое", "name_en": "New" });
                match kind {
                    "cities" => body["timezone"] = json!("Europe/Moscow"),
                    "transaction-types" => body["sign"] = json!(-1),
                    _ => {}
                }
                self.create(&format!("/api/v1/dictionaries/{kind}"), body).await
            }
            ["sla", ..] => 1,
            _ => panic!("what is {operation:?} about?"),
        }
    }

    /// How to ask for `operation`, about something of that place.
    pub async fn question(&self, operation: &Operation, role: Role, actor: &Actor, place: Place) -> Question {
        let path = operation.path.as_str();
        let id = if path.contains("{id}") { self.id(operation, role, actor, place).await } else { 0 };
        let mut target = path.replace("{id}", &id.to_string());
        if path.contains("{number_id}") {
            let phone = format!("+7495{:07}", number());
            let numbers = format!("/api/v1/dictionaries/campaigns/{id}/numbers");
            let added = if place == Place::Nowhere {
                json!({ "id": 1 })
            } else {
                self.admin().post(&numbers, json!({ "phone": phone })).await.expect(201)
            };
            let number_id = added["numbers"][0]["id"].as_i64().or(added["id"].as_i64()).unwrap();
            target = target.replace("{number_id}", &number_id.to_string());
        }
        if path.contains("/reports/") {
            target += "?from=2026-06-01&to=2026-06-30";
        }
        let body = match (operation.method.as_str(), path.trim_start_matches("/api/v1/")) {
            ("GET" | "DELETE", _) | ("POST", "auth/logout" | "auth/logout-all") => None,
            ("POST", "auth/password") => Some(json!({ "current": PASSWORD, "new": PASSWORD.to_owned() + "!" })),
            ("POST", "requests") => Some(json!({ "city": HOME, "phone": format!("+7916{:07}", number()) })),
            ("PATCH", "requests/{id}") => Some(json!({ "description": "The tap drips." })),
            ("POST", "requests/{id}/assign") => Some(json!({ "master_id": self.master(place) })),
            ("POST", "requests/{id}/transitions") if role == Role::Master => Some(json!({ "to": "accepted" })),
            ("POST", "requests/{id}/transitions") => Some(json!({ "to": "no_answer" })),
            ("POST", "requests/{id}/comments") => Some(json!({ "body": "The dog bites." })),
            ("POST", "calls/{id}/link") => {
                // A place without a city would be everybody's; a request that is nowhere, too.
                let of = if place == Place::Nowhere { Place::Theirs } else { place };
                Some(json!({ "request_id": self.request("", Role::Operator, of).await }))
            }
            ("POST", "transactions") => Some(json!({ "type": "expense", "city": HOME, "amount": "10.00" })),
            ("POST", "transactions/{id}/reverse") => Some(json!({ "reason": "Booked twice." })),
            ("POST", "users/masters") => Some(json!({
                "login": format!("new{}", number()), "name": "New", "password": "a long sentence is best", "cities": [HOME], "share": "0.5"
            })),
            ("POST", "users/employees") => Some(json!({
                "login": format!("new{}", number()), "name": "New", "password": "a long sentence is best", "cities": [HOME], "role": "operator"
            })),
            ("POST", "users/administrators") => Some(
                json!({ "login": format!("new{}", number()), "name": "New", "password": "a long sentence is best" }),
            ),
            ("PATCH", "users/masters/{id}" | "users/employees/{id}" | "users/administrators/{id}") => {
                Some(json!({ "phone": format!("+7916{:07}", number()) }))
            }
            ("POST", "dictionaries/campaigns") => {
                Some(json!({ "code": format!("new_{}", number()), "name": "Radio", "city": HOME }))
            }
            ("POST", "dictionaries/campaigns/{id}/numbers") => {
                Some(json!({ "phone": format!("+7495{:07}", number()) }))
            }
            ("PATCH", "dictionaries/campaigns/{id}") => Some(json!({ "name": "Television" })),
            ("POST", "dictionaries/cities") => Some(json!({
                "code": format!("new_{}", number()), "name_ru": "Омск", "name_en": "Omsk", "timezone": "Asia/Omsk"
            })),
            ("POST", "dictionaries/transaction-types") => Some(json!({
                "code": format!("new_{}", number()), "name_ru": "Аренда", "name_en": "Rent", "sign": -1
            })),
            ("POST", path) if path.starts_with("dictionaries/") => {
                Some(json!({ "code": format!("new_{}", number()), "name_ru": "Новое", "name_en": "New" }))
            }
            ("PATCH", path) if path.starts_with("dictionaries/") => Some(json!({ "name_en": "Renamed" })),
            ("POST", "security/unlock") => Some(json!({ "login": self.admin().login })),
            ("PATCH" | "PUT", "sla/policies/{id}") => Some(json!({ "target_s": 1200 })),
            // A form: `attempt` sends it.
            ("POST", "requests/{id}/files" | "transactions/{id}/files") => None,
            _ => panic!("what does {operation:?} take?"),
        };
        (target, body)
    }

    /// Does `operation` as well as it can be done, about something of that place.
    pub async fn attempt(&self, operation: &Operation, role: Role, actor: &Actor, place: Place) -> Answer {
        self.ask(operation, actor, self.question(operation, role, actor, place).await).await
    }

    /// A question that was prepared, as `actor` asks it.
    pub fn put(operation: &Operation, actor: &Actor, (path, body): &Question) -> RequestBuilder {
        let request = actor.request(operation.method.clone(), path).header("if-match", "*");
        match body {
            Some(body) => request.json(body),
            None if path.ends_with("/files") && operation.method == Method::POST => Self::upload(request),
            None => request,
        }
    }

    /// Asks a question that was prepared.
    pub async fn ask(&self, operation: &Operation, actor: &Actor, question: Question) -> Answer {
        let request = Self::put(operation, actor, &question);
        if operation.path == "/api/v1/events" { actor.head(request).await } else { actor.send(request).await }
    }
}
