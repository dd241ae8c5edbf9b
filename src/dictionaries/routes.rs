//! `/api/v1/dictionaries`.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    cached,
    model::{Campaign, City, Item},
};
use crate::{
    app::App,
    auth::{Role, caller::DictionaryReader},
    error::{AppError, Problem},
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
}

/// Cities: your own
#[utoipa::path(get, path = "/dictionaries/cities", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The cities", body = Vec<City>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn cities(caller: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<City>>, AppError> {
    let mut cities = cached(&app).await?.cities;
    cities.retain(|city| caller.sees_city(city.id));
    Ok(Json(cities))
}

/// Request types
#[utoipa::path(get, path = "/dictionaries/request-types", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The request types", body = Vec<Item>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn request_types(_: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<Item>>, AppError> {
    Ok(Json(cached(&app).await?.request_types))
}

/// Fields of work
#[utoipa::path(get, path = "/dictionaries/directions", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The directions", body = Vec<Item>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn directions(_: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<Item>>, AppError> {
    Ok(Json(cached(&app).await?.directions))
}

/// Kinds of cash transactions
#[utoipa::path(get, path = "/dictionaries/transaction-types", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The transaction types", body = Vec<Item>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn transaction_types(_: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<Item>>, AppError> {
    Ok(Json(cached(&app).await?.transaction_types))
}

/// Advertising campaigns of your cities, with their numbers
#[utoipa::path(get, path = "/dictionaries/campaigns", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The campaigns", body = Vec<Campaign>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn campaigns(caller: DictionaryReader, State(app): State<App>) -> Result<Json<Vec<Campaign>>, AppError> {
    let mut campaigns = cached(&app).await?.campaigns;
    campaigns.retain(|campaign| caller.sees_city(campaign.city_id));
    Ok(Json(campaigns))
}

/// Roles
#[utoipa::path(get, path = "/dictionaries/roles", tag = "dictionaries", extensions(("x-action" = json!("read_dictionaries"))), responses(
    (status = 200, description = "The roles", body = Vec<Role>),
    (status = 401, description = "Not signed in", body = Problem),
))]
async fn roles(_: DictionaryReader) -> Json<&'static [Role]> {
    Json(Role::ALL)
}
