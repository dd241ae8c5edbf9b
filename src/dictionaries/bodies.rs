//! What the API takes for dictionary entries. Codes, cities of campaigns and signs never change, so that
//! the bodies of changes do not know them.

use std::str::FromStr;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::extract::{FieldErrors, Validate, present};

/// A city to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "omsk", "name_ru": "Омск", "name_en": "Omsk", "timezone": "Asia/Omsk"}))]
pub struct NewCity {
    /// Up to 40 of a-z, 0-9, underscore; begins with a letter; never changes.
    pub code: String,
    /// For display.
    pub name_ru: String,
    /// For display.
    pub name_en: String,
    /// IANA time zone.
    pub timezone: String,
}

/// Changes to a city. A missing field stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name_en": "Omsk", "active": false}))]
pub struct PatchCity {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name_ru: Option<String>,
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name_en: Option<String>,
    /// IANA time zone.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub timezone: Option<String>,
    /// Whether new requests can be created there.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub active: Option<bool>,
}

/// A plain entry to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "roofing", "name_ru": "Кровля", "name_en": "Roofing"}))]
pub struct NewItem {
    /// Up to 40 of a-z, 0-9, underscore; begins with a letter; never changes.
    pub code: String,
    /// For display.
    pub name_ru: String,
    /// For display.
    pub name_en: String,
}

/// Changes to a plain entry. A missing field stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name_en": "Roofs", "active": true}))]
pub struct PatchItem {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name_ru: Option<String>,
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name_en: Option<String>,
    /// Whether it can be chosen.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub active: Option<bool>,
}

/// A kind of cash transaction to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "fuel", "name_ru": "Топливо", "name_en": "Fuel", "sign": -1}))]
pub struct NewTransactionType {
    /// Up to 40 of a-z, 0-9, underscore; begins with a letter; never changes.
    pub code: String,
    /// For display.
    pub name_ru: String,
    /// For display.
    pub name_en: String,
    /// 1 brings money in, -1 takes it out; never changes.
    pub sign: i16,
}

/// A campaign to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "nsk_radio", "name": "Radio", "city": "novosibirsk", "numbers": ["+73832000105"]}))]
pub struct NewCampaign {
    /// Up to 40 of a-z, 0-9, underscore; begins with a letter; never changes.
    pub code: String,
    /// For display.
    pub name: String,
    /// Code of its city; never changes.
    pub city: String,
    /// What it advertises, in any usual form.
    #[serde(default)]
    pub numbers: Vec<String>,
}

/// Changes to a campaign. A missing field stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Radio North", "active": true}))]
pub struct PatchCampaign {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Whether it runs.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub active: Option<bool>,
}

/// A number to be advertised.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"phone": "+73832000106"}))]
pub struct NewNumber {
    /// In any usual form.
    pub phone: String,
}

impl Validate for NewCity {
    fn validate(&self, errors: &mut FieldErrors) {
        code(errors, &self.code);
        names(errors, Some(&self.name_ru), Some(&self.name_en));
        timezone(errors, Some(&self.timezone));
    }
}

impl Validate for PatchCity {
    fn validate(&self, errors: &mut FieldErrors) {
        names(errors, self.name_ru.as_deref(), self.name_en.as_deref());
        timezone(errors, self.timezone.as_deref());
    }
}

impl Validate for NewItem {
    fn validate(&self, errors: &mut FieldErrors) {
        code(errors, &self.code);
        names(errors, Some(&self.name_ru), Some(&self.name_en));
    }
}

impl Validate for PatchItem {
    fn validate(&self, errors: &mut FieldErrors) {
        names(errors, self.name_ru.as_deref(), self.name_en.as_deref());
    }
}

impl Validate for NewTransactionType {
    fn validate(&self, errors: &mut FieldErrors) {
        code(errors, &self.code);
        names(errors, Some(&self.name_ru), Some(&self.name_en));
        errors.check(matches!(self.sign, -1 | 1), "/sign", "must be 1 or -1");
    }
}

impl Validate for NewCampaign {
    fn validate(&self, errors: &mut FieldErrors) {
        code(errors, &self.code);
        errors.text(&self.name, 1..=100, "/name");
        errors.text(&self.city, 1..=40, "/city");
        errors.check(self.numbers.len() <= 100, "/numbers", "must be at most 100");
        for (index, number) in self.numbers.iter().enumerate().take(100) {
            errors.text(number, 1..=40, &format!("/numbers/{index}"));
        }
    }
}

impl Validate for PatchCampaign {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.name.as_deref(), 1..=100, "/name");
    }
}

impl Validate for NewNumber {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.phone, 1..=40, "/phone");
    }
}

fn code(errors: &mut FieldErrors, code: &str) {
    let valid = (1..=40).contains(&code.len())
        && code.starts_with(|first: char| first.is_ascii_lowercase())
        && code.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'));
    errors.check(valid, "/code", "must be 1 to 40 of a-z 0-9 _ and begin with a letter");
}

fn names(errors: &mut FieldErrors, name_ru: Option<&str>, name_en: Option<&str>) {
    errors.optional_text(name_ru, 1..=100, "/name_ru");
    errors.optional_text(name_en, 1..=100, "/name_en");
}

fn timezone(errors: &mut FieldErrors, timezone: Option<&str>) {
    let known = timezone.is_none_or(|name| chrono_tz::Tz::from_str(name).is_ok());
    errors.check(known, "/timezone", NO_TIMEZONE);
}

/// What is wrong with a time zone that is none here, or none to PostgreSQL.
pub const NO_TIMEZONE: &str = "is no IANA time zone such as Asia/Omsk";
