//! Passports of masters, sealed before they reach the database: AES-256-GCM with a random nonce, the
//! user's id as additional data, so that a sealed passport moved to another row does not open.
//!
//! The stored form is `v1.{fingerprint of the key}.{nonce and ciphertext, base64url}`; the fingerprint
//! tells a passport of another key from a damaged one.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::{
    config::Secret,
    http::extract::{FieldErrors, discreet},
};

const SCHEME: &str = "v1";
const KEY_BYTES: usize = 32;

/// What is written in a master's passport.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"series": "4509", "number": "123456", "issued_by": "UVD of Novosibirsk", "issued_on": "2015-03-20"}))]
pub struct Passport {
    /// Letters and digits; may be empty where passports have none.
    #[serde(deserialize_with = "discreet")]
    pub series: String,
    /// Letters and digits.
    #[serde(deserialize_with = "discreet")]
    pub number: String,
    /// The authority.
    #[serde(deserialize_with = "discreet")]
    pub issued_by: String,
    /// The day.
    #[serde(deserialize_with = "discreet")]
    pub issued_on: NaiveDate,
}

impl fmt::Debug for Passport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passport(redacted)")
    }
}

impl Passport {
    /// Adds an entry for every field that is not valid. Whether the day has come, the caller knows.
    pub fn validate(&self, errors: &mut FieldErrors) {
        let plain = |text: &str| text.chars().all(char::is_alphanumeric);
        errors.text(&self.series, 0..=10, "/passport/series");
        errors.check(plain(&self.series), "/passport/series", "must be letters and digits");
        errors.text(&self.number, 1..=20, "/passport/number");
        errors.check(plain(&self.number), "/passport/number", "must be letters and digits");
        errors.text(&self.issued_by, 1..=200, "/passport/issued_by");
    }
}

/// Why a sealed passport does not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// It was sealed under another key.
    #[error("it was sealed with another key than privacy.passport_key")]
    OtherKey,
    /// It is not what was sealed, or not for this user.
    #[error("it is damaged or belongs to another user")]
    Damaged,
}

/// Seals and opens passports with one key.
#[derive(Debug)]
pub struct Vault {
    key: RandomizedNonceKey,
    fingerprint: String,
}

impl Vault {
    /// The vault of a key of 64 hexadecimal digits; `None` when none is configured.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn new(key: &Secret) -> anyhow::Result<Option<Self>> {
        if key.is_empty() {
            return Ok(None);
        }
        let bytes = from_hex(key.expose()).filter(|bytes| bytes.len() == KEY_BYTES);
        let bytes = bytes.ok_or_else(|| anyhow::anyhow!("privacy.passport_key must be 64 hexadecimal digits"))?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| anyhow::anyhow!("privacy.passport_key cannot be used"))?;
        let digest = Sha256::digest(&bytes);
        let beginning = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let fingerprint = format!("{beginning:08x}");
        Ok(Some(Self { key, fingerprint }))
    }

    /// The form that is stored for this user.
    ///
    /// # Errors
    /// When the cipher fails, which it has no reason to.
    pub fn seal(&self, user_id: i64, passport: &Passport) -> anyhow::Result<String> {
        let mut sealed = serde_json::to_vec(passport)?;
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(user_id.to_be_bytes()), &mut sealed)
            .map_err(|_| anyhow::anyhow!("sealing a passport failed"))?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut sealed);
        Ok(format!("{SCHEME}.{}.{}", self.fingerprint, URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// What [`Vault::seal`] was given.
    ///
    /// # Errors
    /// When it was sealed with another key, for another user, or is damaged.
    pub fn open(&self, user_id: i64, stored: &str) -> Result<Passport, OpenError> {
        let mut parts = stored.splitn(3, '.');
        let (scheme, fingerprint) = (parts.next(), parts.next());
        if scheme != Some(SCHEME) {
            return Err(OpenError::Damaged);
        }
        if fingerprint != Some(self.fingerprint.as_str()) {
            return Err(OpenError::OtherKey);
        }
        let bytes = parts.next().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(OpenError::Damaged)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(OpenError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Damaged)?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(user_id.to_be_bytes()), &mut sealed)
            .map_err(|_| OpenError::Damaged)?;
        serde_json::from_slice(plain).map_err(|_| OpenError::Damaged)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair.first()? * 16 + pair.get(1)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(digit: char) -> Vault {
        Vault::new(&Secret::new(digit.to_string().repeat(64))).unwrap().unwrap()
    }

    fn passport() -> Passport {
        Passport {
            series: "4509".into(),
            number: "123456".into(),
            issued_by: "УВД Новосибирска".into(),
            issued_on: "2015-03-20".parse().unwrap(),
        }
    }

    #[test]
    fn a_passport_opens_for_its_user_with_its_key_and_not_otherwise() {
        let vault_a = vault('a');
        let stored = vault_a.seal(7, &passport()).unwrap();
        assert_eq!(vault_a.open(7, &stored).unwrap(), passport());
        assert_eq!(vault_a.open(8, &stored), Err(OpenError::Damaged));
        assert_eq!(vault('b').open(7, &stored), Err(OpenError::OtherKey));
        for damaged in [&stored[..stored.len() - 2], "", "v1", "v2.x.y", &stored.replace("v1.", "v1.v1.")] {
            assert!(vault_a.open(7, damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn the_same_passport_never_looks_the_same_and_never_lies_open() {
        let vault = vault('a');
        let (one, other) = (vault.seal(7, &passport()).unwrap(), vault.seal(7, &passport()).unwrap());
        assert_ne!(one, other);
        assert!(!one.contains("123456"));
        assert_eq!(format!("{:?}", passport()), "Passport(redacted)");
        assert!(!format!("{vault:?}").contains("aaaa"));
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        assert!(Vault::new(&Secret::default()).unwrap().is_none());
        for wrong in ["ab", &"g".repeat(64), &"a".repeat(63), &"я".repeat(32), &"+a".repeat(32)] {
            let error = Vault::new(&Secret::new(wrong)).unwrap_err().to_string();
            assert!(!error.contains(wrong), "{error}");
        }
    }
}
