//! Optimistic locking: the ETag of a row is its version; If-Match says which version a change is
//! meant for (RFC 9110 §13.1.1).

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};

use crate::error::{self, AppError};

/// The strong ETag of a version.
#[must_use]
pub fn etag(version: i32) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// What the client's If-Match accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// No header.
    Absent,
    /// `*`: any version.
    Any,
    /// One of these tags.
    Tags(Vec<String>),
}

impl IfMatch {
    fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        Self::Tags(text.split(',').map(|tag| tag.trim().to_owned()).collect())
    }

    /// Fails unless `version` is acceptable. Tags are opaque: compared as written, so that a weak or
    /// foreign one never matches.
    ///
    /// # Errors
    /// 412.
    pub fn check(&self, version: i32) -> Result<(), AppError> {
        match self {
            Self::Tags(tags) if !tags.iter().any(|tag| etag(version) == tag.as_str()) => Err(error::STALE.into()),
            _ => Ok(()),
        }
    }

    /// The same for a row whose ETag is not its version.
    ///
    /// # Errors
    /// 412.
    pub fn check_tag(&self, current: &str) -> Result<(), AppError> {
        match self {
            Self::Tags(tags) if !tags.iter().any(|tag| tag == current) => Err(error::STALE.into()),
            _ => Ok(()),
        }
    }

    /// Fails when the client sent none.
    ///
    /// # Errors
    /// 428.
    pub fn required(self) -> Result<Self, AppError> {
        if self == Self::Absent { Err(error::IF_MATCH_REQUIRED.into()) } else { Ok(self) }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let lines: Result<Vec<&str>, _> =
            parts.headers.get_all(header::IF_MATCH).iter().map(HeaderValue::to_str).collect();
        let lines = lines.map_err(|_| error::MALFORMED.because("If-Match is not text"))?;
        if lines.is_empty() {
            return Ok(Self::Absent);
        }
        let wanted = Self::parse(&lines.join(","));
        // An ETag without its quotes would match nothing, and "changed by somebody else" would be untrue.
        let quoted =
            |tag: &String| tag.trim_start_matches("W/").starts_with('"') && tag.len() > 1 && tag.ends_with('"');
        match &wanted {
            Self::Tags(tags) if !tags.iter().all(quoted) => {
                Err(error::MALFORMED.because("If-Match takes an ETag as it was given, with its quotes: \"3\"."))
            }
            _ => Ok(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_the_version_it_names_and_no_other() {
        assert!(IfMatch::parse("\"3\"").check(3).is_ok());
        assert!(IfMatch::parse("\"1\", \"3\"").check(3).is_ok());
        assert!(IfMatch::parse("*").check(3).is_ok());
        for wrong in ["\"2\"", "W/\"3\"", "3", "", "\"\"", "\"99999999999999999999\"", "\"+3\"", "\"03\""] {
            assert!(IfMatch::parse(wrong).check(3).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused_and_matches_only_what_it_names(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                "(\\*|(W/)?\"[0-2]\"|\"?0?[0-2]\"?)(, ?(W/)?\"[0-2]\"){0,2}".prop_map(String::into_bytes),
            ],
            version in 0..3_i32,
        ) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let request = axum::http::Request::get("/").header(header::IF_MATCH, value).body(()).unwrap();
            let read = IfMatch::from_request_parts(&mut request.into_parts().0, &()).now_or_never().unwrap();
            match read {
                Ok(wanted) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let named = text.split(',').any(|tag| tag.trim() == format!("\"{version}\""));
                    prop_assert_eq!(wanted.check(version).is_ok(), named || text.trim() == "*");
                }
                Err(error) => prop_assert_eq!(error.kind().code, "malformed"),
            }
        }

        #[test]
        fn arbitrary_text_never_panics_and_never_matches_by_chance(text in "[^0-9*]*") {
            prop_assert!(IfMatch::parse(&text).check(3).is_err());
        }
    }
}
