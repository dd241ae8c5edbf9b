//! From query parameters to a filter that SQL can use.

use chrono::{DateTime, Utc};

use super::{model::ListParams, state::Status};
use crate::{
    db::Plans,
    dictionaries::Dictionaries,
    error::AppError,
    http::cursor::{self, Cursor},
    phone,
};

/// Fewest digits by which the end of a phone number is looked for.
const FEWEST_DIGITS: usize = 4;
/// Fewest characters that are taken as the beginning of a word; fewer are a whole word.
const SHORTEST_BEGINNING: usize = 3;
/// Most words of a search.
const MOST_WORDS: usize = 8;
/// The id of nothing, for a code that names nothing: the list is then empty.
const NOTHING: i64 = 0;

/// Filters of a list, parsed. Codes have become ids: to the planner a constant is worth more than a
/// look-up, because it knows how common it is.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub city: Option<i64>,
    pub statuses: Option<Vec<String>>,
    pub master: Option<i64>,
    pub kind: Option<i64>,
    pub campaign: Option<i64>,
    pub created_from: Option<DateTime<Utc>>,
    pub created_to: Option<DateTime<Utc>>,
    /// As [`phone_pattern`].
    pub phone: Option<String>,
    pub search: Search,
    pub after: Option<Cursor>,
    pub limit: i64,
}

/// What a free text looks for: a request is found by any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Whether there is one at all.
    pub given: bool,
    /// In the language of `to_tsquery`: all words, the last one also as a beginning.
    pub words: Option<String>,
    /// The request's number.
    pub number: Option<i64>,
    /// As [`phone_pattern`].
    pub phone: Option<String>,
}

impl Filter {
    /// Whether any value is as good as any other to the planner: what it needs is in order already. A rare type or a
    /// common word wants a plan of its own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self { kind, campaign, created_from, created_to, phone, search, .. } = self;
        let of_rows = kind.is_none() && campaign.is_none() && phone.is_none() && !search.given;
        of_rows && created_from.is_none() && created_to.is_none()
    }

    /// How the list is to be planned.
    #[must_use]
    pub fn plans(&self) -> Plans {
        if self.is_plain() { Plans::Kept } else { Plans::Fresh }
    }

    /// Parses what [`ListParams`] leaves as text.
    ///
    /// # Errors
    /// 422 for a status, phone, text, cursor or limit that is none.
    pub fn new(params: ListParams, region: &str, known: &Dictionaries) -> Result<Self, AppError> {
        let statuses = params.status.map(|list| {
            let parse = |name: &str| name.trim().parse::<Status>().map(|status| status.as_str().to_owned());
            list.split(',')
                .map(parse)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|detail| AppError::invalid_field("status", detail))
        });
        let phone = params.phone.map(|text| {
            phone_pattern(&text, region).ok_or_else(|| {
                let detail = format!("is neither a phone number nor the last {FEWEST_DIGITS} or more digits of one");
                AppError::invalid_field("phone", detail)
            })
        });
        let id = |found: Option<i64>| found.unwrap_or(NOTHING);
        Ok(Self {
            city: params.city.map(|code| id(known.cities.iter().find(|city| city.code == code).map(|city| city.id))),
            statuses: statuses.transpose()?,
            master: params.master,
            kind: params
                .r#type
                .map(|code| id(known.request_types.iter().find(|kind| kind.code == code).map(|kind| kind.id))),
            campaign: params
                .campaign
                .map(|code| id(known.campaigns.iter().find(|campaign| campaign.code == code).map(|found| found.id))),
            created_from: params.created_from,
            created_to: params.created_to,
            phone: phone.transpose()?,
            search: params.text.as_deref().map(|text| Search::parse(text, region)).transpose()?.unwrap_or_default(),
            after: params.cursor.as_deref().map(Cursor::decode).transpose()?,
            limit: cursor::limit(params.limit)?,
        })
    }
}

impl Search {
    /// Reads what a person typed into the one search box: a number of a request (`#1042`, `1042`), a phone
    /// in any usual form or its last digits, or words.
    ///
    /// # Errors
    /// 422 for a text without a letter or digit.
    pub fn parse(text: &str, region: &str) -> Result<Self, AppError> {
        let text = text.trim();
        let (text, is_number) = text.strip_prefix(['#', '№']).map_or((text, false), |rest| (rest.trim(), true));
        let number = text.parse().ok().filter(|number| *number > 0);
        let words = if is_number && number.is_some() { None } else { words(text) };
        let phone = if is_number { None } else { phone_pattern(text, region) };
        if number.is_none() && words.is_none() && phone.is_none() {
            return Err(AppError::invalid_field("text", "has no letter or digit to look for"));
        }
        Ok(Self { given: true, words, number, phone })
    }
}

/// The words of `text` for `to_tsquery('simple', …)`; `None` when there is none.
fn words(text: &str) -> Option<String> {
    // Letters and digits only, so nothing in a word can be an operator of the query language.
    let words = text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.take(MOST_WORDS).map(str::to_owned).collect();
    // The last word is the one that may not be typed to its end. The index reads everything that begins
    // with a prefix, so a short one would cost a good part of it; and who wants house 14 does not want 142.
    let last = words.last_mut()?;
    if last.chars().count() >= SHORTEST_BEGINNING && last.chars().any(char::is_alphabetic) {
        last.push_str(":*");
    }
    Some(words.join(" & "))
}

/// The LIKE pattern of a *reversed* E.164 number: the whole number, or one that ends in the given
/// digits. `None` when the text is neither.
fn phone_pattern(text: &str, region: &str) -> Option<String> {
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    if let Some(e164) = phone::normalise(text, region) {
        return Some(reversed(&e164));
    }
    let is_phone = text.chars().all(|character| character.is_ascii_digit() || " -()+".contains(character));
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    (is_phone && (FEWEST_DIGITS..=15).contains(&digits.len())).then(|| reversed(&digits) + "%")
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::http::extract::ValidQuery;

    #[test]
    fn the_search_box_knows_numbers_phones_and_words() {
        let search = |text: &str| Search::parse(text, "RU").unwrap();
        let given = |search: Search| Search { given: true, ..search };
        assert_eq!(search("#1042"), given(Search { number: Some(1042), ..Search::default() }));
        assert_eq!(
            search("1042"),
            given(Search {
                number: Some(1042),
                words: Some("1042".into()),
                phone: Some("2401%".into()),
                ..Search::default()
            })
        );
        assert_eq!(search("8 (913) 000-00-01").phone.as_deref(), Some("10000003197+"));
        assert_eq!(search("00-01").phone.as_deref(), Some("1000%"));
        assert_eq!(search(" ул. Ленина, 5 ").words.as_deref(), Some("ул & Ленина & 5"));
        assert_eq!(search("Ленина кра").words.as_deref(), Some("Ленина & кра:*"));
        assert_eq!(search("a' | !b:*").words.as_deref(), Some("a & b"));
        assert!(Search::parse("?!", "RU").is_err());
        assert!(Search::parse("#", "RU").is_err());
    }

    proptest! {
        #[test]
        fn no_text_writes_an_operator_into_the_query(text: String) {
            if let Ok(Search { words: Some(query), .. }) = Search::parse(&text, "RU") {
                let bare = query.replace(":*", "").replace(" & ", "");
                prop_assert!(bare.chars().all(char::is_alphanumeric), "{}", query);
            }
        }
    }

    fn no_dictionaries() -> Dictionaries {
        Dictionaries {
            cities: vec![],
            request_types: vec![],
            directions: vec![],
            transaction_types: vec![],
            campaigns: vec![],
        }
    }

    /// Reads a query string as the handler does.
    fn read(query: &str) -> Result<Filter, AppError> {
        let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build().unwrap();
        let (mut parts, ()) = axum::http::Request::get(uri).body(()).unwrap().into_parts();
        let reading = ValidQuery::<ListParams>::from_request_parts(&mut parts, &());
        Filter::new(reading.now_or_never().unwrap()?.0, "RU", &no_dictionaries())
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused_and_gives_sql_only_what_it_can_take(
            query in "((city|status|master|type|campaign|created_from|phone|text|cursor|limit|x)=\
                      ([0-9]{1,25}|new|-1|2026-10-05|[%A-F0-9]{0,6}|[a-z+,.;_-]{0,8})&?){0,4}",
        ) {
            match read(&query) {
                Ok(filter) => {
                    prop_assert!((1..=200).contains(&filter.limit));
                    for name in filter.statuses.iter().flatten() {
                        prop_assert!(name.parse::<Status>().is_ok());
                    }
                    for pattern in [&filter.phone, &filter.search.phone].into_iter().flatten() {
                        let digits = pattern.trim_end_matches(['%', '+']);
                        prop_assert!(!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()), "{}", pattern);
                    }
                }
                Err(error) => prop_assert_eq!(error.kind().code, "invalid"),
            }
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        let none = no_dictionaries();
        let filter = |params: ListParams| Filter::new(params, "RU", &none);
        assert!(filter(ListParams { status: Some("new,callback".into()), ..ListParams::default() }).is_ok());
        assert_eq!(
            filter(ListParams { city: Some("atlantis".into()), ..ListParams::default() }).unwrap().city,
            Some(0)
        );
        for params in [
            ListParams { status: Some("nwe".into()), ..ListParams::default() },
            ListParams { phone: Some("not a phone".into()), ..ListParams::default() },
            ListParams { phone: Some("001".into()), ..ListParams::default() },
            ListParams { text: Some("…".into()), ..ListParams::default() },
            ListParams { cursor: Some("!".into()), ..ListParams::default() },
            ListParams { limit: Some(0), ..ListParams::default() },
            ListParams { limit: Some(201), ..ListParams::default() },
        ] {
            assert_eq!(filter(params.clone()).unwrap_err().kind().code, "invalid", "{params:?}");
        }
    }
}
