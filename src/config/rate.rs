//! A rate as settings write it: `10/min`, or `10/min burst 30`.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// So many actions a period, refilled evenly, and so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Actions a period.
    pub count: NonZeroU32,
    /// A second, a minute or an hour.
    pub period: Duration,
    /// Actions at once.
    pub burst: NonZeroU32,
}

/// The most that can be asked for: beyond it, the time between two actions is under a microsecond.
const MOST: u32 = 1_000_000;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate such as \"10/min\", \"10/s\" or \"40/h burst 80\"");
        let number = |text: &str| text.trim().parse().ok().filter(|number: &NonZeroU32| number.get() <= MOST);
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(number(burst).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(wrong)?;
        let count = number(count).ok_or_else(wrong)?;
        let period = match unit.trim() {
            "s" => Duration::from_secs(1),
            "min" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(wrong()),
        };
        Ok(Self { count, period, burst: burst.unwrap_or(count) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)?;
        if self.burst == self.count { Ok(()) } else { write!(f, " burst {}", self.burst) }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["10/min", "1/s", "40/h", "40/h burst 80", "1000000/s burst 1"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("10/min burst 10".parse::<Rate>().unwrap().to_string(), "10/min");
        for text in ["", "10", "10/day", "0/s", "-1/s", "1.5/s", "10/min burst 0", "10/min burst", "1000001/s", "/s"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("10/min"), "{text}: {error}");
        }
    }
}
