//! Dictionary entries, as they are given; what is taken is in [`super::bodies`].

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
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
    /// Raised by every change; in quotes, the ETag.
    #[schema(example = 1)]
    pub version: i32,
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
    /// Whether it can be chosen.
    pub active: bool,
    /// Raised by every change; in quotes, the ETag.
    #[schema(example = 1)]
    pub version: i32,
}

/// A kind of cash transaction.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionType {
    /// Its id.
    #[schema(example = 2)]
    pub id: i64,
    /// Stable code.
    #[schema(example = "expense")]
    pub code: String,
    /// For display.
    #[schema(example = "Расход")]
    pub name_ru: String,
    /// For display.
    #[schema(example = "Expense")]
    pub name_en: String,
    /// 1 brings money in, -1 takes it out; null for reversals, which do what their original did not.
    #[schema(example = -1)]
    pub sign: Option<i16>,
    /// Whether it can be chosen.
    pub active: bool,
    /// Raised by every change; in quotes, the ETag.
    #[schema(example = 1)]
    pub version: i32,
}

/// A number that a campaign advertises.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CampaignNumber {
    /// Its id.
    #[schema(example = 4)]
    pub id: i64,
    /// E.164.
    #[schema(example = "+73830000101")]
    pub phone: String,
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
    #[schema(example = 1)]
    pub city_id: i64,
    /// Whether it runs.
    pub active: bool,
    /// What it advertises.
    #[schema(value_type = Vec<CampaignNumber>)]
    pub numbers: Json<Vec<CampaignNumber>>,
    /// Raised by every change, of its numbers too; in quotes, the ETag.
    #[schema(example = 1)]
    pub version: i32,
}

/// All of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dictionaries {
    pub cities: Vec<City>,
    pub request_types: Vec<Item>,
    pub directions: Vec<Item>,
    pub transaction_types: Vec<TransactionType>,
    pub campaigns: Vec<Campaign>,
}
