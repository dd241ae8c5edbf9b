//! Fetching one recording over HTTP from its provider.

use std::time::Duration;

use axum::http::{StatusCode, header};
use futures_util::TryStreamExt;
use opentelemetry::KeyValue;
use reqwest::{Client, RequestBuilder, Response, redirect::Policy};
use tracing::{Instrument, Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use super::store::{Due, Fetched};
use crate::{
    app::App,
    calls::providers::{Provider, mango},
    error::describe,
    files::{
        intake::{self, IntakeError, Rules},
        media::Media,
    },
    telemetry::trace::{self, TraceIds},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects that are followed: to the provider's storage, and a little more.
const MAX_REDIRECTS: usize = 3;
/// Where recordings lie in the store.
const FOLDER: &str = "recordings";

/// Why there is no content. The texts are for the database and the log; they hold no address, as those
/// of a storage may carry a signature.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The provider does not have it.
    Gone,
    /// It will not be different next time.
    Final(String),
    /// It may work later.
    Passing(String),
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        match &error {
            IntakeError::TooLarge => Self::Final(error.to_string()),
            // An error page in place of a content may be gone tomorrow.
            IntakeError::Empty | IntakeError::WrongType | IntakeError::Storage(_) => Self::Passing(describe(&error)),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Passing(describe(&error.without_url()))
    }
}

/// Fetches it into the store.
pub async fn fetch(app: &App, recording: &Due) -> Result<Fetched, Failure> {
    let span = info_span!(
        target: "switchboard::recordings",
        "fetch recording",
        otel.name = "POST recording",
        otel.kind = "client",
        otel.status_code = Empty,
        error.r#type = Empty,
        http.request.method = "POST",
        http.response.status_code = Empty,
        server.address = Empty,
    );
    if let Some(noted_by) = recording.traceparent.as_deref().and_then(trace::parse_traceparent) {
        span.add_link_with_attributes(noted_by, vec![KeyValue::new("switchboard.link", "noted by")]);
    }
    let limit = Duration::from_millis(app.config.recordings.timeout_ms);
    let fetched = tokio::time::timeout(limit, download(app, recording)).instrument(span.clone()).await;
    let fetched = fetched.unwrap_or_else(|_| Err(Failure::Passing(format!("it took longer than {limit:?}"))));
    if let Err(failure) = &fetched {
        let kind = match failure {
            Failure::Gone => "gone",
            Failure::Final(_) => "final",
            Failure::Passing(_) => "passing",
        };
        span.record("otel.status_code", "ERROR").record("error.type", kind);
    }
    fetched
}

async fn download(app: &App, recording: &Due) -> Result<Fetched, Failure> {
    let response = match recording.provider {
        Provider::Mango => ask_mango(app, &recording.recording_id).await?,
        // Its events do not tell of recordings.
        Provider::Generic => return Err(Failure::Gone),
    };
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Failure::Gone),
        status if !status.is_success() => return Err(Failure::Passing(format!("the provider answered {status}"))),
        _ => {}
    }
    let max_bytes = app.config.recordings.max_bytes as u64;
    if response.content_length().is_some_and(|length| length > max_bytes) {
        return Err(IntakeError::TooLarge.into());
    }
    let rules = Rules { folder: FOLDER, max_bytes, accepts: Media::is_audio };
    let pieces = response.bytes_stream().map_err(Failure::from);
    let (media, stored) = intake::take_in(&app.storage, rules, app.clock.now(), pieces).await?;
    Ok(Fetched { media, stored })
}

/// The answer at the end of the redirects.
async fn ask_mango(app: &App, recording_id: &str) -> Result<Response, Failure> {
    let credentials = app.mango.as_ref().ok_or_else(|| Failure::Passing("the provider is off".to_owned()))?;
    let base = format!("{}/{}", app.config.mango.base_url.trim_end_matches('/'), mango::RECORDING_PATH);
    let base = Url::parse(&base).map_err(|error| Failure::Passing(error.to_string()))?;
    Span::current().record("server.address", base.host_str());
    let client = client(app)?;
    let mut response = send(client.post(base.clone()).form(&mango::recording_form(credentials, recording_id))).await?;
    for _ in 0..MAX_REDIRECTS {
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let target = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let target = target.and_then(|location| response.url().join(location).ok());
        let target = target.filter(|target| may_follow(&base, target));
        let target = target.ok_or_else(|| Failure::Passing("a redirect to where we do not go".to_owned()))?;
        // Without the form, whatever the status says: our signature is for the provider alone.
        response = send(client.get(target)).await?;
    }
    if response.status().is_redirection() {
        return Err(Failure::Passing("too many redirects".to_owned()));
    }
    Ok(response)
}

/// To the provider's storage over TLS, or about the provider's own host. Anything else would let an
/// answer choose what this server calls inside its own network.
fn may_follow(base: &Url, target: &Url) -> bool {
    target.scheme() == "https" || (target.scheme() == "http" && target.origin() == base.origin())
}

async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let request = match TraceIds::current() {
        Some(ids) => request.header("traceparent", ids.traceparent()),
        None => request,
    };
    let response = request.send().await?;
    Span::current().record("http.response.status_code", response.status().as_u16());
    Ok(response)
}

fn client(app: &App) -> Result<&Client, Failure> {
    if let Some(client) = app.provider_client.get() {
        return Ok(client);
    }
    let client = Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT).build()?;
    Ok(app.provider_client.get_or_init(|| client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_https_or_back_to_the_provider() {
        let base = Url::parse("http://127.0.0.1:8080/vpbx/queries/recording/post/").unwrap();
        for (target, follows) in [
            ("https://storage.example/a.mp3", true),
            ("http://127.0.0.1:8080/a.mp3", true),
            ("http://127.0.0.1:9464/metrics", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://storage.example/a.mp3", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1:8080/a.mp3", false),
        ] {
            assert_eq!(may_follow(&base, &Url::parse(target).unwrap()), follows, "{target}");
        }
    }
}
