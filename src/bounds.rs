//! What an amount and a time may be, and how an amount is written: stated once, for requests, the
//! ledger, reports, imports and the events of providers.

use std::ops::Range;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::http::extract::FieldErrors;

/// Most whole rubles that numeric(12, 2) holds, for every amount below it to fit.
pub const MOST_RUBLES: Decimal = Decimal::from_parts(1_410_065_407, 2, 0, false, 0);

/// 2000 to 2099, in unix seconds: what lies outside is a typing error or another unit, and may be more
/// than the database can hold.
pub const PLAUSIBLE_SECONDS: Range<i64> = 946_684_800..4_102_444_800;

/// Whether a time lies between 2000 and 2100.
#[must_use]
pub fn is_plausible(at: &DateTime<Utc>) -> bool {
    PLAUSIBLE_SECONDS.contains(&at.timestamp())
}

/// Checks a time that may be missing.
pub fn check_time(errors: &mut FieldErrors, value: Option<DateTime<Utc>>, pointer: &str) {
    errors.check(value.as_ref().is_none_or(is_plausible), pointer, "must lie between 2000 and 2100");
}

/// Checks the period of a list's filters, of which either end may be open.
pub fn check_period(errors: &mut FieldErrors, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) {
    check_time(errors, from, "from");
    check_time(errors, to, "to");
    if let (Some(from), Some(to)) = (from, to) {
        errors.check(from < to, "to", "must be after from");
    }
}

/// Checks what numeric(12, 2) can hold of an amount; its sign is for the caller to judge.
pub fn check_size(errors: &mut FieldErrors, amount: Decimal, pointer: &str) {
    errors.check(amount <= MOST_RUBLES, pointer, "is too large");
    errors.check(amount.normalize().scale() <= 2, pointer, "must have at most two decimals");
}

/// Money has two decimals, whatever the scale of the number at hand: a zero from the database has none.
///
/// # Errors
/// As the serializer.
pub fn rubles<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    let mut amount = *amount;
    amount.rescale(2);
    Serialize::serialize(&amount, serializer)
}

/// The same for an amount that may be unknown.
///
/// # Errors
/// As the serializer.
pub fn optional_rubles<S: Serializer>(amount: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    match amount {
        Some(amount) => rubles(amount, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_amount_is_what_it_says() {
        assert_eq!(MOST_RUBLES, Decimal::from(9_999_999_999_i64));
    }
}
