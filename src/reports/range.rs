//! The days that a report is about.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    error::{self, AppError},
    http::extract::{FieldErrors, Validate},
};

/// Most days of one report: a leap year.
const MOST_DAYS: i64 = 366;

/// Parameters of every report.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RangeParams {
    /// First day. Days are those of each city, from midnight to midnight in its own time zone.
    // Optional to serde only, so that a missing one is reported under its own name.
    #[param(required = true, nullable = false, value_type = NaiveDate, example = "2026-10-01")]
    pub from: Option<NaiveDate>,
    /// Last day, included to its end; at most 366 days in all.
    #[param(required = true, nullable = false, value_type = NaiveDate, example = "2026-10-31")]
    pub to: Option<NaiveDate>,
    /// Code of a city; all that one may see unless given.
    #[param(example = "novosibirsk")]
    pub city: Option<String>,
}

impl Validate for RangeParams {
    fn validate(&self, errors: &mut FieldErrors) {
        for (day, name) in [(self.from, "from"), (self.to, "to")] {
            errors.check(day.is_some(), name, "is required, as YYYY-MM-DD");
            let plausible = day.is_none_or(|day| (2000..2100).contains(&day.year()));
            errors.check(plausible, name, "must lie between 2000 and 2100");
        }
        if let (Some(from), Some(to)) = (self.from, self.to) {
            errors.check(from <= to, "to", "must not be before from");
            let days = (to - from).num_days() + 1;
            errors.check(days <= MOST_DAYS, "to", format!("must be within {MOST_DAYS} days, from included"));
        }
        errors.optional_text(self.city.as_deref(), 1..=40, "city");
    }
}

/// The same, complete.
#[derive(Clone, Debug, Serialize)]
pub struct Range {
    /// First day.
    pub from: NaiveDate,
    /// Last day, included.
    pub to: NaiveDate,
    /// Code of the only city to report on.
    pub city: Option<String>,
}

impl Range {
    /// A time before which the range has begun in no time zone: those of the world are at most 14 hours
    /// ahead.
    #[must_use]
    pub fn begins_anywhere(&self) -> DateTime<Utc> {
        self.from.and_time(NaiveTime::MIN).and_utc() - TimeDelta::days(1)
    }

    /// A time at which it has ended in all: at most 12 hours behind.
    #[must_use]
    pub fn has_ended_everywhere(&self) -> DateTime<Utc> {
        self.to.and_time(NaiveTime::MIN).and_utc() + TimeDelta::days(2)
    }
}

impl RangeParams {
    /// The range; [`RangeParams::validate`] has seen that it is whole.
    ///
    /// # Errors
    /// 422 if it is not.
    pub fn range(self) -> Result<Range, AppError> {
        let (Some(from), Some(to)) = (self.from, self.to) else { return Err(error::INVALID.into()) };
        Ok(Range { from, to, city: self.city })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(query: &str) -> String {
        let mut errors = FieldErrors::default();
        serde_urlencoded::from_str::<RangeParams>(query).unwrap().validate(&mut errors);
        errors.into_result().err().map(|error| format!("{error:?}")).unwrap_or_default()
    }

    #[test]
    fn a_range_is_whole_in_order_and_no_longer_than_a_leap_year() {
        assert_eq!(problems("from=2026-10-01&to=2026-10-01"), "");
        assert_eq!(problems("from=2028-01-01&to=2028-12-31"), "", "366 days");
        assert!(problems("from=2027-01-01&to=2028-01-02").contains("366 days"), "367 days");
        assert!(problems("from=2026-10-02&to=2026-10-01").contains("must not be before"));
        assert!(problems("to=2026-10-01").contains("is required"));
        assert!(problems("from=1999-12-31&to=2000-01-01").contains("2100"));
    }
}
