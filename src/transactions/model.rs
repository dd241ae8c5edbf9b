//! What the API takes and gives for transactions.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    bounds::{check_period, check_size, rubles},
    http::extract::{FieldErrors, Validate},
    wire_enum,
};

/// Code of the type of what a finished request, or a person, brings in.
pub const INCOME: &str = "income";
/// Code of the type of what takes another entry back.
pub const REVERSAL: &str = "reversal";

wire_enum! {
    /// What a balance has a row for.
    pub enum BalanceBy {
        /// Each city.
        City = "city",
        /// Each master, and one for what belongs to no master.
        Master = "master",
    }
}

/// An entry of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 88, "type": "expense", "amount": "-1500.00", "city_id": 1, "city": "novosibirsk", "master_id": 12,
    "request_id": 1042,
    "automatic": false, "reverses_id": null, "reversed_by": null, "note": "Spare parts", "reason": null,
    "actor_id": 2, "at": "2026-06-01T07:00:00Z",
}))]
pub struct TransactionView {
    /// Its number.
    pub id: i64,
    /// Code of its type.
    pub r#type: String,
    /// Rubles: what went out is negative.
    #[schema(value_type = String)]
    #[serde(serialize_with = "rubles")]
    pub amount: Decimal,
    /// City id.
    pub city_id: i64,
    /// Code of the city.
    pub city: String,
    /// User id of the master whose money it is.
    pub master_id: Option<i64>,
    /// Number of the service request it belongs to.
    pub request_id: Option<i64>,
    /// Whether a service request's end, or its reopening, wrote it.
    pub automatic: bool,
    /// Number of the entry that it takes back.
    pub reverses_id: Option<i64>,
    /// Number of the entry that takes it back.
    pub reversed_by: Option<i64>,
    /// What it was for.
    pub note: Option<String>,
    /// Why it takes another one back.
    pub reason: Option<String>,
    /// User id of who booked it.
    pub actor_id: Option<i64>,
    /// When.
    pub at: DateTime<Utc>,
}

/// An entry to be booked by hand.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"type": "expense", "city": "novosibirsk", "amount": "1500.00", "note": "Spare parts"}))]
pub struct NewTransaction {
    /// Code of its type, which says whether money came in or went out.
    pub r#type: String,
    /// Code of the city.
    pub city: String,
    /// Rubles, positive, at most two decimals.
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String)]
    pub amount: Decimal,
    /// User id of the master whose money it is.
    #[serde(default)]
    pub master_id: Option<i64>,
    /// Number of the service request it belongs to.
    #[serde(default)]
    pub request_id: Option<i64>,
    /// What it is for.
    #[serde(default)]
    pub note: Option<String>,
}

impl Validate for NewTransaction {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.r#type, 1..=40, "/type");
        errors.text(&self.city, 1..=40, "/city");
        errors.optional_text(self.note.as_deref(), 1..=500, "/note");
        errors.check(self.amount > Decimal::ZERO, "/amount", "must be positive; the type says which way it went");
        check_size(errors, self.amount, "/amount");
    }
}

/// Why an entry is taken back.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "Booked twice"}))]
pub struct Reversal {
    /// For whoever reads the ledger later.
    pub reason: String,
}

impl Validate for Reversal {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.text(&self.reason, 1..=500, "/reason");
    }
}

/// Filters of the list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct TransactionParams {
    /// Code of a city.
    #[param(example = "novosibirsk")]
    pub city: Option<String>,
    /// User id of a master.
    pub master: Option<i64>,
    /// Number of a service request.
    pub request: Option<i64>,
    /// Code of a type.
    #[param(example = "expense")]
    pub r#type: Option<String>,
    /// Booked at or after.
    #[param(example = "2026-06-01T00:00:00Z")]
    pub from: Option<DateTime<Utc>>,
    /// Booked before.
    #[param(example = "2026-07-01T00:00:00Z")]
    pub to: Option<DateTime<Utc>>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for TransactionParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.city.as_deref(), 1..=40, "city");
        errors.optional_text(self.r#type.as_deref(), 1..=40, "type");
        check_period(errors, self.from, self.to);
    }
}

/// Which balance.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct BalanceParams {
    /// `city`, unless `master` is asked for.
    pub by: Option<BalanceBy>,
    /// Code of a city.
    #[param(example = "novosibirsk")]
    pub city: Option<String>,
    /// Booked at or after.
    #[param(example = "2026-06-01T00:00:00Z")]
    pub from: Option<DateTime<Utc>>,
    /// Booked before.
    #[param(example = "2026-07-01T00:00:00Z")]
    pub to: Option<DateTime<Utc>>,
}

impl Validate for BalanceParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.city.as_deref(), 1..=40, "city");
        check_period(errors, self.from, self.to);
    }
}

/// What a city or a master brought in and spent. A reversal counts against what it reverses, at its
/// own time.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "city": "novosibirsk", "master_id": null, "income": "52000.00", "expenses": "1500.00", "balance": "50500.00",
    "entries": 31,
}))]
pub struct BalanceRow {
    /// Code of the city; null in a balance by master.
    pub city: Option<String>,
    /// User id of the master; null in a balance by city, and for what belongs to no master.
    pub master_id: Option<i64>,
    /// Rubles that came in.
    #[schema(value_type = String)]
    #[serde(serialize_with = "rubles")]
    pub income: Decimal,
    /// Rubles that went out, positive.
    #[schema(value_type = String)]
    #[serde(serialize_with = "rubles")]
    pub expenses: Decimal,
    /// income − expenses.
    #[schema(value_type = String)]
    #[serde(serialize_with = "rubles")]
    pub balance: Decimal,
    /// How many entries there are.
    pub entries: i64,
}

/// The balance of what the caller may see.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "by": "city", "balance": "50500.00",
    "rows": [{"city": "novosibirsk", "master_id": null, "income": "52000.00", "expenses": "1500.00",
              "balance": "50500.00", "entries": 31}],
}))]
pub struct Balance {
    /// What a row is of.
    pub by: BalanceBy,
    /// By code of the city, or by user id.
    pub rows: Vec<BalanceRow>,
    /// The sum of all rows, rubles.
    #[schema(value_type = String)]
    #[serde(serialize_with = "rubles")]
    pub balance: Decimal,
}
