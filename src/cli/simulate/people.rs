//! Somebody who signs in and uses the API: an account, an address of their own, a session.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{
    api::{Answer, Api, Lane},
    tally::Tally,
};
use crate::{auth::Role, cli::demo::DemoUser};

/// Tries to sign in while others do, or the limit is used up by earlier runs.
const TRIES: u32 = 30;

/// A signed-in user.
pub struct Person {
    /// Login.
    pub login: String,
    /// Role.
    pub role: Role,
    /// City by position in the plan; `None` is all of them.
    pub city: Option<usize>,
    /// User id.
    pub id: i64,
    password: String,
    address: String,
    token: RwLock<String>,
    api: Arc<Api>,
    tally: Arc<Tally>,
}

#[derive(Deserialize)]
struct Session {
    access_token: String,
}

#[derive(Deserialize)]
struct Me {
    id: i64,
}

impl Person {
    /// Signs somebody in.
    ///
    /// # Errors
    /// When the server does not let them in.
    pub async fn sign_in(
        api: &Arc<Api>,
        tally: &Arc<Tally>,
        user: &DemoUser,
        city: Option<usize>,
        address: String,
    ) -> anyhow::Result<Self> {
        let mut person = Self {
            login: user.login.clone(),
            role: user.role,
            city,
            id: 0,
            password: user.password.clone(),
            address,
            token: RwLock::new(String::new()),
            api: api.clone(),
            tally: tally.clone(),
        };
        *person.token.write().await = person.open_session().await?;
        let me = person.ask(Method::GET, "/auth/me", None, None).await.context("asking who they are")?;
        person.id = me.read::<Me>().map_err(anyhow::Error::msg)?.id;
        Ok(person)
    }

    async fn open_session(&self) -> anyhow::Result<String> {
        let body = json!({ "login": self.login, "password": self.password, "session": "token" });
        for _ in 0..TRIES {
            let request = self.api.request(Method::POST, "/auth/login", &self.address).json(&body);
            let answer = self.api.send(request, Lane::Api, &self.tally).await.map_err(anyhow::Error::msg)?;
            match answer.status {
                StatusCode::OK => {
                    self.tally.lock().signed_in += 1;
                    return Ok(answer.read::<Session>().map_err(anyhow::Error::msg)?.access_token);
                }
                // Hashing takes a core for a quarter of a second: who comes too early is asked to wait.
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    tokio::time::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await;
                }
                StatusCode::UNAUTHORIZED => {
                    bail!("{} cannot sign in; is --logins the file of this server's demo?", self.login)
                }
                _ => bail!("{} cannot sign in: {}", self.login, answer.problem()),
            }
        }
        bail!("{} cannot sign in: the server stays too busy", self.login)
    }

    /// Asks for something. Refusals because somebody was quicker are answers; whatever else is not a
    /// success is counted as an error and `None`.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Option<Answer> {
        let answer = self.send(&method, path, body, if_match).await?;
        if answer.is_good() || answer.is_conflict() {
            return Some(answer);
        }
        self.tally.error(format!("{}: {method} {path}: {}", self.login, answer.problem()));
        None
    }

    async fn send(&self, method: &Method, path: &str, body: Option<&Value>, if_match: Option<&str>) -> Option<Answer> {
        let mut renewed = false;
        loop {
            let token = self.token.read().await.clone();
            let mut request = self.api.request(method.clone(), path, &self.address).bearer_auth(&token);
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(etag) = if_match {
                request = request.header(reqwest::header::IF_MATCH, etag);
            }
            let answer = match self.api.send(request, Lane::Api, &self.tally).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.tally.disconnected(format!("{}: {method} {path}: {error}", self.login));
                    return None;
                }
            };
            if answer.status != StatusCode::UNAUTHORIZED || renewed {
                return Some(answer);
            }
            renewed = true;
            let mut current = self.token.write().await;
            if *current == token {
                match self.open_session().await {
                    Ok(token) => *current = token,
                    Err(error) => {
                        self.tally.error(format!("{error:#}"));
                        return None;
                    }
                }
            }
        }
    }

    /// Asks, and reads the answer.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<(T, Option<String>)> {
        let answer = self.ask(Method::GET, path, None, None).await?;
        match answer.read() {
            Ok(value) => Some((value, answer.etag)),
            Err(error) => {
                self.tally.error(format!("{}: GET {path}: {error}", self.login));
                None
            }
        }
    }
}
