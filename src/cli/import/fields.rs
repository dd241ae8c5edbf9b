//! What the values of a row mean. Every problem of a row is collected, with the heading of its column;
//! values are not quoted, because reasons are kept in the database and a value may be personal data.

use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;

use super::table::{Table, fold};
use crate::{
    bounds::{MOST_RUBLES, is_plausible},
    phone,
};

/// The values of one row, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    table: &'a Table,
    values: &'a [String],
    problems: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Of a row that has values.
    pub fn new(table: &'a Table, values: &'a [String]) -> Self {
        Self { table, values, problems: Vec::new() }
    }

    /// All problems so far in one line; `None` when there are none.
    pub fn problems(self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    /// Notes a problem with a column.
    pub fn problem(&mut self, name: &'static str, problem: &str) {
        let heading = self.table.column(name).map_or(name, |(_, heading)| heading);
        self.problems.push(format!("{heading}: {problem}"));
    }

    /// Notes a problem unless `holds`.
    pub fn check(&mut self, holds: bool, name: &'static str, problem: &str) {
        if !holds {
            self.problem(name, problem);
        }
    }

    /// The value; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let (index, _) = self.table.column(name)?;
        self.values.get(index).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A value that must be there.
    pub fn required(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.get(name);
        self.check(value.is_some(), name, "is missing");
        value
    }

    /// A text of at most so many characters.
    pub fn text(&mut self, name: &'static str, most: usize) -> Option<String> {
        let value = self.get(name)?;
        let length = value.chars().count();
        self.check(length <= most, name, &format!("has {length} characters; at most {most} fit"));
        Some(value.to_owned())
    }

    /// The old system's number of the row.
    pub fn number(&mut self) -> Option<String> {
        self.required("number")?;
        self.text("number", 64)
    }

    /// A phone number, as E.164.
    pub fn phone(&mut self, name: &'static str, region: &str) -> Option<String> {
        let e164 = phone::normalise(self.required(name)?, region);
        self.check(e164.is_some(), name, "is no phone number");
        e164
    }

    /// Rubles and kopecks: spaces, a comma and a currency are fine.
    pub fn money(&mut self, name: &'static str) -> Option<Decimal> {
        let Some(amount) = rubles(self.get(name)?) else {
            self.problem(name, "is no amount of money");
            return None;
        };
        self.check(amount >= Decimal::ZERO, name, "must not be negative");
        self.check(amount <= MOST_RUBLES, name, "is too large");
        self.check(amount.normalize().scale() <= 2, name, "has more than two decimals");
        Some(amount)
    }

    /// A date with its time, in the city's zone unless it says another.
    pub fn time(&mut self, name: &'static str, zone: Tz) -> Option<DateTime<Utc>> {
        match moment(self.get(name)?, zone) {
            Ok(at) => Some(at),
            Err(problem) => {
                self.problem(name, problem);
                None
            }
        }
    }

    /// One of a closed set, by any of its names.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(T, &[&str])]) -> Option<T> {
        let wanted = fold(self.get(name)?);
        let found = choices.iter().find(|(_, names)| names.iter().any(|known| fold(known) == wanted));
        if found.is_none() {
            let known: Vec<&str> = choices.iter().filter_map(|(_, names)| names.first().copied()).collect();
            self.problem(name, &format!("is none of {}", known.join(", ")));
        }
        found.map(|(choice, _)| *choice)
    }
}

fn rubles(text: &str) -> Option<Decimal> {
    let text = text.to_lowercase();
    let text = ["руб.", "руб", "р.", "₽"].iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(&text);
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '\'').collect();
    // Where both occur, the last one is that of the decimals: 1.234,50 and 1,234.50.
    let text = match (text.rfind(','), text.rfind('.')) {
        (Some(comma), Some(dot)) if comma > dot => text.replace('.', "").replace(',', "."),
        (Some(_), Some(_)) => text.replace(',', ""),
        _ => text.replace(',', "."),
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let plain =
        digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if plain { text.parse().ok() } else { None }
}

fn moment(text: &str, zone: Tz) -> Result<DateTime<Utc>, &'static str> {
    const FORMATS: [&str; 6] = [
        "%d.%m.%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M",
    ];
    let at = if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        at.with_timezone(&Utc)
    } else {
        let local = FORMATS
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .ok_or("is no date and time that exists; write DD.MM.YYYY HH:MM")?;
        // An hour that the clocks pass twice is taken the first time.
        let at = zone.from_local_datetime(&local).earliest();
        at.ok_or("does not exist in the city: the clocks went forward over it")?.with_timezone(&Utc)
    };
    if is_plausible(&at) { Ok(at) } else { Err("must lie between 2000 and 2100") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_an_amount_and_a_moment_or_none(text in "[-0-9.,:TZ+ /р₽'\\PC]{0,24}", units in 0..=99_999_999_i64) {
            if let Ok(at) = moment(&text, chrono_tz::Asia::Novosibirsk) {
                prop_assert!(is_plausible(&at));
            }
            let _ = rubles(&text);
            let amount = Decimal::new(units, 2);
            prop_assert_eq!(rubles(&amount.to_string()), Some(amount));
            prop_assert_eq!(rubles(&format!("{} ₽", amount.to_string().replace('.', ","))), Some(amount));
        }
    }

    #[test]
    fn money_is_read_as_people_write_it() {
        for (text, expected) in [
            ("5000", "5000"),
            ("5 000,50", "5000.50"),
            ("5\u{a0}000.5 ₽", "5000.5"),
            ("1.234,50 руб.", "1234.50"),
            ("1,234.50", "1234.50"),
            ("-10", "-10"),
        ] {
            assert_eq!(rubles(text), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "много", "1e9", "--1", "1.2.3", "0x10", "+5"] {
            assert_eq!(rubles(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_those_of_the_city_and_must_exist() {
        let zone = chrono_tz::Asia::Novosibirsk;
        let expected: DateTime<Utc> = "2026-03-01T02:30:00Z".parse().unwrap();
        for text in ["01.03.2026 09:30", "01.03.2026 09:30:00", "2026-03-01 09:30", "2026-03-01T05:30:00+03:00"] {
            assert_eq!(moment(text, zone), Ok(expected), "{text}");
        }
        for text in ["31.02.2026 10:00", "01.03.2026", "01.13.2026 10:00", "01.03.2026 25:00", "вчера", "01.03.26 9:30"]
        {
            assert!(moment(text, zone).is_err(), "{text}");
        }
        assert!(moment("29.03.2026 02:30", chrono_tz::Europe::Berlin).unwrap_err().contains("forward"));
        assert!(moment("01.01.1970 00:00", zone).unwrap_err().contains("2000"));
    }
}
