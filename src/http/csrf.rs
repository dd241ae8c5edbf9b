//! Cross-site request forgery: a browser sends cookies by itself, so an unsafe request that is
//! authenticated by one must show that a page of ours sent it, twice over: by where it comes from (Fetch
//! Metadata, else Origin; a request that says neither is refused), and by a token that only such a page can
//! have read, bound to the session and to a cookie of its own (HMAC double submit).

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, Method, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use super::cookies::Cookies;
use crate::{
    app::App,
    auth::keys::Keys,
    error::{self, AppError},
};

/// Carries the token.
pub const HEADER: HeaderName = HeaderName::from_static("x-csrf-token");

/// What a request shows of the page that sent it.
#[derive(Debug)]
pub struct Page {
    /// The cookies that came with it.
    pub cookies: Cookies,
    unsafe_method: bool,
    allowed: bool,
    token: Option<[u8; 32]>,
}

impl Page {
    /// Reads what there is.
    #[must_use]
    pub fn of(parts: &Parts, app: &App) -> Self {
        Self {
            cookies: Cookies::of(&parts.headers, app),
            unsafe_method: is_unsafe(&parts.method),
            allowed: comes_from_an_allowed_page(&parts.headers, &app.config.http.allowed_origins),
            token: parts.headers.get(HEADER).and_then(|value| read(value.as_bytes())),
        }
    }

    /// Checks where an unsafe request comes from.
    ///
    /// # Errors
    /// 403 `cross_site`.
    pub fn check_origin(&self) -> Result<(), AppError> {
        if self.allowed || !self.unsafe_method {
            return Ok(());
        }
        Err(error::CROSS_SITE
            .because("Neither Sec-Fetch-Site: same-origin nor an Origin that is in http.allowed_origins came with it."))
    }

    /// Checks that an unsafe request shows the token of `session`; empty is that of no session.
    ///
    /// # Errors
    /// 403 `csrf_token`.
    pub fn check_token(&self, keys: &Keys, session: &str) -> Result<(), AppError> {
        if !self.unsafe_method {
            return Ok(());
        }
        let Some(cookie) = &self.cookies.csrf else {
            return Err(error::CSRF_TOKEN.because(
                "The cookie that goes with the token did not come: is the page on the same site as the API, and does it \
                 send cookies?",
            ));
        };
        let shown = self.token.is_some_and(|token| matches(&token, cookie, keys, session));
        if shown { Ok(()) } else { Err(error::CSRF_TOKEN.because("The token is missing, or that of another session.")) }
    }
}

impl FromRequestParts<App> for Page {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        Ok(Self::of(parts, app))
    }
}

/// The token of a session (empty: of none) and a cookie.
#[must_use]
pub fn token(keys: &Keys, session: &str, cookie: &str) -> String {
    URL_SAFE_NO_PAD.encode(keys.csrf(session, cookie))
}

fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn read(text: &[u8]) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

fn matches(token: &[u8; 32], cookie: &str, keys: &Keys, session: &str) -> bool {
    let expected = [Some(keys.csrf(session, cookie)), keys.previous_csrf(session, cookie)];
    expected.iter().flatten().any(|expected| expected.ct_eq(token).into())
}

fn comes_from_an_allowed_page(headers: &HeaderMap, allowed_origins: &[String]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same_origin = header("sec-fetch-site") == Some("same-origin");
    same_origin || header("origin").is_some_and(|origin| allowed_origins.iter().any(|allowed| allowed == origin))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn page(method: &Method, allowed: bool, token: Option<&str>, cookie: Option<&str>) -> Page {
        let cookies = Cookies { csrf: cookie.map(str::to_owned), ..Cookies::default() };
        Page {
            cookies,
            unsafe_method: is_unsafe(method),
            allowed,
            token: token.and_then(|token| read(token.as_bytes())),
        }
    }

    fn keys(current: &str, previous: &str) -> Keys {
        Keys::derive(&Secret::new(current), &Secret::new(previous)).unwrap()
    }

    #[test]
    fn only_our_own_and_allowed_pages_may_change_things() {
        let passes = |headers: &[(&'static str, &'static str)]| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            comes_from_an_allowed_page(&headers.collect(), &["http://localhost:5173".to_owned()])
        };
        assert!(!passes(&[]));
        assert!(passes(&[("sec-fetch-site", "same-origin")]));
        assert!(!passes(&[("sec-fetch-site", "same-site")]));
        assert!(!passes(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]));
        assert!(passes(&[("origin", "http://localhost:5173")]));
        assert!(!passes(&[("origin", "http://localhost:5173.evil.example")]));
        assert!(!passes(&[("origin", "null")]));
        assert!(page(&Method::GET, false, None, None).check_origin().is_ok());
        assert!(page(&Method::POST, true, None, None).check_origin().is_ok());
        assert!(page(&Method::POST, false, None, None).check_origin().is_err());
    }

    #[test]
    fn a_token_is_good_for_its_session_and_its_cookie() {
        let keys = keys("current", "");
        let good = token(&keys, "session", "cookie");
        let passes = |token: Option<&str>, cookie: Option<&str>, session: &str| {
            page(&Method::POST, true, token, cookie).check_token(&keys, session).is_ok()
        };
        assert!(passes(Some(&good), Some("cookie"), "session"));
        assert!(!passes(Some(&good), Some("cookie"), "other"));
        assert!(!passes(Some(&good), Some("cookie"), ""));
        assert!(!passes(Some(&good), Some("other"), "session"));
        assert!(!passes(Some(&good), None, "session"));
        assert!(!passes(None, Some("cookie"), "session"));
        assert!(!passes(Some(""), Some("cookie"), "session"));
        assert!(!passes(Some(&good[1..]), Some("cookie"), "session"));
        assert!(!passes(Some(&"A".repeat(43)), Some("cookie"), "session"));
        assert!(page(&Method::GET, false, None, None).check_token(&keys, "session").is_ok());
    }

    #[test]
    fn while_the_secret_changes_the_old_ones_tokens_are_good() {
        let old = token(&keys("old", ""), "session", "cookie");
        let passes = |keys: &Keys| page(&Method::POST, true, Some(&old), Some("cookie")).check_token(keys, "session");
        assert!(passes(&keys("new", "old")).is_ok());
        assert!(passes(&keys("new", "older")).is_err());
        assert!(passes(&keys("new", "")).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_that_somebody_made_up_is_a_token(text in ".{0,60}", tail in "[A-Za-z0-9_-]{43}", cookie in ".{0,40}") {
            let keys = keys("current", "previous");
            for text in [text, tail] {
                prop_assert!(page(&Method::POST, true, Some(&text), Some(&cookie)).check_token(&keys, "").is_err());
            }
        }
    }
}
