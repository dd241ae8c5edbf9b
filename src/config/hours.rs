//! Business hours as settings write them: `Mon-Sat 08:00-20:00 Europe/Moscow`.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, Days, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The same span of each day, from one weekday to another, as clocks show it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusinessHours {
    from: Weekday,
    /// Included.
    until: Weekday,
    opens: NaiveTime,
    /// None: at midnight.
    closes: Option<NaiveTime>,
    zone: Tz,
}

/// By how much clocks are put forward, at most.
const CHANGE: TimeDelta = TimeDelta::hours(1);

impl BusinessHours {
    /// When the hours that it is in began; none outside of them. Where the clock is put forward over the opening, that
    /// is an hour later.
    #[must_use]
    pub fn opened(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = now.with_timezone(&self.zone);
        let since = |day: Weekday| day.days_since(self.from);
        let is_open = since(local.weekday()) <= since(self.until)
            && local.time() >= self.opens
            && self.closes.is_none_or(|closes| local.time() < closes);
        if !is_open {
            return None;
        }
        // Days without a night between them are one span; a week of them has no beginning.
        let days = match (self.opens == NaiveTime::MIN && self.closes.is_none(), self.until.succ() == self.from) {
            (true, true) => 7,
            (true, false) => since(local.weekday()),
            (false, _) => 0,
        };
        let at = (local.date_naive() - Days::new(days.into())).and_time(self.opens);
        let opened = [at, at + CHANGE].iter().find_map(|at| self.zone.from_local_datetime(at).earliest())?;
        Some(now.min(opened.with_timezone(&Utc)))
    }
}

impl FromStr for BusinessHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} are no hours such as \"Mon-Sat 08:00-20:00 Europe/Moscow\" or \"Mon-Sun 00:00-24:00 UTC\""
            )
        };
        let read = || {
            let [days, span, zone] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let (from, until) = days.split_once('-').unwrap_or((days, days));
            let (opens, closes) = span.split_once('-')?;
            let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").ok();
            let opens = time(opens)?;
            let closes = if closes == "24:00" { None } else { Some(time(closes)?) };
            let (from, until, zone) = (from.parse().ok()?, until.parse().ok()?, zone.parse().ok()?);
            closes.is_none_or(|closes| opens < closes).then_some(Self { from, until, opens, closes, zone })
        };
        read().ok_or_else(wrong)
    }
}

impl fmt::Display for BusinessHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closes = self.closes.map_or_else(|| "24:00".to_owned(), |closes| closes.format("%H:%M").to_string());
        write!(f, "{}", self.from)?;
        if self.until != self.from {
            write!(f, "-{}", self.until)?;
        }
        write!(f, " {}-{closes} {}", self.opens.format("%H:%M"), self.zone)
    }
}

impl<'de> Deserialize<'de> for BusinessHours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(hours: &str, now: &str) -> Option<String> {
        let hours: BusinessHours = hours.parse().unwrap();
        hours.opened(now.parse().unwrap()).map(|at| at.format("%a %H:%M").to_string())
    }

    #[test]
    fn hours_are_read_as_they_are_written() {
        for text in ["Mon-Sat 08:00-20:00 Europe/Moscow", "Sat-Mon 10:30-18:00 Asia/Omsk", "Fri 00:00-24:00 UTC"] {
            assert_eq!(text.parse::<BusinessHours>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Mon-Sat 08:00-20:00",
            "Mon-Sat 08:00-20:00 Europe/Mars",
            "Mon-Sat  08:00-20:00 UTC",
            "Mon-Sat UTC",
            "08:00-20:00 UTC",
            "Mon-Sat 20:00-08:00 UTC",
            "Mon-Sat 08:00-08:00 UTC",
            "Mon-Sat 8-20 UTC",
            "Mon-Sat 08:00-25:00 UTC",
            "Mon-Someday 08:00-20:00 UTC",
        ] {
            let error = text.parse::<BusinessHours>().unwrap_err();
            assert!(error.contains("Mon-Sat 08:00-20:00"), "{text}: {error}");
        }
    }

    #[test]
    fn they_begin_at_the_opening_and_end_before_the_close() {
        let moscow = |now| opened("Mon-Sat 08:00-20:00 Europe/Moscow", now);
        // 20 November 2026 is a Friday.
        assert_eq!(moscow("2026-11-20T04:59:59.999999Z"), None);
        assert_eq!(moscow("2026-11-20T05:00:00Z").as_deref(), Some("Fri 05:00"));
        assert_eq!(moscow("2026-11-20T16:59:59.999999Z").as_deref(), Some("Fri 05:00"));
        assert_eq!(moscow("2026-11-20T17:00:00Z"), None);
        assert_eq!(moscow("2026-11-21T12:00:00Z").as_deref(), Some("Sat 05:00"));
        assert_eq!(moscow("2026-11-22T12:00:00Z"), None);
    }

    #[test]
    fn days_are_those_of_the_place_and_may_go_over_the_week() {
        let late = |now| opened("Sat-Mon 01:00-24:00 Asia/Omsk", now);
        assert_eq!(late("2026-11-20T18:59:59Z"), None);
        assert_eq!(late("2026-11-20T19:00:00Z").as_deref(), Some("Fri 19:00"));
        assert_eq!(late("2026-11-23T17:59:59Z").as_deref(), Some("Sun 19:00"));
        assert_eq!(late("2026-11-23T18:00:00Z"), None);
    }

    #[test]
    fn days_without_a_night_are_one_span() {
        let weekend = |now| opened("Sat-Mon 00:00-24:00 Asia/Omsk", now);
        assert_eq!(weekend("2026-11-20T17:59:59Z"), None);
        assert_eq!(weekend("2026-11-20T18:00:00Z").as_deref(), Some("Fri 18:00"));
        assert_eq!(weekend("2026-11-23T17:59:59Z").as_deref(), Some("Fri 18:00"));
        assert_eq!(weekend("2026-11-23T18:00:00Z"), None);
        let hours: BusinessHours = "Thu-Wed 00:00-24:00 UTC".parse().unwrap();
        let now = "2026-11-20T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
        assert_eq!(hours.opened(now), Some(now - TimeDelta::weeks(1)));
    }

    #[test]
    fn summer_time_moves_them() {
        let berlin = |now| opened("Mon-Sun 02:30-20:00 Europe/Berlin", now);
        assert_eq!(berlin("2026-07-01T12:00:00Z").as_deref(), Some("Wed 00:30"));
        assert_eq!(berlin("2026-12-01T12:00:00Z").as_deref(), Some("Tue 01:30"));
        // On 29 March 2026 there is no 02:30: 01:00 UTC is 03:00.
        assert_eq!(berlin("2026-03-29T00:59:59Z"), None);
        assert_eq!(berlin("2026-03-29T01:00:00Z").as_deref(), Some("Sun 01:00"));
        assert_eq!(berlin("2026-03-29T12:00:00Z").as_deref(), Some("Sun 01:30"));
    }
}
