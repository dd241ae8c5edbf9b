//! Access tokens: JWT (RFC 7519) in the profile of RFC 9068, HS256 and nothing else. The library's
//! defaults are laxer than we want, so every check is stated here.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{clock::Clock, config::Secret};

const ISSUER: &str = "switchboard";
const AUDIENCE: &str = "switchboard-api";
const TYPE: &str = "at+jwt";
/// How wrong the clock of a replica may be, seconds: so much is forgiven at either end of a token's life.
/// A token begins its life that much early, so that one replica that is ahead and one that is behind
/// still agree.
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
    signing: EncodingKey,
    key_id: String,
    /// By key id: the current one, and while the secret is being changed the one before.
    verifying: Vec<(String, DecodingKey)>,
    /// What the library checks.
    validation: Validation,
    lifetime: TimeDelta,
    clock: Clock,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens signed with `current` that live for `lifetime`; those signed with `previous` are accepted too,
    /// unless that is empty.
    #[must_use]
    pub fn new(current: &Secret, previous: &Secret, lifetime: TimeDelta, clock: Clock) -> Self {
        let verifying = [current, previous]
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .map(|secret| (key_id(secret), DecodingKey::from_secret(secret.expose().as_bytes())))
            .collect();
        let signing = EncodingKey::from_secret(current.expose().as_bytes());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // The library reads the machine's clock; ours can be told the time.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self { signing, key_id: key_id(current), verifying, validation, lifetime, clock }
    }

    /// A token for a session that ends at `session_end`, and when the token expires: not later.
    ///
    /// # Errors
    /// When signing fails, which for HMAC it does not.
    pub fn issue(
        &self,
        user_id: i64,
        session_id: &str,
        session_end: DateTime<Utc>,
    ) -> Result<(Secret, DateTime<Utc>), jsonwebtoken::errors::Error> {
        let now = self.clock.now();
        let expires = (now + self.lifetime).min(session_end).trunc_subsecs(0);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id.to_string(),
            sid: session_id.to_owned(),
            jti: random_id(),
            iat: now.timestamp(),
            nbf: now.timestamp() - LEEWAY,
            exp: expires.timestamp(),
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.key_id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)?;
        Ok((Secret::new(token), expires))
    }

    /// What a token says, if it is ours, meant for us and of now.
    ///
    /// # Errors
    /// [`InvalidToken`], whatever is wrong.
    pub fn verify(&self, token: &str) -> Result<Claims, InvalidToken> {
        let named = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken)?.kid.ok_or(InvalidToken)?;
        let (_, key) = self.verifying.iter().find(|(id, _)| *id == named).ok_or(InvalidToken)?;
        let TokenData { header, claims, .. } =
            jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| InvalidToken)?;
        let now = self.clock.now().timestamp();
        let begun = claims.nbf <= now + LEEWAY && claims.iat <= now + 2 * LEEWAY;
        let over = claims.exp <= now - LEEWAY;
        let ours = header.typ.as_deref() == Some(TYPE) && !claims.jti.is_empty();
        if begun && !over && ours { Ok(claims) } else { Err(InvalidToken) }
    }
}

/// Names a key without telling it, so that two can be kept apart.
fn key_id(secret: &Secret) -> String {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(secret.expose().as_bytes()));
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

/// 128 random bits, hexadecimal.
#[must_use]
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Whether a text has the form of a [`random_id`].
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::ManualClock;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NEXT_SECRET: &str = "fedcba9876543210fedcba9876543210";
    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn with_secrets(current: &str, previous: &str) -> (Tokens, ManualClock) {
        let clock = ManualClock::at(at(NOW));
        let lifetime = TimeDelta::minutes(15);
        (Tokens::new(&Secret::new(current), &Secret::new(previous), lifetime, Clock::Manual(clock.clone())), clock)
    }

    fn tokens() -> (Tokens, ManualClock) {
        with_secrets(SECRET, "")
    }

    fn issue(tokens: &Tokens) -> String {
        let (token, expires) = tokens.issue(7, &random_id(), at(NOW + 86_400)).unwrap();
        assert_eq!(expires, at(NOW + 900));
        token.expose().to_owned()
    }

    fn forge(secret: &str, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_token_says_whose_session_it_is_and_for_how_long() {
        let (tokens, _) = tokens();
        let session = random_id();
        let (token, expires) = tokens.issue(7, &session, at(NOW + 86_400)).unwrap();
        let claims = tokens.verify(token.expose()).unwrap();
        assert_eq!((claims.sub.as_str(), &claims.sid), ("7", &session));
        assert_eq!((claims.iat, claims.nbf, claims.exp), (NOW, NOW - 30, NOW + 900));
        assert_eq!(expires, at(NOW + 900));
        assert!(is_id(&claims.jti));
        let (other, _) = tokens.issue(7, &session, at(NOW + 86_400)).unwrap();
        assert_ne!(tokens.verify(other.expose()).unwrap().jti, claims.jti);
    }

    #[test]
    fn a_token_does_not_outlive_its_session() {
        let (tokens, _) = tokens();
        for (session_end, expected) in [(899, 899), (900, 900), (901, 900)] {
            let (token, expires) = tokens.issue(7, &random_id(), at(NOW + session_end)).unwrap();
            assert_eq!(expires, at(NOW + expected));
            assert_eq!(tokens.verify(token.expose()).unwrap().exp, NOW + expected);
        }
    }

    #[test]
    fn clocks_may_differ_by_half_a_minute_and_no_more() {
        let (tokens, clock) = tokens();
        let token = issue(&tokens);
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let good = serde_json::to_value(tokens.verify(&token).unwrap()).unwrap();
        let accepts = |claim: &str, value: i64| {
            let mut claims = good.clone();
            claims[claim] = json!(value);
            tokens.verify(&forge(SECRET, &header, &claims)).is_ok()
        };
        assert!(accepts("exp", NOW - 29) && !accepts("exp", NOW - 30));
        assert!(accepts("nbf", NOW + 30) && !accepts("nbf", NOW + 31));
        assert!(accepts("iat", NOW + 60) && !accepts("iat", NOW + 61));
        // Of a replica half a minute ahead at one half a minute behind, which the token reaches at once.
        clock.advance(TimeDelta::seconds(-60));
        assert!(tokens.verify(&token).is_ok());
        clock.advance(TimeDelta::seconds(-1));
        assert_eq!(tokens.verify(&token), Err(InvalidToken));
        // And to its end.
        clock.advance(TimeDelta::seconds(61 + 900 + 29));
        assert!(tokens.verify(&token).is_ok());
        clock.advance(TimeDelta::seconds(1));
        assert_eq!(tokens.verify(&token), Err(InvalidToken));
    }

    #[test]
    fn while_the_secret_changes_the_old_ones_tokens_are_accepted_and_no_others() {
        let (before, _) = with_secrets(SECRET, "");
        let (during, _) = with_secrets(NEXT_SECRET, SECRET);
        let (after, _) = with_secrets(NEXT_SECRET, "");
        let (old, new) = (issue(&before), issue(&during));
        assert!(during.verify(&old).is_ok() && during.verify(&new).is_ok() && after.verify(&new).is_ok());
        assert_eq!(after.verify(&old), Err(InvalidToken));
        assert_eq!(before.verify(&new), Err(InvalidToken));
        // A key is good for the tokens that name it.
        let mut header = jsonwebtoken::decode_header(&old).unwrap();
        let claims = serde_json::to_value(during.verify(&old).unwrap()).unwrap();
        header.kid = jsonwebtoken::decode_header(&new).unwrap().kid;
        assert!(during.verify(&forge(SECRET, &header, &claims)).is_err());
        assert!(during.verify(&forge(NEXT_SECRET, &header, &claims)).is_ok(), "the forge itself works");
        // No secret is no key: what is signed with the empty one is nobody's.
        header.kid = Some(key_id(&Secret::default()));
        assert!(before.verify(&forge("", &header, &claims)).is_err());
    }

    #[test]
    fn every_mutation_is_rejected() {
        let (tokens, _) = tokens();
        let token = issue(&tokens);
        let good = serde_json::to_value(tokens.verify(&token).unwrap()).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert!(tokens.verify(&forge(SECRET, &header, &good)).is_ok(), "the forge itself works");

        for claim in ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(claim);
            assert!(tokens.verify(&forge(SECRET, &header, &claims)).is_err(), "without {claim}");
        }
        for (claim, value) in [
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("aud", json!(["switchboard-api"])),
            ("jti", json!("")),
            ("exp", json!(1)),
            ("exp", json!("9999999999")),
            ("nbf", json!(9_999_999_999_i64)),
            ("iat", json!(9_999_999_999_i64)),
        ] {
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
            changed(|header| header.alg = Algorithm::HS512),
            changed(|header| header.typ = Some("JWT".to_owned())),
            changed(|header| header.typ = Some("rt+jwt".to_owned())),
            changed(|header| header.typ = None),
            changed(|header| header.kid = Some("00000000".to_owned())),
            changed(|header| header.kid = None),
        ] {
            assert!(tokens.verify(&forge(SECRET, &header, &good)).is_err(), "{header:?}");
        }
        assert!(tokens.verify(&forge("another secret of thirty-two bytes", &header, &good)).is_err());
        // alg "none", unsigned: {"alg":"none","typ":"at+jwt"}, and the same with our key's name.
        let payload = token.split('.').nth(1).unwrap();
        let signature = token.rsplit('.').next().unwrap();
        assert!(tokens.verify(&format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{payload}.")).is_err());
        let none = json!({ "alg": "none", "typ": TYPE, "kid": header.kid }).to_string();
        let none = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, none);
        assert!(tokens.verify(&format!("{none}.{payload}.")).is_err());
        assert!(tokens.verify(&format!("{none}.{payload}.{signature}")).is_err());
        assert!(tokens.verify(&format!("{}.", token.rsplit_once('.').unwrap().0)).is_err(), "no signature");
        assert!(tokens.verify(&format!("{token}.{signature}")).is_err());
        assert!(tokens.verify("").is_err());
        // A refresh token is no access token.
        assert!(tokens.verify(crate::auth::refresh::RefreshToken::random().text().expose()).is_err());
    }

    #[test]
    fn ids_are_random_and_have_one_form() {
        let id = random_id();
        assert!(is_id(&id) && id != random_id());
        for no_id in ["", &id[1..], &format!("{id}0"), &id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")] {
            assert!(!is_id(no_id), "{no_id}");
        }
        assert!(!is_id(&"g".repeat(32)) && is_id(&"0".repeat(32)) && is_id(&"9af".repeat(11)[..32]));
    }

    #[test]
    fn what_is_printed_names_the_key_and_does_not_tell_it() {
        let (tokens, _) = tokens();
        let printed = format!("{tokens:?}");
        assert!(printed.contains(&tokens.key_id) && !printed.contains(SECRET), "{printed}");
        assert_eq!(tokens.key_id.len(), 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_that_somebody_made_up_is_a_token(text in ".{0,80}", parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,43}") {
            let (tokens, _) = tokens();
            prop_assert_eq!(tokens.verify(&text), Err(InvalidToken));
            prop_assert_eq!(tokens.verify(&parts), Err(InvalidToken));
        }

        #[test]
        fn a_token_with_one_letter_changed_is_no_token(position in 0_usize..300, letter in "[A-Za-z0-9_-]") {
            let (tokens, _) = tokens();
            let good = issue(&tokens);
            let position = position % good.len();
            let mut bad = good.clone();
            bad.replace_range(position..=position, &letter);
            prop_assert!(bad == good || tokens.verify(&bad).is_err());
        }
    }
}
