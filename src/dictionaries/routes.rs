//! `/api/v1/dictionaries`: HTTP only.

mod campaigns;
mod entries;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    cached,
    model::{Campaign, City, Item, TransactionType},
};
use crate::{
    app::App,
    auth::{Role, caller::DictionaryReader},
    db::DbError,
    error::{self, AppError, Problem},
    http::{caching::Tagged, etag::etag},
};

/// The endpoints of dictionaries.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(cities))
        .routes(routes!(request_types))
        .routes(routes!(directions))
        .routes(routes!(transaction_types))
        .routes(routes!(campaigns))
        .routes(routes!(roles))
        .merge(entries::router())
        .merge(campaigns::router())
}

/// An entry with its ETag.
fn tagged(status: StatusCode, version: i32, entry: impl Serialize) -> Response {
    (status, [(header::ETAG, etag(version))], Json(entry)).into_response()
}

/// Entries as their readers may keep them: no personal data, and whoever has them asks each time whether they are
/// still the same.
fn kept(entries: &impl Serialize) -> Result<Response, AppError> {
    let cache_control = [(header::CACHE_CONTROL, "private, no-cache")];
    Ok((cache_control, Tagged::json(entries)?).into_response())
}

/// What a violated unique constraint means to the person who sent the body.
fn taken(error: DbError) -> AppError {
    let detail = match error.constraint() {
        Some("campaign_numbers_phone_e164_key") => "The number is advertised by a campaign already.",
        Some(constraint) if constraint.ends_with("_code_key") => "The code is taken.",
        _ => return error.into(),
    };
    error::CONFLICT.because(detail).caused_by(error)
}

/// Cities: your own
#[utoipa::path(get, path = "/dictionaries/cities", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The cities", body = Vec<City>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn cities(caller: DictionaryReader, State(app): State<App>) -> Result<Response, AppError> {
    let mut cities = cached(&app).await?.cities.clone();
    cities.retain(|city| caller.sees_city(city.id));
    kept(&cities)
}

/// Request types
#[utoipa::path(get, path = "/dictionaries/request-types", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The request types", body = Vec<Item>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn request_types(_: DictionaryReader, State(app): State<App>) -> Result<Response, AppError> {
    kept(&cached(&app).await?.request_types)
}

/// Fields of work
#[utoipa::path(get, path = "/dictionaries/directions", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The directions", body = Vec<Item>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn directions(_: DictionaryReader, State(app): State<App>) -> Result<Response, AppError> {
    kept(&cached(&app).await?.directions)
}

/// Kinds of cash transactions
#[utoipa::path(get, path = "/dictionaries/transaction-types", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The transaction types", body = Vec<TransactionType>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn transaction_types(_: DictionaryReader, State(app): State<App>) -> Result<Response, AppError> {
    kept(&cached(&app).await?.transaction_types)
}

/// Advertising campaigns of your cities, with their numbers
#[utoipa::path(get, path = "/dictionaries/campaigns", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The campaigns", body = Vec<Campaign>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn campaigns(caller: DictionaryReader, State(app): State<App>) -> Result<Response, AppError> {
    let mut campaigns = cached(&app).await?.campaigns.clone();
    campaigns.retain(|campaign| caller.sees_city(campaign.city_id));
    kept(&campaigns)
}

/// Roles
#[utoipa::path(get, path = "/dictionaries/roles", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The roles", body = Vec<Role>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn roles(_: DictionaryReader) -> Result<Response, AppError> {
    kept(&Role::ALL)
}
