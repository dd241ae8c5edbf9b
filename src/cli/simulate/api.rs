//! The HTTP side: one pooled client for everybody, every answer timed, everything that is sent again counted.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use super::tally::Tally;
use crate::error;

/// Longer than the server's own limit, so that it is the server that says so.
const PATIENCE: Duration = Duration::from_secs(15);
/// HTTP requests at once: below the server's database pool, so that a small machine is busy and not
/// overwhelmed. People wait for each other's answers, not for connections.
const AT_ONCE: usize = 6;
/// How long somebody keeps sending what is not answered: a replica is back by then.
const PERSISTENCE: Duration = Duration::from_secs(10);
/// Before something is sent again for the first time; then twice as long each time, up to a second.
const PAUSE: Duration = Duration::from_millis(100);

/// What kind of HTTP request it is, for the timings.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// A person's.
    Api,
    /// The provider's.
    Webhook,
}

/// Where HTTP requests go.
#[derive(Debug)]
pub struct Api {
    /// Also reads the metrics.
    pub http: Client,
    base: String,
    permits: Semaphore,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its ETag.
    pub etag: Option<String>,
    /// Seconds to wait before trying again.
    pub retry_after: Option<u64>,
    body: Vec<u8>,
}

/// What a problem says of itself.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    pointer: String,
    detail: String,
}

impl Answer {
    /// Whether it went well.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status.is_success()
    }

    /// Whether somebody else was quicker.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self.status, StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED)
    }

    /// Whether it says nothing of what was asked for: the server, or a balancer in front of it, cannot tell just now.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        match self.status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => true,
            StatusCode::CONFLICT => {
                self.read::<Problem>().is_ok_and(|problem| problem.code == error::IDEMPOTENCY_IN_FLIGHT.code)
            }
            _ => false,
        }
    }

    /// The body.
    ///
    /// # Errors
    /// When it is not what was expected.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("the answer cannot be read: {error}"))
    }

    /// Status, code and reason, in a line.
    #[must_use]
    pub fn problem(&self) -> String {
        let status = self.status.as_u16();
        let Ok(problem) = self.read::<Problem>() else { return status.to_string() };
        let fields = problem.errors.into_iter().map(|field| format!("{} {}", field.pointer, field.detail));
        let details: Vec<String> = problem.detail.into_iter().chain(fields).collect();
        format!("{status} {} {}", problem.code, details.join("; ")).trim_end().to_owned()
    }
}

impl Api {
    /// A client of the server at `base`.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(base: &Url) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(PATIENCE).no_proxy().pool_max_idle_per_host(AT_ONCE).build()?;
        Ok(Self { http, base: base.as_str().trim_end_matches('/').to_owned(), permits: Semaphore::new(AT_ONCE) })
    }

    /// A request to a path below `/api/v1`, from an address of the company's network.
    pub fn request(&self, method: Method, path: &str, from: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).header("x-forwarded-for", from)
    }

    /// Sends it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: RequestBuilder, lane: Lane, tally: &Tally) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
        let started = Instant::now();
        let exchange = async {
            let response = request.send().await?;
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (etag, retry_after) = (header(header::ETAG), header(header::RETRY_AFTER));
            let status = response.status();
            let body = response.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(Answer {
                status,
                etag,
                retry_after: retry_after.and_then(|s| s.parse().ok()),
                body,
            })
        };
        let answer = exchange.await.map_err(|error| error::describe(&error.without_url()));
        let mut counts = tally.lock();
        match lane {
            Lane::Api => counts.api.push(started.elapsed()),
            Lane::Webhook => counts.webhooks.push(started.elapsed()),
        }
        answer
    }

    /// Sends it until it is answered for good, or patience ends; the last answer, and whether it was sent more than
    /// once. Only for what has no effect twice.
    ///
    /// # Errors
    /// When there is no answer even to the last.
    pub async fn persist(&self, request: &RequestBuilder, lane: Lane, tally: &Tally) -> Result<(Answer, bool), String> {
        let (started, mut pause, mut again) = (Instant::now(), PAUSE, false);
        loop {
            let request = request.try_clone().ok_or("a stream cannot be sent twice")?;
            let answer = self.send(request, lane, tally).await;
            if answer.as_ref().is_ok_and(|answer| !answer.is_for_now()) || started.elapsed() >= PERSISTENCE {
                return answer.map(|answer| (answer, again));
            }
            tally.lock().sent_again += 1;
            again = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Whether a Switchboard answers here and is ready.
    ///
    /// # Errors
    /// One line that says what to do.
    pub async fn check(&self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Health {
            status: String,
        }
        let nobody = || {
            anyhow::anyhow!(
                "there is no Switchboard answering at {}; start one with: switchboard serve --demo",
                self.base
            )
        };
        let answer = self.http.get(format!("{}/health/ready", self.base)).send().await.map_err(|_| nobody())?;
        let health: Health = answer.json().await.map_err(|_| nobody())?;
        anyhow::ensure!(health.status == "ok", "the Switchboard at {} is not ready: {}", self.base, health.status);
        Ok(())
    }
}

/// A path with its query.
#[must_use]
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish())
}
