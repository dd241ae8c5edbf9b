//! Refresh tokens, pure: 256 bits that say nothing, good for one exchange. Each is made from the one
//! before ([`Keys::refresh_child`]), so that those who refresh side by side get the same answer although
//! only hashes are kept. What is stored, and in which transaction, is in [`super::sessions`].

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::keys::Keys;
use crate::config::Secret;

/// What every refresh token begins with, so that scanners for secrets can find one that lies around.
const PREFIX: &str = "swr_";
/// Two that present a token within this time of each other are tabs of one browser, or one client that
/// did not get its answer. On the database's clock.
const SIDE_BY_SIDE_MS: i64 = 10_000;

/// What is kept of a refresh token: its SHA-256. With 256 random bits there is nothing to guess, so a slow
/// hash would gain nothing.
pub type Hash = [u8; 32];

/// A refresh token.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken(redacted)")
    }
}

impl RefreshToken {
    /// The first one of a session.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What somebody presents, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// As it is handed out.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0)))
    }

    /// As it is kept.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.0).into()
    }

    /// The one that follows it.
    #[must_use]
    pub fn child(&self, keys: &Keys) -> Self {
        Self(keys.refresh_child(&self.0))
    }

    /// The first token after this one that nobody has used. `unused` tells of each that was made since
    /// whether it is so. One that is missing there has yet to be made: another key, as there is while the
    /// secret changes, made another child.
    #[must_use]
    pub fn heir(&self, keys: &Keys, unused: &HashMap<Hash, bool>) -> Self {
        let mut heir = self.child(keys);
        while unused.get(&heir.hash()) == Some(&false) {
            heir = heir.child(keys);
        }
        heir
    }
}

/// What it means that somebody presents a refresh token of a live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is its turn.
    First,
    /// It was used a moment ago, by whoever holds it.
    SideBySide,
    /// It was used long ago, or comes by another way than it was given out: there is a copy of it.
    Copied,
}

impl Use {
    /// By how long ago it was used, if ever, in milliseconds, and whether it comes `as_given`: a browser's in
    /// a cookie, a program's in a body. Nobody but a holder of the token can present it the other way.
    #[must_use]
    pub const fn of(used_ms_ago: Option<i64>, as_given: bool) -> Self {
        match used_ms_ago {
            None if as_given => Self::First,
            Some(ago) if as_given && ago <= SIDE_BY_SIDE_MS => Self::SideBySide,
            _ => Self::Copied,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(secret: &str) -> Keys {
        Keys::derive(&Secret::new(secret.repeat(32)), &Secret::default()).unwrap()
    }

    #[test]
    fn a_token_is_256_random_bits_with_a_prefix() {
        let token = RefreshToken::random();
        let text = token.text();
        assert_eq!(text.expose().len(), 4 + 43);
        assert_eq!(RefreshToken::parse(text.expose()), Some(token.clone()));
        assert_ne!(RefreshToken::random(), token);
        let zeros = RefreshToken([0; 32]);
        assert_eq!(zeros.text().expose(), format!("swr_{}", "A".repeat(43)));
        // SHA-256 of 32 zero bytes.
        let [first, second, ..] = zeros.hash();
        assert_eq!((first, second), (0x66, 0x68));
        assert_eq!(format!("{token:?}"), "RefreshToken(redacted)");
    }

    #[test]
    fn a_token_has_one_spelling() {
        let text = RefreshToken([0; 32]).text().expose().to_owned();
        let longer = format!("{text}A");
        // The last letter holds two bits that no byte needs.
        let other_bits = format!("{}B", &text[..text.len() - 1]);
        let padded = format!("{text}=");
        let upper = text.replacen("swr_", "SWR_", 1);
        for other in ["", "swr_", &text[4..], &text[..text.len() - 1], &longer, &other_bits, &padded, &upper] {
            assert_eq!(RefreshToken::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_child_is_the_same_for_everybody_who_has_the_key() {
        let parent = RefreshToken::random();
        let child = parent.child(&keys("a"));
        assert_eq!(child, parent.child(&keys("a")));
        assert_ne!(child, parent);
        assert_ne!(child, parent.child(&keys("b")));
        assert_ne!(child, RefreshToken::random().child(&keys("a")));
    }

    #[test]
    fn the_heir_is_the_first_that_is_unused() {
        let keys = keys("a");
        let parent = RefreshToken::random();
        let child = parent.child(&keys);
        let grandchild = child.child(&keys);
        let heir = |unused: &[(&RefreshToken, bool)]| {
            parent.heir(&keys, &unused.iter().map(|(token, unused)| (token.hash(), *unused)).collect())
        };
        assert_eq!(heir(&[(&parent, false), (&child, true)]), child);
        assert_eq!(heir(&[(&parent, false), (&child, false), (&grandchild, true)]), grandchild);
        // Another key made another child: this one has yet to be made.
        let stranger = RefreshToken::random();
        assert_eq!(heir(&[(&parent, false), (&stranger, true)]), child);
        assert_eq!(heir(&[]), child);
    }

    #[test]
    fn ten_seconds_apart_is_side_by_side_and_later_is_a_replay() {
        for (used_ms_ago, expected) in [
            (None, Use::First),
            (Some(-1), Use::SideBySide),
            (Some(0), Use::SideBySide),
            (Some(10_000), Use::SideBySide),
            (Some(10_001), Use::Copied),
            (Some(i64::MAX), Use::Copied),
        ] {
            assert_eq!(Use::of(used_ms_ago, true), expected, "{used_ms_ago:?}");
            assert_eq!(Use::of(used_ms_ago, false), Use::Copied, "{used_ms_ago:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_read_is_written_the_same(text in ".{0,60}", tail in "[A-Za-z0-9_=-]{40,46}") {
            prop_assert!(RefreshToken::parse(&text).is_none_or(|token| token.text().expose() == text));
            let text = format!("{PREFIX}{tail}");
            prop_assert!(RefreshToken::parse(&text).is_none_or(|token| token.text().expose() == text));
        }
    }
}
