//! The keys that are made from `jwt.secret`: one for each purpose, so that what is known under one tells
//! nothing about another (HKDF, RFC 5869). While the secret is being changed there are two sets.

use aws_lc_rs::{
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac::{HMAC_SHA256, Key, sign},
};

use crate::config::Secret;

/// The derived keys of one secret.
struct Derived {
    refresh: Key,
    csrf: Key,
    login: Key,
}

/// The keys of the current secret, and of the one before where there is one.
pub struct Keys {
    current: Derived,
    previous: Option<Derived>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

impl Keys {
    /// Derives them. An empty previous secret is none.
    ///
    /// # Errors
    /// When the library refuses, which for these lengths it does not.
    pub fn derive(current: &Secret, previous: &Secret) -> anyhow::Result<Self> {
        let previous = if previous.is_empty() { None } else { Some(Derived::of(previous)?) };
        Ok(Self { current: Derived::of(current)?, previous })
    }

    /// The refresh token that follows `parent`: the same whoever computes it, so that nothing has to be
    /// kept in clear for those who refresh side by side.
    #[must_use]
    pub fn refresh_child(&self, parent: &[u8; 32]) -> [u8; 32] {
        mac(&self.current.refresh, &[parent])
    }

    /// What proves that a page got a token of this `session` (empty: of none) from us, for the value of
    /// its CSRF cookie.
    #[must_use]
    pub fn csrf(&self, session: &str, cookie: &str) -> [u8; 32] {
        mac(&self.current.csrf, &[session.as_bytes(), b"\0", cookie.as_bytes()])
    }

    /// The same under the secret before.
    #[must_use]
    pub fn previous_csrf(&self, session: &str, cookie: &str) -> Option<[u8; 32]> {
        self.previous.as_ref().map(|keys| mac(&keys.csrf, &[session.as_bytes(), b"\0", cookie.as_bytes()]))
    }

    /// What stands for a login that somebody typed.
    #[must_use]
    pub fn login(&self, login: &str) -> [u8; 32] {
        mac(&self.current.login, &[login.as_bytes()])
    }
}

impl Derived {
    fn of(secret: &Secret) -> anyhow::Result<Self> {
        let prk = Salt::new(HKDF_SHA256, b"switchboard").extract(secret.expose().as_bytes());
        Ok(Self {
            refresh: expand(&prk, b"refresh token")?,
            csrf: expand(&prk, b"csrf token")?,
            login: expand(&prk, b"login")?,
        })
    }
}

fn expand(prk: &Prk, purpose: &[u8]) -> anyhow::Result<Key> {
    let info = [purpose];
    let okm = prk.expand(&info, HMAC_SHA256).map_err(|_| anyhow::anyhow!("HKDF refuses to expand a key"))?;
    Ok(Key::from(okm))
}

fn mac(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sign(key, &parts.concat());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_and_every_secret_has_a_key_of_its_own() {
        let (old, new) = (Secret::new("0123456789abcdef0123456789abcdef"), Secret::new("f".repeat(32)));
        let keys = Keys::derive(&new, &old).unwrap();
        let before = Keys::derive(&old, &Secret::default()).unwrap();
        let text = "x".repeat(32);
        let parent: [u8; 32] = text.as_bytes().try_into().unwrap();
        let all = [
            keys.refresh_child(&parent),
            keys.csrf(&text, ""),
            keys.csrf("", &text),
            keys.csrf(&text[1..], "x"),
            keys.login(&text),
            before.refresh_child(&parent),
            before.csrf(&text, ""),
            before.login(&text),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[..n].contains(one), "{n}");
        }
        assert_eq!(keys.refresh_child(&parent), keys.refresh_child(&parent));
        assert_eq!(keys.previous_csrf(&text, ""), Some(before.csrf(&text, "")));
        assert_eq!(before.previous_csrf(&text, ""), None);
        assert_eq!(format!("{keys:?}"), "Keys(redacted)");
    }
}
