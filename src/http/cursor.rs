//! Keyset pagination: a page ends with an opaque cursor that names its last row by (time, id); the
//! next page starts below it. Stable while rows are added, and as fast on page 1000 as on page 1.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{FieldErrors, Validate};
use crate::error::AppError;

/// Most items of a page.
pub const MAX_LIMIT: i64 = 200;
/// Items of a page unless asked otherwise.
pub const DEFAULT_LIMIT: i64 = 50;

/// A position in a list ordered by time and id, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row seen.
    pub at: DateTime<Utc>,
    /// Of the last row seen.
    pub id: i64,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, in the order that the list promises.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last.
    #[schema(example = "AAZTm6aJQAAAAAAAAAAEEg")]
    pub next_cursor: Option<String>,
}

impl Cursor {
    /// The opaque form.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.at.timestamp_micros().to_be_bytes());
        bytes[8..].copy_from_slice(&self.id.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a `cursor` parameter.
    ///
    /// # Errors
    /// 422 for anything that [`Cursor::encode`] did not make.
    pub fn decode(text: &str) -> Result<Self, AppError> {
        let parse = || {
            let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
            let (at, id) = bytes.split_at(8);
            let at = DateTime::from_timestamp_micros(i64::from_be_bytes(at.try_into().ok()?))?;
            // Outside PostgreSQL's range the query would fail rather than the parameter.
            let in_range = (0..4_000_000_000).contains(&at.timestamp());
            in_range.then_some(Self { at, id: i64::from_be_bytes(id.try_into().ok()?) })
        };
        parse().ok_or_else(|| AppError::invalid_field("cursor", "is not a cursor of this list; start without one"))
    }
}

impl<T> Page<T> {
    /// A page from `limit + 1` rows: the extra one only says that there is more.
    pub fn new(mut items: Vec<T>, limit: i64, position: impl Fn(&T) -> Cursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(|last| position(last).encode()) } else { None };
        Self { items, next_cursor }
    }
}

/// Where a page begins.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for PageParams {
    fn validate(&self, _: &mut FieldErrors) {}
}

impl PageParams {
    /// The position to continue after, and the page size.
    ///
    /// # Errors
    /// 422 for a cursor or a limit that is none.
    pub fn parse(&self) -> Result<(Option<Cursor>, i64), AppError> {
        Ok((self.cursor.as_deref().map(Cursor::decode).transpose()?, limit(self.limit)?))
    }
}

/// The page size for a `limit` parameter.
///
/// # Errors
/// 422 outside 1 to [`MAX_LIMIT`].
pub fn limit(asked: Option<i64>) -> Result<i64, AppError> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(AppError::invalid_field("limit", format!("must be between 1 and {MAX_LIMIT}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_survives_the_round_trip(micros in 0_i64..4_000_000_000_000_000, id: i64) {
            let cursor = Cursor { at: DateTime::from_timestamp_micros(micros).unwrap(), id };
            prop_assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }

        #[test]
        fn what_is_accepted_is_what_was_given_out(
            micros in 0_i64..4_000_000_000_000_000,
            id: i64,
            from in 0..4_usize,
            rest in "[A-Za-z0-9_= -]{0,3}",
        ) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let mut text = Cursor { at, id }.encode();
            text.truncate(text.len() - from);
            text.push_str(&rest);
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = Cursor::decode(&text);
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let at = DateTime::from_timestamp(0, 0).unwrap();
        let page = |rows: i64| Page::new((0..rows).collect(), 3, |id| Cursor { at, id: *id });
        assert!(page(3).next_cursor.is_none());
        let full = page(4);
        assert_eq!(full.items, [0, 1, 2]);
        assert_eq!(Cursor::decode(&full.next_cursor.unwrap()).unwrap().id, 2);
    }
}
