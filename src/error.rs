//! One error type for the whole API: an RFC 9457 problem with a stable `code`. Handlers return
//! [`AppError`]; it is rendered here and logged once, at the edge, by [`crate::http::observe`].

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, Type},
};

use crate::telemetry::trace::TraceIds;

/// One kind of problem: its status, its stable code and its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemKind {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people; the same for every occurrence.
    pub title: &'static str,
}

macro_rules! problems {
    ($($name:ident = $status:ident $code:literal $title:literal;)*) => {
        $(#[doc = $title] pub const $name: ProblemKind =
            ProblemKind { status: StatusCode::$status, code: $code, title: $title };)*
        /// Every problem the API can answer with.
        pub const PROBLEMS: &[ProblemKind] = &[$($name),*];
    };
}

problems! {
    MALFORMED = BAD_REQUEST "malformed" "The request cannot be read";
    UNAUTHENTICATED = UNAUTHORIZED "unauthenticated" "Sign in first";
    BAD_CREDENTIALS = UNAUTHORIZED "bad_credentials" "Login or password is wrong";
    BAD_SIGNATURE = UNAUTHORIZED "bad_signature" "The signature does not match";
    FORBIDDEN = FORBIDDEN "forbidden" "Your role may not do this";
    CROSS_SITE = FORBIDDEN "cross_site" "This request does not come from an allowed page";
    CSRF_TOKEN = FORBIDDEN "csrf_token" "Send X-CSRF-Token with the token that GET /api/v1/auth/csrf gives";
    NOT_FOUND = NOT_FOUND "not_found" "Not found";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method_not_allowed" "This path does not take that method";
    TRANSITION_NOT_ALLOWED = CONFLICT "transition_not_allowed" "The service request cannot make this move now";
    BODY_TOO_SLOW = REQUEST_TIMEOUT "body_too_slow" "The body took too long to arrive";
    CONFLICT = CONFLICT "conflict" "This clashes with what is stored";
    IDEMPOTENCY_IN_FLIGHT = CONFLICT "idempotency_in_flight" "This Idempotency-Key is being worked on; try again";
    STALE = PRECONDITION_FAILED "stale" "It was changed by somebody else; read it again";
    TOO_LARGE = PAYLOAD_TOO_LARGE "too_large" "The body is too large";
    URI_TOO_LONG = URI_TOO_LONG "uri_too_long" "The address is too long";
    HEAD_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE "head_too_large" "The headers are too large or too many";
    WRONG_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "wrong_media_type" "This body type is not accepted here";
    INVALID = UNPROCESSABLE_ENTITY "invalid" "Some fields are not valid";
    IDEMPOTENCY_KEY_REUSED = UNPROCESSABLE_ENTITY "idempotency_key_reused" "This Idempotency-Key was used for something else, or with other rights";
    RANGE_NOT_SATISFIABLE = RANGE_NOT_SATISFIABLE "range_not_satisfiable" "There is no such part";
    IF_MATCH_REQUIRED = PRECONDITION_REQUIRED "if_match_required" "Send If-Match with the ETag you read";
    RATE_LIMITED = TOO_MANY_REQUESTS "rate_limited" "Too many requests; wait";
    LOGIN_LOCKED = TOO_MANY_REQUESTS "login_locked" "This login has failed too often from your address; wait";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Something went wrong on our side";
    OVERLOADED = SERVICE_UNAVAILABLE "overloaded" "Too busy right now; try again";
    STARTING = SERVICE_UNAVAILABLE "starting" "The server is starting; try again";
    DATABASE_UNAVAILABLE = SERVICE_UNAVAILABLE "database_unavailable" "The database cannot be reached; try again";
    STORAGE_UNAVAILABLE = SERVICE_UNAVAILABLE "storage_unavailable" "The file store cannot be reached; try again";
    TIMED_OUT = GATEWAY_TIMEOUT "timed_out" "This took too long";
    INSUFFICIENT_STORAGE = INSUFFICIENT_STORAGE "insufficient_storage" "The file cannot be stored now";
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter.
    #[schema(example = "/address")]
    pub pointer: String,
    /// For people.
    #[schema(example = "must not be empty")]
    pub detail: String,
}

fn codes() -> Object {
    let codes = PROBLEMS.iter().map(|kind| kind.code);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).examples([NOT_FOUND.code]).build()
}

/// The body of an error answer (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:switchboard:problem:{code}`.
    #[schema(example = "urn:switchboard:problem:not_found")]
    pub r#type: String,
    /// Short, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status again.
    #[schema(example = 404)]
    pub status: u16,
    /// Stable, for programs.
    #[schema(schema_with = codes)]
    pub code: &'static str,
    /// This occurrence, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'static, str>>,
    /// Per field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The moves that are allowed instead; only with `transition_not_allowed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<&'static str>>,
    /// Names this request in traces and logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// An error on its way to the client; a copy of it to each client who waited for the same.
#[derive(Clone, Debug)]
pub struct AppError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ProblemKind,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    allowed: Option<Vec<&'static str>>,
    retry_after: Option<u64>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Left in the response for the log line: the code, and for 5xx what happened inside.
#[derive(Clone, Debug)]
pub struct ErrorReport {
    /// The problem's code.
    pub code: &'static str,
    /// The chain of causes; never sent to the client.
    pub cause: Option<Arc<str>>,
}

impl From<ProblemKind> for AppError {
    fn from(kind: ProblemKind) -> Self {
        Self(Box::new(Inner { kind, detail: None, errors: Vec::new(), allowed: None, retry_after: None, source: None }))
    }
}

impl ProblemKind {
    /// An error of this kind with a sentence about this occurrence.
    pub fn because(self, detail: impl Into<Cow<'static, str>>) -> AppError {
        let mut error = AppError::from(self);
        error.0.detail = Some(detail.into());
        error
    }
}

impl AppError {
    /// 422 with these field errors.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut error = Self::from(INVALID);
        error.0.errors = errors;
        error
    }

    /// 422 for one field.
    #[must_use]
    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    /// 409 with the moves that are allowed.
    #[must_use]
    pub fn transition_not_allowed(detail: String, allowed: Vec<&'static str>) -> Self {
        let mut error = TRANSITION_NOT_ALLOWED.because(detail);
        error.0.allowed = Some(allowed);
        error
    }

    /// 500 whose cause is logged and not shown.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::from(INTERNAL).caused_by(source)
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// What kind of problem this is.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.0.kind
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.detail.as_deref().unwrap_or(self.0.kind.title))
    }
}

impl StdError for AppError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let Inner { kind, detail, errors, allowed, retry_after, source } = *self.0;
        let problem = Problem {
            r#type: format!("urn:switchboard:problem:{}", kind.code),
            title: kind.title,
            status: kind.status.as_u16(),
            code: kind.code,
            detail,
            errors,
            allowed,
            trace_id: TraceIds::current().map(|ids| ids.trace_id.to_string()),
        };
        let mut response = (kind.status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if kind.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let cause = source.map(|error| describe(error.as_ref()).into());
        response.extensions_mut().insert(ErrorReport { code: kind.code, cause });
        response
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some say it themselves, and go on with what to do.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
