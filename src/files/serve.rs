//! Giving a content to a client: as a download that no browser executes, whole or the one part that
//! the client asked for (RFC 9110 §14).

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;

use super::{media, storage::Storage};
use crate::error::{self, AppError};

/// What is given.
#[derive(Clone, Debug)]
pub struct Content {
    /// In the store.
    pub object: String,
    /// As a client may call it.
    pub name: String,
    pub mime: String,
    pub bytes: i64,
    pub sha256: String,
}

/// The strong ETag of a content: two that have the same are the same.
#[must_use]
pub fn etag(sha256: &str) -> String {
    format!("\"{sha256}\"")
}

/// Answers 200, 206 or 416.
///
/// # Errors
/// 500 when the object is lost, 503 when the store does not answer.
pub async fn respond(storage: &Storage, headers: &HeaderMap, content: &Content) -> Result<Response, AppError> {
    let length = u64::try_from(content.bytes).unwrap_or_default();
    let tag = etag(&content.sha256);
    let (status, range) = match asked(headers, &tag, length) {
        Asked::Whole => (StatusCode::OK, 0..length),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Outside => {
            let mut response = AppError::from(error::RANGE_NOT_SATISFIABLE).into_response();
            insert(&mut response, header::CONTENT_RANGE, format!("bytes */{length}"));
            return Ok(response);
        }
    };
    let stream =
        storage.read(&content.object, range.clone()).await.map_err(super::storage::StorageError::while_reading)?;
    // The head is out by then: all that is left is to break off, which the client sees by the length.
    let stream = stream.inspect_err(|error| tracing::error!(error = error::describe(error), "a download broke off"));
    let mut response = (status, Body::from_stream(stream)).into_response();
    insert(&mut response, header::CONTENT_TYPE, content.mime.clone());
    insert(&mut response, header::CONTENT_LENGTH, (range.end - range.start).to_string());
    insert(&mut response, header::CONTENT_DISPOSITION, media::disposition(&content.name));
    insert(&mut response, header::ETAG, tag);
    insert(&mut response, header::ACCEPT_RANGES, "bytes".to_owned());
    insert(
        &mut response,
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'; frame-ancestors 'none'".to_owned(),
    );
    insert(&mut response, header::CACHE_CONTROL, "private, no-store".to_owned());
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
        insert(&mut response, header::CONTENT_RANGE, part);
    }
    Ok(response)
}

fn insert(response: &mut Response, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// What the Range header asks for. Anything but one well-formed range of bytes is ignored, as the
/// standard allows, and so is a range of a version that If-Range says the client does not mean.
fn asked(headers: &HeaderMap, tag: &str, length: u64) -> Asked {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(tag) {
        return Asked::Whole;
    }
    let one = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")).and_then(|range| {
        let (first, last) = range.trim().split_once('-')?;
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        match (first, last) {
            ("", last) => Some((length.saturating_sub(number(last)?), length)),
            (first, "") => Some((number(first)?, length)),
            (first, last) => {
                let (first, last): (u64, u64) = (number(first)?, number(last)?);
                (first <= last).then(|| (first, last.saturating_add(1).min(length)))
            }
        }
    });
    match one {
        None => Asked::Whole,
        Some((start, end)) if start < end => Asked::Part(start..end),
        Some(_) => Asked::Outside,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(range: &str, if_range: Option<&str>) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::try_from(range).unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::try_from(tag).unwrap());
        }
        asked(&headers, "\"a\"", 100)
    }

    #[test]
    fn one_range_of_bytes_is_given_and_the_rest_ignored() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=10-19", Asked::Part(10..20)),
            ("bytes=90-", Asked::Part(90..100)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=0-18446744073709551615", Asked::Part(0..100)),
            ("bytes=-10", Asked::Part(90..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("bytes=100-", Asked::Outside),
            ("bytes=100-200", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=20-10", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("rows=0-1", Asked::Whole),
            ("bytes=99999999999999999999-", Asked::Whole),
        ] {
            assert_eq!(of(range, None), expected, "{range}");
        }
        assert_eq!(of("bytes=0-0", Some("\"a\"")), Asked::Part(0..1));
        for other in ["\"b\"", "W/\"a\"", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(of("bytes=0-0", Some(other)), Asked::Whole, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_content(first in "[0-9]{0,22}", last in "[0-9]{0,22}") {
            if let Asked::Part(range) = of(&format!("bytes={first}-{last}"), None) {
                prop_assert!(range.start < range.end && range.end <= 100);
            }
        }
    }
}
