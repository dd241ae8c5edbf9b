//! Requests of all sorts, by their number: the same ones in every run.

use reqwest::Method;
use serde_json::json;
use switchboard::server;

use super::{
    client::Question,
    support::{
        MANGO_SALT, MOSCOW, MOSCOW_LINE, files,
        telephony::{Call, form},
    },
};

/// What the questions are made of.
pub struct Book {
    /// Every operation of the OpenAPI document: its method and its route.
    operations: Vec<(Method, String)>,
    /// Of an administrator, an operator and a master.
    pub tokens: [String; 3],
    /// Service requests that are there.
    pub requests: Vec<i64>,
}

impl Book {
    pub fn new(tokens: [String; 3], requests: Vec<i64>) -> Self {
        let document = serde_json::to_value(server::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &serde_json::Value)| {
            let methods = item.as_object().unwrap().keys();
            let methods = methods.map(|method| method.to_uppercase().parse().unwrap());
            methods.map(|method| (method, path.clone())).collect::<Vec<_>>()
        };
        Self { operations: paths.iter().flat_map(of).collect(), tokens, requests }
    }

    /// The request with this number. Each has one of two hundred addresses, so that the limit on what one address may
    /// ask is not what most are told.
    pub fn question(&self, number: usize) -> Question {
        let (sort, turn) = (number % 25, number / 25);
        let question = match sort {
            0..=7 => self.operation(turn * 8 + sort),
            8..=11 => self.working_day(turn * 4 + sort - 8),
            12 => self.as_admin(
                Question::plain(Method::POST, "/api/v1/requests")
                    .json(&json!({ "city": MOSCOW, "phone": format!("+7916{turn:07}"), "description": "Протекает" })),
            ),
            13 => self.as_admin(
                self.of_request(Method::POST, "/comments", turn).json(&json!({ "text": format!("called, {turn}") })),
            ),
            // Most of them cannot be made from where it is by then.
            14 => self.as_admin(self.of_request(Method::POST, "/transitions", turn).json(&transition(turn))),
            15 => delivery(turn, MANGO_SALT),
            16 => delivery(turn, if turn % 3 == 0 { MANGO_SALT } else { "somebody else's salt" }),
            17 | 18 => nowhere(turn * 2 + sort - 17),
            19 => self.odd_method(turn),
            // After the first few their address has to wait, so that hashing is not what this measures.
            20 => return guess(turn).with("x-forwarded-for", "10.8.8.8"),
            21 => self.upload(turn),
            // Three times each: one is executed, two are told the same.
            22 => self.as_admin(
                Question::plain(Method::POST, "/api/v1/requests")
                    .with("idempotency-key", format!("order-{}", turn / 3))
                    .json(&json!({ "city": MOSCOW, "phone": format!("+7917{:07}", turn / 3) })),
            ),
            // One address asks more than one may.
            23 => {
                return Question::plain(Method::GET, "/api/v1/dictionaries/roles").with("x-forwarded-for", "10.9.9.9");
            }
            _ => page(turn),
        };
        question.with("x-forwarded-for", format!("10.1.0.{}", number % 200))
    }

    fn as_admin(&self, question: Question) -> Question {
        question.by(Some(&self.tokens[0]))
    }

    fn request(&self, turn: usize) -> i64 {
        self.requests[turn % self.requests.len()]
    }

    fn of_request(&self, method: Method, end: &str, turn: usize) -> Question {
        let route = format!("/api/v1/requests/{{id}}{end}");
        Question::new(method, &route, &route.replace("{id}", &self.request(turn).to_string()))
    }

    /// Every operation in turn, by everybody in turn, with what is there and what is not. None of them has what it
    /// takes to do harm.
    fn operation(&self, turn: usize) -> Question {
        let (method, route) = &self.operations[turn % self.operations.len()];
        let round = turn / self.operations.len();
        let is_there = (round / 4).is_multiple_of(2) && *method != Method::DELETE;
        let id = if is_there { self.request(round).to_string() } else { "999999999".to_owned() };
        let provider = if is_there { "mango" } else { "nobody" };
        let path: String = route
            .split('/')
            .map(|part| match part {
                "{provider}" => provider,
                "{kind}" => "call",
                part if part.starts_with('{') => &id,
                part => part,
            })
            .collect::<Vec<_>>()
            .join("/");
        // Who signed out would be nobody from then on.
        let signs_out = route.contains("/auth/logout");
        let token = self.tokens.get(round % 4).filter(|_| !signs_out);
        let question = Question::new(method.clone(), route, &path).by(token.map(String::as_str));
        if [Method::GET, Method::DELETE].contains(method) { question } else { question.json(&json!({})) }
    }

    fn working_day(&self, turn: usize) -> Question {
        let token = Some(self.tokens[turn % 2].as_str());
        match turn % 6 {
            0 => Question::plain(Method::GET, "/api/v1/requests?limit=10").by(token),
            1 => Question::plain(Method::GET, "/api/v1/auth/me").by(token),
            2 => self.of_request(Method::GET, "", turn).by(token),
            3 => Question::plain(Method::HEAD, "/api/v1/requests?limit=1").by(token),
            4 => Question::plain(Method::GET, "/api/v1/dictionaries/cities").by(token).with("if-none-match", "*"),
            _ => Question::plain(Method::GET, "/api/v1/requests?limit=ten").by(token),
        }
    }

    fn odd_method(&self, turn: usize) -> Question {
        let method = ["BREW", "PROPFIND", "PUT", "TRACE", "OPTIONS", "X-1"][turn % 6].parse().unwrap();
        let (_, route) = &self.operations[turn / 6 % self.operations.len()];
        let path = route.replace("{id}", "1").replace(['{', '}'], "");
        Question::new(method, route, &path)
    }

    fn upload(&self, turn: usize) -> Question {
        let question = self.as_admin(self.of_request(Method::POST, "/files", turn));
        question.sending(files::FORM, files::photo(&files::png(400 + turn % 300)))
    }
}

fn transition(turn: usize) -> serde_json::Value {
    match turn % 4 {
        0 => json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2030-06-03T10:00:00+03:00" }),
        1 => json!({ "to": "no_answer" }),
        2 => json!({ "to": "done" }),
        _ => json!({ "to": "nowhere" }),
    }
}

/// A call that comes in, signed with this.
fn delivery(turn: usize, salt: &str) -> Question {
    let event = Call::new(&format!("truth-{turn}"), &format!("7918{turn:07}"), MOSCOW_LINE).appeared();
    let body = serde_urlencoded::to_string(form(&event.json, salt)).unwrap();
    Question::new(
        Method::POST,
        "/api/v1/webhooks/telephony/{provider}/events/{kind}",
        &format!("/api/v1/webhooks/telephony/mango/events/{}", event.kind),
    )
    .sending("application/x-www-form-urlencoded", body)
}

fn nowhere(turn: usize) -> Question {
    let path = match turn % 4 {
        0 => format!("/api/v1/{turn}"),
        1 => format!("/wp-login.php?attempt={turn}"),
        2 => format!("/api/v2/requests/{turn}"),
        _ => format!("/.git/objects/{turn:x}"),
    };
    let method = if turn.is_multiple_of(3) { Method::POST } else { Method::GET };
    Question::new(method, "unmatched", &path)
}

fn guess(turn: usize) -> Question {
    let body = json!({ "login": format!("nobody{}", turn % 7), "password": "wrong horse battery", "session": "token" });
    Question::plain(Method::POST, "/api/v1/auth/login").json(&body)
}

fn page(turn: usize) -> Question {
    match turn % 8 {
        0 => Question::plain(Method::GET, "/"),
        1 => Question::plain(Method::GET, "/openapi.json"),
        2 => Question::new(Method::GET, "/docs/{*rest}", "/docs/index.html"),
        3 => Question::plain(Method::GET, "/health/ready"),
        4 => Question::plain(Method::OPTIONS, "/api/v1/requests")
            .with("origin", "https://elsewhere.example")
            .with("access-control-request-method", "POST"),
        5 => Question::plain(Method::POST, "/api/v1/requests").sending("application/json", "{\"city\": "),
        6 => Question::plain(Method::POST, "/api/v1/requests").sending("text/plain", "a tap drips"),
        _ => Question::plain(Method::GET, "/health/live"),
    }
}
