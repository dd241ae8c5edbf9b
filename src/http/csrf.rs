//! Cross-site request forgery: an unsafe request that is authenticated by a cookie must come from
//! our own page or from an allowed origin (Fetch Metadata, else Origin). A request that says
//! neither is refused.

use axum::http::{Method, request::Parts};

use crate::error::{self, AppError};

/// Checks a request whose credential was a cookie.
///
/// # Errors
/// 403 `cross_site`.
pub fn check(parts: &Parts, allowed_origins: &[String]) -> Result<(), AppError> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let same_origin = header("sec-fetch-site") == Some("same-origin");
    let allowed = header("origin").is_some_and(|origin| allowed_origins.iter().any(|allowed| allowed == origin));
    if same_origin || allowed { Ok(()) } else { Err(error::CROSS_SITE.into()) }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn passes(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, &["http://localhost:5173".to_owned()]).is_ok()
    }

    #[test]
    fn only_our_own_and_allowed_pages_may_change_things() {
        assert!(passes("GET", &[]));
        assert!(!passes("POST", &[]));
        assert!(passes("POST", &[("sec-fetch-site", "same-origin")]));
        assert!(!passes("POST", &[("sec-fetch-site", "same-site")]));
        assert!(!passes("POST", &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]));
        assert!(passes("PATCH", &[("origin", "http://localhost:5173")]));
        assert!(!passes("DELETE", &[("origin", "http://localhost:5173.evil.example")]));
        assert!(!passes("POST", &[("origin", "null")]));
    }
}
