//! The session cookie. `__Host-` makes the browser insist on Secure, no Domain and Path=/; over plain
//! HTTP on loopback browsers would drop it, so a setting for development takes the prefix away.

use axum_extra::extract::{
    CookieJar,
    cookie::{Cookie, SameSite},
};

use crate::app::App;

const SECURE_NAME: &str = "__Host-access";
const LOOPBACK_NAME: &str = "access";

fn name(app: &App) -> &'static str {
    if app.config.http.insecure_cookies { LOOPBACK_NAME } else { SECURE_NAME }
}

/// The access token in the request's cookies.
#[must_use]
pub fn access(jar: &CookieJar, app: &App) -> Option<String> {
    jar.get(name(app)).map(|cookie| cookie.value().to_owned())
}

/// The cookie that carries `token` for `seconds`; with 0 it is removed.
pub fn set_access(app: &App, token: String, seconds: i64) -> CookieJar {
    let cookie = Cookie::build((name(app), token))
        .http_only(true)
        .secure(!app.config.http.insecure_cookies)
        .same_site(SameSite::Strict)
        .path("/")
        .max_age(time::Duration::seconds(seconds))
        .build();
    CookieJar::new().add(cookie)
}
