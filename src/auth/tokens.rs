//! Access tokens: JWT (RFC 7519) in the profile of RFC 9068, HS256 and nothing else. The library's
//! defaults are laxer than we want, so every check is stated here.

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{clock::Clock, config::Secret};

const ISSUER: &str = "switchboard";
const AUDIENCE: &str = "switchboard-api";
const TYPE: &str = "at+jwt";
/// Clock difference between replicas that is forgiven, seconds.
const LEEWAY: i64 = 30;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// User id.
    pub sub: String,
    /// Session id.
    pub sid: String,
    /// Token id.
    pub jti: String,
    /// Issued at, Unix seconds.
    pub iat: i64,
    /// Not before, Unix seconds.
    pub nbf: i64,
    /// Expires, Unix seconds.
    pub exp: i64,
}

/// Why a token is not accepted. The client is told nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid")]
pub struct InvalidToken;

/// Signs and verifies access tokens.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    lifetime: TimeDelta,
    clock: Clock,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens signed with `secret` that live for `lifetime`.
    #[must_use]
    pub fn new(secret: &Secret, lifetime: TimeDelta, clock: Clock) -> Self {
        let bytes = secret.expose().as_bytes();
        // Names the key without telling it: rotation can then keep two keys apart.
        let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
        let key_id = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
        Self {
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            key_id,
            lifetime,
            clock,
        }
    }

    /// A token for a session, and when it expires.
    ///
    /// # Errors
    /// When signing fails, which for HMAC it does not.
    pub fn issue(
        &self,
        user_id: i64,
        session_id: &str,
    ) -> Result<(String, DateTime<Utc>), jsonwebtoken::errors::Error> {
        let now = self.clock.now();
        let expires = now + self.lifetime;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id.to_string(),
            sid: session_id.to_owned(),
            jti: random_id(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            exp: expires.timestamp(),
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.encoding).map(|token| (token, expires))
    }

    /// What a token says, if it is ours, meant for us and of now.
    ///
    /// # Errors
    /// [`InvalidToken`], whatever is wrong.
    pub fn verify(&self, token: &str) -> Result<Claims, InvalidToken> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // The library reads the machine's clock; ours can be told the time.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let TokenData { header, claims, .. } =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).map_err(|_| InvalidToken)?;
        let now = self.clock.now().timestamp();
        let timely = claims.nbf <= now + LEEWAY && claims.exp > now - LEEWAY;
        let ours = header.typ.as_deref() == Some(TYPE) && header.kid.as_deref() == Some(&self.key_id);
        if timely && ours { Ok(claims) } else { Err(InvalidToken) }
    }
}

/// 128 random bits, hexadecimal.
#[must_use]
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::ManualClock;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn tokens() -> (Tokens, ManualClock) {
        let clock = ManualClock::at(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        (Tokens::new(&Secret::new(SECRET), TimeDelta::minutes(15), Clock::Manual(clock.clone())), clock)
    }

    fn forge(secret: &str, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_fresh_token_is_accepted_and_an_old_or_future_one_is_not() {
        let (tokens, clock) = tokens();
        let (token, _) = tokens.issue(7, &random_id()).unwrap();
        assert_eq!(tokens.verify(&token).unwrap().sub, "7");
        clock.advance(TimeDelta::minutes(15) + TimeDelta::seconds(LEEWAY));
        assert_eq!(tokens.verify(&token), Err(InvalidToken));
        clock.advance(-TimeDelta::minutes(16) - TimeDelta::seconds(LEEWAY));
        assert_eq!(tokens.verify(&token), Err(InvalidToken));
    }

    #[test]
    fn every_mutation_is_rejected() {
        let (tokens, _) = tokens();
        let (token, _) = tokens.issue(7, &random_id()).unwrap();
        let good = serde_json::to_value(tokens.verify(&token).unwrap()).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert!(tokens.verify(&forge(SECRET, &header, &good)).is_ok(), "the forge itself works");

        for claim in ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(claim);
            assert!(tokens.verify(&forge(SECRET, &header, &claims)).is_err(), "without {claim}");
        }
        for (claim, value) in
            [("iss", json!("other")), ("aud", json!("other")), ("exp", json!(1)), ("nbf", json!(9_999_999_999_i64))]
        {
            let mut claims = good.clone();
            claims[claim] = value;
            assert!(tokens.verify(&forge(SECRET, &header, &claims)).is_err(), "wrong {claim}");
        }
        let changed = |change: fn(&mut Header)| {
            let mut header = header.clone();
            change(&mut header);
            header
        };
        for header in [
            changed(|header| header.alg = Algorithm::HS384),
            changed(|header| header.typ = Some("JWT".to_owned())),
            changed(|header| header.typ = None),
            changed(|header| header.kid = Some("00000000".to_owned())),
            changed(|header| header.kid = None),
        ] {
            assert!(tokens.verify(&forge(SECRET, &header, &good)).is_err(), "{header:?}");
        }
        assert!(tokens.verify(&forge("another secret of thirty-two bytes", &header, &good)).is_err());
        // alg "none", unsigned: {"alg":"none","typ":"at+jwt"}
        let payload = token.split('.').nth(1).unwrap();
        assert!(tokens.verify(&format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{payload}.")).is_err());
        assert!(tokens.verify("").is_err());
    }
}
