//! A browser with one of our pages open: it keeps cookies and sends them where they belong, says where the
//! page comes from, and the page shows its CSRF token.

use std::collections::BTreeMap;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{
    PASSWORD, TestApp,
    actor::{Actor, Answer},
};

/// A cookie as a browser is told to keep it.
#[derive(Clone, Debug)]
pub struct Cookie {
    pub name: String,
    pub value: String,
    /// As written, sorted.
    pub attributes: Vec<String>,
}

/// The cookies that an answer sets, by name.
pub fn set_cookies(answer: &Answer) -> BTreeMap<String, Cookie> {
    let read = |value: &reqwest::header::HeaderValue| {
        let mut parts = value.to_str().unwrap().split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let mut attributes: Vec<String> = parts.map(str::to_owned).collect();
        attributes.sort();
        Cookie { name: name.to_owned(), value: value.to_owned(), attributes }
    };
    let cookies: Vec<Cookie> = answer.headers.get_all("set-cookie").iter().map(read).collect();
    let by_name: BTreeMap<String, Cookie> =
        cookies.iter().map(|cookie| (cookie.name.clone(), cookie.clone())).collect();
    assert_eq!(by_name.len(), cookies.len(), "one cookie of a name");
    by_name
}

pub struct Browser {
    /// Where it connects from.
    pub client: Actor,
    /// Value and path by name.
    pub cookies: BTreeMap<String, (String, String)>,
    /// What the page shows.
    pub csrf_token: Option<String>,
}

impl Browser {
    pub fn new(app: &TestApp) -> Self {
        Self { client: app.stranger(), cookies: BTreeMap::new(), csrf_token: None }
    }

    /// Signs somebody in.
    pub async fn of(app: &TestApp, user: &Actor) -> Self {
        let mut browser = Self::new(app);
        browser.sign_in(&user.login).await.expect(200);
        browser
    }

    /// The page asks for its token, and signs in.
    pub async fn sign_in(&mut self, login: &str) -> Answer {
        self.get("/api/v1/auth/csrf").await.expect(200);
        self.post("/api/v1/auth/login", json!({ "login": login, "password": PASSWORD })).await
    }

    /// With the cookies of that path, as any page makes a browser send it.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .filter(|(_, (_, below))| path.starts_with(below.as_str()))
            .map(|(name, (value, _))| format!("{name}={value}"))
            .collect();
        let request = self.client.request(method, path);
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    /// As our own page sends it.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.bare(method, path).header("sec-fetch-site", "same-origin");
        match &self.csrf_token {
            Some(token) => request.header("x-csrf-token", token),
            None => request,
        }
    }

    /// Sends, and keeps what the answer gives.
    pub async fn send(&mut self, request: RequestBuilder) -> Answer {
        let answer = self.client.send(request).await;
        for (name, cookie) in set_cookies(&answer) {
            let attribute = |name: &str| cookie.attributes.iter().find_map(|attribute| attribute.strip_prefix(name));
            if attribute("Max-Age=") == Some("0") {
                self.cookies.remove(&name);
            } else {
                self.cookies.insert(name, (cookie.value.clone(), attribute("Path=").unwrap().to_owned()));
            }
        }
        let token = serde_json::from_str::<Value>(&answer.text).ok();
        if let Some(token) = token.as_ref().and_then(|body| body["csrf_token"].as_str()) {
            self.csrf_token = Some(token.to_owned());
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// Posts nothing.
    pub async fn poke(&mut self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path)).await
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> &str {
        self.cookies.get(name).map_or("", |(value, _)| value.as_str())
    }
}
