//! What a client has already need not be sent again: strong ETags of answers, If-None-Match (RFC 9110 §13.1.2),
//! and Cache-Control of requests (RFC 9111 §5.2.1).

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::AppError;

/// JSON with its strong ETag, a hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    tag: String,
    body: Bytes,
}

impl Tagged {
    /// Of the JSON in `body`.
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Self { tag: format!("\"{}\"", fingerprint(&body)), body }
    }

    /// Of `value`, written as JSON.
    ///
    /// # Errors
    /// 500 for what JSON cannot hold.
    pub fn json(value: &impl Serialize) -> Result<Self, AppError> {
        serde_json::to_vec(value).map(|body| Self::new(body.into())).map_err(AppError::internal)
    }

    /// The ETag, in its quotes.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The JSON.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// What only the same bytes have; without a comma or a quote.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

impl IntoResponse for Tagged {
    fn into_response(self) -> Response {
        let tag = HeaderValue::try_from(self.tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json), (header::ETAG, tag)], self.body).into_response()
    }
}

/// How fresh an answer the client wants. An extractor, which never fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As fresh as the cache has it.
    Cached,
    /// Made for this request: `Cache-Control: no-cache`.
    Anew,
}

impl<S: Sync> FromRequestParts<S> for Freshness {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let lines = parts.headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
        let mut directives = lines.flat_map(|line| line.split(',')).map(str::trim);
        let anew = directives.any(|directive| directive.eq_ignore_ascii_case("no-cache"));
        Ok(if anew { Self::Anew } else { Self::Cached })
    }
}

/// Says what a representation is, which whoever has it knows (RFC 9110 §15.4.5).
const DESCRIBING: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_RANGE, header::CONTENT_DISPOSITION];

/// A layer that answers 304 to who names, in If-None-Match, the ETag of what a GET would give.
pub async fn spare<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let had = if reads { has(request.headers()) } else { None };
    let mut response = next(request).await;
    let given = matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let tag = response.headers().get(header::ETAG).filter(|_| given).and_then(|tag| tag.to_str().ok());
    if had.is_some_and(|had| tag.is_some_and(|tag| names(&had, tag))) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        for name in DESCRIBING {
            response.headers_mut().remove(name);
        }
    }
    response
}

/// If-None-Match, its lines as one. What is no text names nothing.
fn has(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Whether a list of tags has this one, weak or strong alike; `*` has all. Ours have no comma in them.
fn names(list: &str, tag: &str) -> bool {
    let opaque = |tag: &'_ str| tag.trim().trim_start_matches("W/").to_owned();
    list.trim() == "*" || list.split(',').any(|named| opaque(named) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_names_a_tag_weak_or_strong_alike() {
        for list in ["\"a1\"", "W/\"a1\"", "\"x\", \"a1\"", "\"x\",W/\"a1\" , \"y\"", "*", " * "] {
            assert!(names(list, "\"a1\""), "{list}");
            assert!(names(list, "W/\"a1\""), "{list}");
        }
        for list in ["", "\"\"", "a1", "\"A1\"", "\"a1", "\"a\"", "\"*\"", "w/\"a1\"", "\"a1\"\"x\"", "a1,", "**"] {
            assert!(!names(list, "\"a1\""), "{list}");
        }
    }

    #[test]
    fn a_tag_is_that_of_the_bytes() {
        let tagged = Tagged::json(&["Омск"]).unwrap();
        assert_eq!(tagged.tag().len(), 45);
        assert_eq!(tagged, Tagged::new("[\"Омск\"]".into()));
        assert_ne!(tagged.tag(), Tagged::json(&["Томск"]).unwrap().tag());
        assert_eq!(tagged.clone().into_response().headers()[header::ETAG], tagged.tag());
    }

    #[test]
    fn only_no_cache_asks_for_an_answer_of_its_own() {
        for (lines, expected) in [
            (&["no-cache"][..], Freshness::Anew),
            (&["max-age=0, No-Cache"], Freshness::Anew),
            (&["max-age=5", "no-cache"], Freshness::Anew),
            (&[], Freshness::Cached),
            (&["max-age=0"], Freshness::Cached),
            (&["no-cachet"], Freshness::Cached),
        ] {
            let mut request = Request::new(());
            for line in lines {
                request.headers_mut().append(header::CACHE_CONTROL, HeaderValue::from_static(line));
            }
            let read = Freshness::from_request_parts(&mut request.into_parts().0, &()).now_or_never().unwrap();
            assert_eq!(read, Ok(expected), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_names_nothing_by_chance(list in "[^a]*") {
            prop_assert_eq!(names(&list, "\"a1\""), list.trim() == "*");
        }
    }
}
