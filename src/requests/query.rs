//! From query parameters to a filter that SQL can use.

use chrono::{DateTime, Utc};

use super::{model::ListParams, state::Status};
use crate::{
    error::AppError,
    http::cursor::{self, Cursor},
    phone,
};

/// Filters of a list, parsed.
#[derive(Clone, Debug)]
pub struct Filter {
    pub city: Option<String>,
    pub statuses: Option<Vec<String>>,
    pub master: Option<i64>,
    pub kind: Option<String>,
    pub campaign: Option<String>,
    pub created_from: Option<DateTime<Utc>>,
    pub created_to: Option<DateTime<Utc>>,
    pub phone: Option<String>,
    pub text_pattern: Option<String>,
    pub after: Option<Cursor>,
    pub limit: i64,
}

impl Filter {
    /// Parses what [`ListParams`] leaves as text.
    ///
    /// # Errors
    /// 422 for a status, phone, cursor or limit that is none.
    pub fn new(params: ListParams, region: &str) -> Result<Self, AppError> {
        let statuses = params.status.map(|list| {
            let parse = |name: &str| name.trim().parse::<Status>().map(|status| status.as_str().to_owned());
            list.split(',')
                .map(parse)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|detail| AppError::invalid_field("status", detail))
        });
        let phone = params.phone.map(|text| {
            phone::normalise(&text, region).ok_or_else(|| AppError::invalid_field("phone", "is no phone number"))
        });
        Ok(Self {
            city: params.city,
            statuses: statuses.transpose()?,
            master: params.master,
            kind: params.r#type,
            campaign: params.campaign,
            created_from: params.created_from,
            created_to: params.created_to,
            phone: phone.transpose()?,
            text_pattern: params.text.as_deref().map(contains),
            after: params.cursor.as_deref().map(Cursor::decode).transpose()?,
            limit: cursor::limit(params.limit)?,
        })
    }
}

/// The LIKE pattern for "contains `text`", with the text's own wildcards taken literally.
fn contains(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_search_are_taken_literally() {
        assert_eq!(contains("100%_\\"), "%100\\%\\_\\\\%");
    }

    #[test]
    fn bad_parameters_are_named() {
        let filter = |params: ListParams| Filter::new(params, "RU");
        assert!(filter(ListParams { status: Some("new,callback".into()), ..ListParams::default() }).is_ok());
        for params in [
            ListParams { status: Some("nwe".into()), ..ListParams::default() },
            ListParams { phone: Some("not a phone".into()), ..ListParams::default() },
            ListParams { cursor: Some("!".into()), ..ListParams::default() },
            ListParams { limit: Some(0), ..ListParams::default() },
            ListParams { limit: Some(201), ..ListParams::default() },
        ] {
            assert_eq!(filter(params.clone()).unwrap_err().kind().code, "invalid", "{params:?}");
        }
    }
}
