//! Dictionary entries.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A city the company works in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct City {
    /// Its id.
    #[schema(example = 1)]
    pub id: i64,
    /// Stable code.
    #[schema(example = "novosibirsk")]
    pub code: String,
    /// For display.
    #[schema(example = "Новосибирск")]
    pub name_ru: String,
    /// For display.
    #[schema(example = "Novosibirsk")]
    pub name_en: String,
    /// IANA time zone; business days are counted in it.
    #[schema(example = "Asia/Novosibirsk")]
    pub timezone: String,
    /// Whether new requests can be created there.
    pub active: bool,
}

/// A plain entry: a code and its names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Item {
    /// Its id.
    #[schema(example = 1)]
    pub id: i64,
    /// Stable code.
    #[schema(example = "first_time")]
    pub code: String,
    /// For display.
    #[schema(example = "Впервые")]
    pub name_ru: String,
    /// For display.
    #[schema(example = "First-time")]
    pub name_en: String,
}

/// An advertising campaign and the numbers it advertises.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Campaign {
    /// Its id.
    #[schema(example = 1)]
    pub id: i64,
    /// Stable code.
    #[schema(example = "nsk_avito")]
    pub code: String,
    /// For display.
    #[schema(example = "Avito")]
    pub name: String,
    /// City id.
    pub city_id: i64,
    /// Whether it runs.
    pub active: bool,
    /// E.164.
    #[schema(example = json!(["+73830000101"]))]
    pub numbers: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dictionaries {
    pub cities: Vec<City>,
    pub request_types: Vec<Item>,
    pub directions: Vec<Item>,
    pub transaction_types: Vec<Item>,
    pub campaigns: Vec<Campaign>,
}
