//! A POST that is sent again. With an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07) it has its
//! effect once, and whoever sends it again hears what was answered the first time.
//!
//! The answer is kept in the transaction that has the effect, so there is never one without the other: wherever a
//! process, a connection or a client breaks off, sending again is right. Only success is kept. What failed has been
//! rolled back, and sending it again is a first try.

mod store;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::ToStrError, request::Parts, uri::PathAndQuery},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use tracing::Instrument;

use self::store::Kept;
use super::stats;
use crate::{
    app::App,
    auth::Caller,
    db::{Conn, DbError, Plans, Tx},
    error::{self, AppError},
    telemetry::labels::IdempotencyOutcome,
};

/// Names one POST among those of its user.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Is `true` in an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What [`KEY`] takes, for the document: a string of structured fields (RFC 9651), or what is in it.
pub const PATTERN: &str = r#"^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254})$"#;

const MALFORMED_KEY: &str = "Idempotency-Key takes one key: 1 to 255 visible ASCII characters, in quotes or without.";
/// Seconds after which whoever was first is likely to have been answered.
const SOON: u64 = 1;

type Hash = [u8; 32];

/// A POST that may come with a key: an argument of its handler, after the caller and before the body.
#[derive(Debug)]
pub struct Once(Option<Keyed>);

#[derive(Debug)]
struct Keyed {
    key: String,
    /// Method and path with its query.
    target: String,
    body: BodyDigest,
}

/// Where whoever reads the body leaves its hash; an extension of requests whose body somebody wants to recognise.
#[derive(Clone, Debug, Default)]
pub struct BodyDigest(Arc<OnceLock<Hash>>);

impl BodyDigest {
    /// Notes what the body says. The first note counts.
    pub fn note(&self, content: &[&[u8]]) {
        let _ = self.0.set(digest(content));
    }
}

/// The hash of all parts, each with its length: no two lists have the same.
fn digest(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The key that a header field's value names.
fn parse(value: &[u8]) -> Option<String> {
    let key = match value {
        [b'"', quoted @ .., b'"'] => unescape(quoted)?,
        [b'"', ..] => return None,
        bare => bare.to_vec(),
    };
    let fits = (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    String::from_utf8(key).ok().filter(|_| fits)
}

/// What is between the quotes of a string (RFC 9651 §3.3.3).
fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut bytes) = (Vec::with_capacity(quoted.len()), quoted.iter());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'"' => return None,
            b'\\' => *bytes.next().filter(|next| matches!(next, b'"' | b'\\'))?,
            other => *other,
        });
    }
    Some(text)
}

impl<S: Sync> FromRequestParts<S> for Once {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let mut values = parts.headers.get_all(KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let key = parse(value.as_bytes()).filter(|_| values.next().is_none());
        let key = key.ok_or_else(|| error::MALFORMED.because(MALFORMED_KEY))?;
        let body = BodyDigest::default();
        parts.extensions.insert(body.clone());
        let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        Ok(Self(Some(Keyed { key, target: format!("{} {path}", parts.method), body })))
    }
}

/// What a POST came to.
pub struct Answer {
    response: Response,
    request_id: Option<i64>,
    effect: Option<Effect>,
}

type Effect = Box<dyn FnOnce(&App) + Send>;

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("response", &self.response).finish_non_exhaustive()
    }
}

impl Answer {
    /// Success.
    pub fn of(response: impl IntoResponse) -> Self {
        Self { response: response.into_response(), request_id: None, effect: None }
    }

    /// Tells something personal of this service request, and is kept no longer than that is.
    #[must_use]
    pub fn about(mut self, request_id: i64) -> Self {
        self.request_id = Some(request_id);
        self
    }

    /// What is to be done once it is committed: metrics.
    #[must_use]
    pub fn then(mut self, effect: impl FnOnce(&App) + Send + 'static) -> Self {
        self.effect = Some(Box::new(effect));
        self
    }
}

impl Once {
    /// Does `work` in a transaction, unless it has been done: then the answer is the one that was given.
    ///
    /// # Errors
    /// As `work` and the database; 409 while the same key is being worked on, 422 when it was used for something else.
    pub async fn run(
        self,
        app: &App,
        caller: &Caller,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Answer, AppError>,
    ) -> Result<Response, AppError> {
        self.run_until(app, caller, work, |_, tx| async { Ok(tx.commit().await?) }).await
    }

    /// The same, with a commit that does more.
    ///
    /// # Errors
    /// As [`Once::run`] and `commit`.
    pub async fn run_until<F: Future<Output = Result<(), AppError>> + Send + 'static>(
        self,
        app: &App,
        caller: &Caller,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Answer, AppError>,
        commit: impl FnOnce(App, Tx) -> F,
    ) -> Result<Response, AppError> {
        let mut tx = app.db.begin_with(Plans::Kept).await?;
        let (answer, outcome) = match self.attempt(app, caller, &mut tx, work).await {
            Ok(done) => done,
            Err(error) => {
                if self.0.is_some() {
                    // Whoever hears of the error may use the key again at once. A transaction that is dropped would hold
                    // it a little longer.
                    let _ = tx.rollback().await;
                }
                return Err(error);
            }
        };
        let Answer { response, effect, .. } = answer;
        let (app, committed) = (app.clone(), commit(app.clone(), tx));
        // In a task of its own: a caller who hangs up in between must not keep what was committed from being counted.
        let ending = async move {
            committed.await?;
            if let Some(effect) = effect {
                effect(&app);
            }
            if let Some(outcome) = outcome {
                app.metrics.idempotent_requests(outcome).inc();
            }
            Ok::<_, AppError>(())
        };
        tokio::spawn(stats::carried(ending.in_current_span())).await.map_err(AppError::internal)??;
        Ok(response)
    }

    /// The answer that is to be given once the transaction is committed.
    async fn attempt(
        &self,
        app: &App,
        caller: &Caller,
        tx: &mut Tx,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Answer, AppError>,
    ) -> Result<(Answer, Option<IdempotencyOutcome>), AppError> {
        let Some(keyed) = &self.0 else { return Ok((work(tx).await?, None)) };
        if let Some(earlier) = keyed.earlier(app, caller, tx).await? {
            return Ok((Answer::of(earlier), Some(IdempotencyOutcome::Replayed)));
        }
        let answer = work(tx).await?;
        Ok((keyed.keep(app, caller, tx, answer).await?, Some(IdempotencyOutcome::Executed)))
    }

    /// Whether the caller has been answered under this key: for what is refused before it is read, which must not
    /// be refused because it has been done.
    ///
    /// # Errors
    /// As the database.
    pub async fn is_answered(&self, db: &mut Conn, caller: &Caller) -> Result<bool, DbError> {
        match &self.0 {
            Some(keyed) => Ok(store::find(db, caller.principal.user_id, &keyed.key).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Notes what a body says that is not read as a whole, however it is written: a form that is sent again may
    /// well have another boundary.
    pub fn note_body(&self, content: &[&[u8]]) {
        if let Some(keyed) = &self.0 {
            keyed.body.note(content);
        }
    }
}

impl Keyed {
    /// The answer that was given under this key, with the key taken until the end of the transaction.
    async fn earlier(&self, app: &App, caller: &Caller, tx: &mut Tx) -> Result<Option<Response>, AppError> {
        let count = |outcome| app.metrics.idempotent_requests(outcome).inc();
        let user_id = caller.principal.user_id;
        if !store::try_lock(tx, user_id, &self.key).await? {
            count(IdempotencyOutcome::InFlight);
            return Err(AppError::from(error::IDEMPOTENCY_IN_FLIGHT).retry_after(SOON));
        }
        let Some(kept) = store::find(tx, user_id, &self.key).await? else { return Ok(None) };
        if kept.fingerprint != self.fingerprint(caller) {
            count(IdempotencyOutcome::Mismatch);
            return Err(error::IDEMPOTENCY_KEY_REUSED.into());
        }
        replay(kept).map(Some)
    }

    /// What is asked for, and with which rights: what somebody was shown once is not repeated to them when they may
    /// see less.
    fn fingerprint(&self, caller: &Caller) -> Hash {
        let cities: Option<BTreeSet<i64>> = caller.city_filter().map(|cities| cities.iter().copied().collect());
        let rights = format!("{} {cities:?}", caller.principal.role.as_str());
        let body = self.body.0.get().copied().unwrap_or_default();
        digest(&[self.target.as_bytes(), &body, rights.as_bytes()])
    }

    /// Keeps the answer, and gives it back.
    async fn keep(&self, app: &App, caller: &Caller, tx: &mut Tx, answer: Answer) -> Result<Answer, AppError> {
        let (parts, body) = answer.response.into_parts();
        let body = body.collect().await.map_err(AppError::internal)?.to_bytes();
        let headers =
            parts.headers.iter().map(|(name, value)| Ok((name.as_str().to_owned(), value.to_str()?.to_owned())));
        let headers: Result<_, ToStrError> = headers.collect();
        let kept = Kept {
            fingerprint: self.fingerprint(caller).to_vec(),
            status: i16::try_from(parts.status.as_u16()).map_err(AppError::internal)?,
            headers: Json(headers.map_err(AppError::internal)?),
            body: body.to_vec(),
        };
        store::insert(tx, caller.principal.user_id, &self.key, &kept, answer.request_id, app.clock.now()).await?;
        Ok(Answer { response: Response::from_parts(parts, Body::from(body)), ..answer })
    }
}

/// The answer as it was, and that it is not the first.
fn replay(kept: Kept) -> Result<Response, AppError> {
    let mut response = Response::new(Body::from(kept.body));
    let status = u16::try_from(kept.status).map_err(AppError::internal)?;
    *response.status_mut() = StatusCode::from_u16(status).map_err(AppError::internal)?;
    let mut headers = HeaderMap::new();
    for (name, value) in kept.headers.0 {
        let name = HeaderName::try_from(name).map_err(AppError::internal)?;
        headers.insert(name, HeaderValue::try_from(value).map_err(AppError::internal)?);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    *response.headers_mut() = headers;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_visible_ascii_in_quotes_or_without() {
        let longest = "k".repeat(255);
        for (value, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("\"a,b;c=d\"", "a,b;c=d"),
            (&longest, &longest),
        ] {
            assert_eq!(parse(value.as_bytes()).as_deref(), Some(key), "{value}");
        }
        let too_long = "k".repeat(256);
        for value in [
            "",
            "\"",
            "\"\"",
            "\"a",
            "\"a\";b=1",
            r#""a\""#,
            r#""a\b""#,
            "\"a\"b\"",
            "a b",
            "\"a b\"",
            "ключ",
            &too_long,
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn lists_that_read_the_same_side_by_side_are_not_the_same() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }

    proptest! {
        #[test]
        fn the_document_says_which_keys_are_read(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            "[\"\\\\!a~ ]{0,6}".prop_map(String::into_bytes),
            "\"[\"\\\\!a]{0,5}\"".prop_map(String::into_bytes),
        ]) {
            let documented = regex::bytes::Regex::new(PATTERN).unwrap();
            prop_assert_eq!(parse(&bytes).is_some(), documented.is_match(&bytes));
        }
    }
}
