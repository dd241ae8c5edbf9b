//! A value as it lies in Redis: its version, its ETag, a line break, and the JSON.

use bytes::Bytes;

use crate::http::caching::Tagged;

/// JSON, and how new it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Of its domain, known before it was loaded: it has in it at least all that this version has.
    pub version: i64,
    pub tagged: Tagged,
}

impl Value {
    /// For Redis.
    pub fn encode(&self) -> Vec<u8> {
        let head = format!("{} ", self.version);
        [head.as_bytes(), self.tagged.tag().as_bytes(), b"\n", self.tagged.body()].concat()
    }

    /// From Redis. What is not whole, or something else altogether, is none.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (version, tag) = str::from_utf8(&bytes[..end]).ok()?.split_once(' ')?;
        let version = version.parse().ok()?;
        let tagged = Tagged::new(bytes.slice(end + 1..));
        (tagged.tag() == tag).then_some(Self { version, tagged })
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.tagged.body().len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(version: i64, body: &str) -> Value {
        Value { version, tagged: Tagged::new(Bytes::from(body.to_owned())) }
    }

    #[test]
    fn comes_back_as_it_was_and_not_at_all_when_something_is_missing() {
        let whole = value(7, "[\"Омск\"]\n");
        let bytes = Bytes::from(whole.encode());
        assert_eq!(Value::decode(&bytes), Some(whole));
        for length in 0..bytes.len() {
            assert_eq!(Value::decode(&bytes.slice(..length)), None, "{length} of {}", bytes.len());
        }
        let other = value(7, "[\"Томск\"]\n").encode();
        let mixed = [&bytes[..40], &other[40..]].concat();
        assert_eq!(Value::decode(&Bytes::from(mixed)), None);
    }

    proptest! {
        #[test]
        fn garbage_is_none_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Value::decode(&Bytes::from(bytes)), None);
        }
    }
}
