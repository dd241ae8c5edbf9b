//! Somebody who signs in and uses the API: an account, an address of their own, a session.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{
    api::{Answer, Api, Lane},
    tally::Tally,
};
use crate::{auth::Role, cli::demo::DemoUser, clock::Clock, http::idempotency};

/// Tokens are renewed so long before they end.
const AHEAD: TimeDelta = TimeDelta::seconds(30);
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
    session: RwLock<Session>,
    api: Arc<Api>,
    tally: Arc<Tally>,
}

#[derive(Default, Deserialize)]
struct Session {
    access_token: String,
    expires_at: DateTime<Utc>,
    refresh_token: String,
}

impl Session {
    fn is_due(&self) -> bool {
        Clock::System.now() + AHEAD >= self.expires_at
    }
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
            session: RwLock::default(),
            api: api.clone(),
            tally: tally.clone(),
        };
        *person.session.write().await = person.open_session().await?;
        let me = person.ask(Method::GET, "/auth/me", None, None).await.context("asking who they are")?;
        person.id = me.read::<Me>().map_err(anyhow::Error::msg)?.id;
        Ok(person)
    }

    async fn open_session(&self) -> anyhow::Result<Session> {
        let body = json!({ "login": self.login, "password": self.password, "session": "token" });
        for _ in 0..TRIES {
            let request = self.api.request(Method::POST, "/auth/login", &self.address).json(&body);
            let answer = self.api.send(request, Lane::Api, &self.tally).await.map_err(anyhow::Error::msg)?;
            match answer.status {
                StatusCode::OK => {
                    self.tally.lock().signed_in += 1;
                    return answer.read().map_err(anyhow::Error::msg);
                }
                // Hashing takes a core for a quarter of a second: who comes too early is asked to wait.
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    tokio::time::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await;
                }
                StatusCode::UNAUTHORIZED => {
                    bail!(
                        "{} cannot sign in ({}): is --logins the file of this server's demo, and the password the one in it?",
                        self.login,
                        answer.problem()
                    )
                }
                _ => bail!("{} cannot sign in: {}", self.login, answer.problem()),
            }
        }
        bail!("{} cannot sign in: the server stays too busy", self.login)
    }

    /// An access token that is good for a while yet, and is not `refused`.
    async fn token(&self, refused: Option<&str>) -> anyhow::Result<String> {
        let is_good = |session: &Session| !session.is_due() && refused != Some(&session.access_token);
        {
            let session = self.session.read().await;
            if is_good(&session) {
                return Ok(session.access_token.clone());
            }
        }
        let mut session = self.session.write().await;
        if !is_good(&session) {
            *session = match self.refresh(&session.refresh_token).await? {
                Some(next) => next,
                None => self.open_session().await?,
            };
        }
        Ok(session.access_token.clone())
    }

    /// `None` when the session is over. Whoever sends the same token again within seconds is given the same pair.
    async fn refresh(&self, refresh_token: &str) -> anyhow::Result<Option<Session>> {
        let body = json!({ "refresh_token": refresh_token });
        let request = self.api.request(Method::POST, "/auth/refresh", &self.address).json(&body);
        let (answer, _) = self.api.persist(&request, Lane::Api, &self.tally).await.map_err(anyhow::Error::msg)?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        self.tally.lock().refreshed += 1;
        answer.read().map(Some).map_err(anyhow::Error::msg)
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

    /// Sends it until it is answered. That has no effect twice: a POST has a key, and a PATCH names its version.
    async fn send(&self, method: &Method, path: &str, body: Option<&Value>, if_match: Option<&str>) -> Option<Answer> {
        let key = (*method == Method::POST).then(|| format!("{:032x}", rand::random::<u128>()));
        let mut refused = None;
        loop {
            let token = match self.token(refused.as_deref()).await {
                Ok(token) => token,
                Err(error) => {
                    self.tally.error(format!("{error:#}"));
                    return None;
                }
            };
            let mut request = self.api.request(method.clone(), path, &self.address).bearer_auth(&token);
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(etag) = if_match {
                request = request.header(reqwest::header::IF_MATCH, etag);
            }
            if let Some(key) = &key {
                request = request.header(idempotency::KEY, key);
            }
            let answer = match self.api.persist(&request, Lane::Api, &self.tally).await {
                Ok((answer, _)) => answer,
                Err(error) => {
                    self.tally.disconnected(format!("{}: {method} {path}: {error}", self.login));
                    return None;
                }
            };
            if answer.status != StatusCode::UNAUTHORIZED || refused.is_some() {
                return Some(answer);
            }
            refused = Some(token);
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that gives these answers, one a connection, and nothing where there is none; the keys it is sent.
    async fn answer(listener: TcpListener, answers: &[Option<(u16, &str)>]) -> Vec<String> {
        let mut keys = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = String::new();
            while !head.ends_with('}') {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).await.unwrap();
                head.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            keys.extend(head.lines().filter_map(|line| Some(line.strip_prefix("idempotency-key: ")?.to_owned())));
            if let Some((status, body)) = answer {
                let length = body.len();
                let text =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        }
        keys
    }

    #[tokio::test]
    async fn what_is_not_answered_is_sent_again_under_the_same_key() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let person = Person {
            login: "olga".to_owned(),
            role: Role::Operator,
            city: None,
            id: 1,
            password: String::new(),
            address: "10.0.0.1".to_owned(),
            session: RwLock::new(Session { expires_at: DateTime::<Utc>::MAX_UTC, ..Session::default() }),
            api: Arc::new(Api::new(&base).unwrap()),
            tally: Arc::default(),
        };
        let answers = [
            None,
            Some((503, "{}")),
            Some((409, r#"{"code": "idempotency_in_flight"}"#)),
            Some((201, r#"{"id": 7}"#)),
            Some((409, r#"{"code": "conflict"}"#)),
        ];
        let body = json!({ "body": "The dog bites." });
        let work = async {
            let first = person.ask(Method::POST, "/requests", Some(&body), None).await.unwrap();
            let second = person.ask(Method::POST, "/requests", Some(&body), None).await.unwrap();
            (first.status.as_u16(), second.status.as_u16())
        };
        let (keys, statuses) = tokio::join!(answer(listener, &answers), work);
        assert_eq!(statuses, (201, 409), "the last one is an answer, and is taken for one");
        assert!(keys[0].len() == 32 && keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
        assert!(keys.len() == 5 && keys[4] != keys[0], "something else has another key: {keys:?}");
        let counts = person.tally.lock();
        assert_eq!((counts.sent_again, counts.errors), (3, 0));
    }
}
