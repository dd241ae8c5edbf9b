//! People, as HTTP clients.

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{PASSWORD, watch};

/// A number nobody has had yet in this process.
pub fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {} {:?}", self.status, self.text))
    }

    /// The body, after checking the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks that it is a problem with this status and code; returns it.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:switchboard:problem:{code}"));
        problem
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Checks that browsers are told to be careful with the answer to a path: every one that an actor gets, in all tests.
#[track_caller]
pub fn assert_careful(path: &str, headers: &header::HeaderMap) {
    let value = |name: &str| {
        let values: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values.len(), 1, "{name} {values:?}: {headers:?}");
        values[0]
    };
    assert_eq!(value("x-content-type-options"), "nosniff");
    assert_eq!(value("referrer-policy"), "no-referrer");
    assert_eq!(value("cross-origin-resource-policy"), "same-site");
    // Dictionaries are no personal data.
    let may_be_kept = path.starts_with("/api/v1/dictionaries/") && value("cache-control") == "private, no-cache";
    assert!(may_be_kept || value("cache-control").contains("no-store"), "{path}: {headers:?}");
    let policy = value("content-security-policy");
    assert!(policy.contains("default-src '") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!headers.contains_key("server") && !headers.contains_key("x-powered-by"), "{headers:?}");
}

/// Somebody with a session, or nobody.
pub struct Actor {
    pub id: i64,
    pub login: String,
    pub token: Option<String>,
    pub refresh_token: Option<String>,
    /// An address of their own: logins are limited per address.
    pub address: String,
    base: String,
    client: reqwest::Client,
}

impl Actor {
    pub fn stranger(base: &str) -> Self {
        let n = number();
        Self {
            id: 0,
            login: String::new(),
            token: None,
            refresh_token: None,
            address: format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255),
            base: base.to_owned(),
            client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
        }
    }

    pub async fn sign_in(base: &str, id: i64, login: &str) -> Self {
        let mut actor = Self { id, login: login.to_owned(), ..Self::stranger(base) };
        let body = json!({ "login": login, "password": PASSWORD, "session": "token" });
        let session = actor.post("/api/v1/auth/login", body).await.expect(200);
        actor.take(&session);
        actor
    }

    /// Goes on with the tokens of this answer.
    pub fn take(&mut self, session: &Value) {
        let text = |name: &str| Some(session[name].as_str().unwrap().to_owned());
        (self.token, self.refresh_token) = (text("access_token"), text("refresh_token"));
    }

    /// Presents the refresh token, and keeps it.
    pub async fn refresh(&self) -> Answer {
        let request = self.client.post(format!("{}/api/v1/auth/refresh", self.base));
        let body = json!({ "refresh_token": self.refresh_token });
        self.send(request.header("x-forwarded-for", &self.address).json(&body)).await
    }

    /// The same person with the same session, at another server.
    pub fn at(&self, base: &str) -> Self {
        let (login, token, refresh_token) = (self.login.clone(), self.token.clone(), self.refresh_token.clone());
        Self { id: self.id, login, token, refresh_token, address: self.address.clone(), ..Self::stranger(base) }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request =
            self.client.request(method, format!("{}{path}", self.base)).header("x-forwarded-for", &self.address);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert_careful(response.url().path(), &headers);
        let answer = Answer { status, headers, text: response.text().await.unwrap() };
        watch::answer(&answer);
        answer
    }

    /// Sends, and hangs up after the head of the answer: for streams that have no end. An error is read.
    pub async fn head(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert_careful(response.url().path(), &headers);
        let text = if status.is_success() { String::new() } else { response.text().await.unwrap() };
        Answer { status, headers, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Past the cache.
    pub async fn get_anew(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("cache-control", "no-cache")).await
    }

    /// GET, unless it still is what it was.
    pub async fn get_unless(&self, path: &str, etag: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("if-none-match", etag)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// PATCH with If-Match.
    pub async fn patch(&self, path: &str, etag: &str, body: Value) -> Answer {
        self.send(self.request(Method::PATCH, path).header("if-match", etag).json(&body)).await
    }

    /// DELETE with If-Match.
    pub async fn delete(&self, path: &str, etag: &str) -> Answer {
        self.send(self.request(Method::DELETE, path).header("if-match", etag)).await
    }

    /// Everything in a list, whether it comes in pages or at once.
    pub async fn everything(&self, path: &str) -> Vec<Value> {
        match self.get(path).await.expect(200) {
            Value::Array(rows) => rows,
            _ => self.all(path).await,
        }
    }

    /// Everything in a list, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{cursor}")).await.expect(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("{join}cursor={next}"),
                None => return items,
            }
        }
    }

    /// Types in a service request and returns it.
    pub async fn create_request(&self, city: &str, phone: &str) -> Value {
        self.post("/api/v1/requests", json!({ "city": city, "phone": phone })).await.expect(201)
    }

    /// Types in a service request and agrees on a visit: it waits for a master.
    pub async fn waiting_request(&self, city: &str, phone: &str) -> i64 {
        let id = self.create_request(city, phone).await["id"].as_i64().unwrap();
        let visit = json!({ "to": "waiting", "address": "Tverskaya 1", "meeting_at": "2026-06-03T10:00:00+03:00" });
        self.move_to(id, visit).await.expect(200);
        id
    }

    /// Moves a service request.
    pub async fn move_to(&self, id: i64, body: Value) -> Answer {
        self.post(&format!("/api/v1/requests/{id}/transitions"), body).await
    }

    /// Offers a service request to a master.
    pub async fn assign(&self, id: i64, master_id: i64) -> Answer {
        self.post(&format!("/api/v1/requests/{id}/assign"), json!({ "master_id": master_id })).await
    }
}
