//! Extractors whose rejections are problems: [`ValidJson`] and [`ValidQuery`] parse, then validate,
//! and report each bad field by its JSON pointer; [`Id`] is a path id.

use std::{
    borrow::Cow,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Request, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_path_to_error::Segment;
use tokio::time::timeout;
use url::form_urlencoded;

use crate::{
    app::App,
    auth::Principal,
    error::{self, AppError, FieldError},
    http::idempotency::BodyDigest,
};

/// Input that knows what it must satisfy beyond its types.
pub trait Validate {
    /// Adds an entry for every field that is not valid.
    fn validate(&self, errors: &mut FieldErrors);
}

/// Collects what is wrong with an input.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Adds an entry unless `valid`.
    pub fn check(&mut self, valid: bool, pointer: &str, detail: impl Into<String>) {
        if !valid {
            self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
        }
    }

    /// Checks the length (in characters) and content of a text.
    pub fn text(&mut self, value: &str, length: RangeInclusive<usize>, pointer: &str) {
        let characters = value.chars().count();
        if value.contains('\0') {
            // PostgreSQL cannot store it.
            self.check(false, pointer, "must not contain U+0000");
        } else if characters < *length.start() || (*length.start() > 0 && value.trim().is_empty()) {
            self.check(false, pointer, "must not be empty");
        } else {
            self.check(characters <= *length.end(), pointer, format!("must have at most {} characters", length.end()));
        }
    }

    /// Checks a text that may be missing.
    pub fn optional_text(&mut self, value: Option<&str>, length: RangeInclusive<usize>, pointer: &str) {
        if let Some(value) = value {
            self.text(value, length, pointer);
        }
    }

    /// `Ok` when nothing was added.
    ///
    /// # Errors
    /// 422 with all entries.
    pub fn into_result(self) -> Result<(), AppError> {
        if self.0.is_empty() { Ok(()) } else { Err(AppError::invalid(self.0)) }
    }
}

/// A JSON body, parsed and validated.
#[derive(Debug)]
pub struct ValidJson<T>(pub T);

impl<T: DeserializeOwned + Validate> FromRequest<App> for ValidJson<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, app: &App) -> Result<Self, AppError> {
        let media_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = media_type.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(error::WRONG_MEDIA_TYPE.because("Send application/json."));
        }
        let bytes = body(request, app).await?;
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| json_error(&error))?;
        deserializer.end().map_err(|_| error::MALFORMED.because("There is more after the JSON value."))?;
        let mut errors = FieldErrors::default();
        value.validate(&mut errors);
        errors.into_result()?;
        Ok(Self(value))
    }
}

/// For a body that may be missing: then there is no media type either.
impl<T: DeserializeOwned + Validate> OptionalFromRequest<App> for ValidJson<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, app: &App) -> Result<Option<Self>, AppError> {
        if request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<App>>::from_request(request, app).await.map(Some)
    }
}

/// While a body takes longer than this to arrive, its sender may have lost the right to send it.
const LONG: Duration = Duration::from_millis(500);

/// The whole body, under the limit that the router sets. It has `http.stall_timeout_ms` to arrive: bodies that
/// are read at once are small.
///
/// # Errors
/// 413, 408 when it takes too long, 400 when the client stops sending, or 401 when they were signed out
/// meanwhile.
pub async fn body(request: Request, app: &App) -> Result<Bytes, AppError> {
    let (sender, started) = (request.extensions().get::<Principal>().cloned(), Instant::now());
    let digest = request.extensions().get::<BodyDigest>().cloned();
    let patience = Duration::from_millis(app.config.http.stall_timeout_ms);
    let whole = timeout(patience, Bytes::from_request(request, app)).await.map_err(|_| error::BODY_TOO_SLOW)?;
    let whole = whole.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            AppError::from(error::TOO_LARGE)
        } else {
            error::MALFORMED.because("The body broke off.")
        }
    })?;
    if let Some(sender) = sender
        && started.elapsed() > LONG
    {
        sender.check_again(app).await?;
    }
    if let Some(digest) = digest {
        digest.note(&[&whole]);
    }
    Ok(whole)
}

fn json_error(error: &serde_path_to_error::Error<serde_json::Error>) -> AppError {
    let inner = error.inner();
    if inner.is_syntax() || inner.is_eof() {
        return error::MALFORMED.because(format!(
            "Not valid JSON at line {}, column {}.",
            inner.line(),
            inner.column()
        ));
    }
    let mut pointer = String::new();
    for segment in error.path() {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => {}
        }
    }
    AppError::invalid_field(pointer, in_words(&inner.to_string()))
}

/// serde appends the position, which a pointer makes redundant, and quotes the value, which may be a client's; and
/// what parsers of times and amounts say is for those who wrote them.
fn in_words(message: &str) -> Cow<'_, str> {
    let message = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    let unquoted = ["invalid type", "invalid value", "unknown variant"].iter().find_map(|problem| {
        let expected = message.strip_prefix(problem)?.rfind(", expected ")?;
        Some(format!("{problem}{}", &message[problem.len() + expected..]))
    });
    if let Some(unquoted) = unquoted {
        return unquoted.into();
    }
    match message {
        "premature end of input"
        | "input contains invalid characters"
        | "input is out of range"
        | "trailing input"
        | "input is not enough for unique date and time" => {
            "is no time such as 2026-10-05T10:00:00+07:00, or no day such as 2026-10-05 where one is asked for \
             (in a URL, + is written %2B)"
                .into()
        }
        _ if message.contains("a Decimal type representing a fixed-point number") => {
            "is no amount in a string, such as \"1500.50\"".into()
        }
        other => other.into(),
    }
}

/// Query parameters, parsed and validated.
#[derive(Debug)]
pub struct ValidQuery<T>(pub T);

impl<T: DeserializeOwned + Validate, S: Send + Sync> FromRequestParts<S> for ValidQuery<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let value: T = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
            .map_err(|error| AppError::invalid_field(error.path().to_string(), in_words(&error.inner().to_string())))?;
        let mut errors = FieldErrors::default();
        value.validate(&mut errors);
        errors.into_result()?;
        Ok(Self(value))
    }
}

/// A row id in the path. What is no id names nothing: 404.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        match Path::<i64>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(error::NOT_FOUND.into()),
        }
    }
}

/// The variable segments of the path, in order. What is no text names nothing: 404.
#[derive(Clone, Debug)]
pub struct Segments(pub Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        match Path::<Vec<String>>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(error::NOT_FOUND.into()),
        }
    }
}

/// For a field of a PATCH body: absent (leave it), null (clear it) or a value.
///
/// # Errors
/// As the value's own deserialisation.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Parses a value that an error message must not repeat, as serde's do.
///
/// # Errors
/// When it has the wrong type or form.
pub fn discreet<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer).map_err(|_| D::Error::custom("has the wrong type or form"))
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for (message, said) in [
            ("invalid type: integer `79161234567`, expected a string", "invalid type, expected a string"),
            ("invalid type: string \"a, expected b\", expected i64 at line 1 column 9", "invalid type, expected i64"),
            ("invalid value: integer `-5`, expected u32", "invalid value, expected u32"),
            ("unknown variant `Olga`, expected `new` or `done`", "unknown variant, expected `new` or `done`"),
            ("missing field `city`", "missing field `city`"),
        ] {
            assert_eq!(in_words(message), said);
        }
    }
}
