//! The cookies of a browser's session. `__Host-` makes the browser insist on Secure, no Domain and Path=/,
//! `__Secure-` on Secure; over plain HTTP on loopback browsers would drop them, so a setting for
//! development takes the prefixes away.

use axum::http::{HeaderMap, header};
use axum_extra::extract::{
    CookieJar,
    cookie::{Cookie, SameSite},
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    app::App,
    auth::{sessions::Granted, tokens},
    config::Secret,
};

/// A cookie that we set.
#[derive(Clone, Copy)]
struct Kind {
    prefix: &'static str,
    name: &'static str,
    path: &'static str,
}

/// The access token.
const ACCESS: Kind = Kind { prefix: "__Host-", name: "access", path: "/" };
/// The refresh token: sent to nobody but those who exchange it.
const REFRESH: Kind = Kind { prefix: "__Secure-", name: "refresh", path: "/api/v1/auth" };
/// What CSRF tokens are bound to, beside the session.
const CSRF: Kind = Kind { prefix: "__Host-", name: "csrf", path: "/" };

impl Kind {
    fn full_name(self, app: &App) -> String {
        let prefix = if app.config.http.insecure_cookies { "" } else { self.prefix };
        format!("{prefix}{}", self.name)
    }

    /// The value, if there is one. A page of a sibling domain can plant a cookie beside ours or on another path,
    /// and nothing tells which is which: of two neither counts.
    fn read(self, headers: &HeaderMap, app: &App) -> Option<String> {
        let name = self.full_name(app);
        let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let mut ours = lines.flat_map(Cookie::split_parse).flatten().filter(|cookie| cookie.name() == name);
        let cookie = ours.next()?;
        ours.next().is_none().then(|| cookie.value().to_owned())
    }

    /// The cookie, for so long, or until the browser is closed.
    fn set(self, app: &App, value: String, lifetime: Option<TimeDelta>) -> Cookie<'static> {
        let cookie = Cookie::build((self.full_name(app), value))
            .http_only(true)
            .secure(!app.config.http.insecure_cookies)
            .same_site(SameSite::Strict)
            .path(self.path);
        match lifetime {
            Some(lifetime) => cookie.max_age(time::Duration::seconds(lifetime.num_seconds())).build(),
            None => cookie.build(),
        }
    }
}

/// Those of our cookies that a request carries.
#[derive(Clone, Debug, Default)]
pub struct Cookies {
    /// Access token.
    pub access: Option<Secret>,
    /// Refresh token.
    pub refresh: Option<Secret>,
    /// What CSRF tokens are bound to.
    pub csrf: Option<String>,
}

impl Cookies {
    /// Reads them. A request that brings its credentials in a header has none.
    #[must_use]
    pub fn of(headers: &HeaderMap, app: &App) -> Self {
        if headers.contains_key(header::AUTHORIZATION) {
            return Self::default();
        }
        Self {
            access: ACCESS.read(headers, app).map(Secret::new),
            refresh: REFRESH.read(headers, app).map(Secret::new),
            csrf: CSRF.read(headers, app).filter(|value| tokens::is_id(value)),
        }
    }
}

/// Cookies that carry what was granted.
pub fn of_session(app: &App, granted: &Granted) -> CookieJar {
    let lifetime = |until: DateTime<Utc>| Some(until - app.clock.now());
    let (access, refresh) = (granted.access_token.expose().to_owned(), granted.refresh_token.text());
    CookieJar::new().add(ACCESS.set(app, access, lifetime(granted.expires_at))).add(REFRESH.set(
        app,
        refresh.expose().to_owned(),
        lifetime(granted.refresh_expires_at),
    ))
}

/// Adds a CSRF cookie.
pub fn with_csrf(jar: CookieJar, app: &App, value: &str) -> CookieJar {
    jar.add(CSRF.set(app, value.to_owned(), None))
}

/// Removes all of them.
pub fn cleared(app: &App) -> CookieJar {
    let gone = |kind: Kind| kind.set(app, String::new(), Some(TimeDelta::zero()));
    CookieJar::new().add(gone(ACCESS)).add(gone(REFRESH)).add(gone(CSRF))
}
