//! Writing campaigns and their numbers. The ETag is that of the campaign, for its numbers too.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{tagged, taken};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::caller::CampaignManager,
    db::Tx,
    dictionaries::{
        self,
        bodies::{NewCampaign, NewNumber, PatchCampaign},
        commit,
        model::Campaign,
        store::{campaigns as store, city_ids},
    },
    error::{self, AppError, Problem},
    http::{
        etag::IfMatch,
        extract::{FieldErrors, Id, Segments, ValidJson},
        idempotency::{Answer, Once},
    },
    phone,
};

/// The endpoints that write campaigns.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_campaign))
        .routes(routes!(edit_campaign, remove_campaign))
        .routes(routes!(add_number))
        .routes(routes!(remove_number))
}

/// Create a campaign in a city of yours
#[utoipa::path(post, path = "/dictionaries/campaigns", tag = "dictionaries", request_body = NewCampaign,
    extensions(("x-action" = json!("manage_campaigns"))), responses(
    (status = 201, description = "Created", body = Campaign),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The code or a number is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_campaign(
    caller: CampaignManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewCampaign>,
) -> Result<Response, AppError> {
    let mut errors = FieldErrors::default();
    let mut numbers = Vec::new();
    for (index, number) in body.numbers.iter().enumerate() {
        let number = phone::normalise_line(number, &app.config.telephony.region);
        errors.check(number.is_some(), &format!("/numbers/{index}"), "is no phone number");
        numbers.extend(number);
    }
    errors.into_result()?;
    let create = async |tx: &mut Tx| {
        let found = city_ids(tx, std::slice::from_ref(&body.city)).await?;
        // A city of somebody else is as unknown as one that does not exist.
        let city_id = found.into_iter().flatten().find(|city| caller.may_act_in(*city));
        let city_id = city_id.ok_or_else(|| AppError::invalid_field("/city", "is no city of yours"))?;
        let id = store::insert(tx, &body.code, &body.name, city_id).await.map_err(taken)?;
        for number in numbers {
            store::insert_number(tx, id, &number).await.map_err(taken)?;
        }
        let campaign = store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        let entry = Entry::new(AuditAction::CampaignCreated, AuditSubject::Campaigns, id)
            .with("code", body.code)
            .with("city", body.city)
            .with("numbers", campaign.numbers.len());
        audit::record(tx, By::caller(&caller), entry, app.clock.now()).await?;
        Ok(Answer::of(tagged(StatusCode::CREATED, campaign.version, campaign)))
    };
    dictionaries::once(&app, &caller, once, create).await
}

/// Change a campaign of your cities
#[utoipa::path(patch, path = "/dictionaries/campaigns/{id}", tag = "dictionaries", request_body = PatchCampaign,
    extensions(("x-action" = json!("manage_campaigns"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = Campaign),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or never changes", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_campaign(
    caller: CampaignManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchCampaign>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let mut campaign = store::lock(&mut tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(campaign.version)?;
    let entry = Entry::new(AuditAction::CampaignChanged, AuditSubject::Campaigns, id)
        .field("name", body.name.as_ref().is_some_and(|name| *name != campaign.name))
        .change("active", campaign.active, body.active.unwrap_or(campaign.active));
    campaign.name = body.name.unwrap_or(campaign.name);
    campaign.active = body.active.unwrap_or(campaign.active);
    campaign.version = store::save(&mut tx, id, &campaign.name, campaign.active).await?;
    audit::record(&mut tx, By::caller(&caller), entry, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(tagged(StatusCode::OK, campaign.version, campaign))
}

/// End a campaign of your cities: it stays, inactive, and calls over its numbers still find it
#[utoipa::path(delete, path = "/dictionaries/campaigns/{id}", tag = "dictionaries",
    extensions(("x-action" = json!("manage_campaigns"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 204, description = "Ended"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove_campaign(
    caller: CampaignManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let campaign = store::lock(&mut tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(campaign.version)?;
    store::save(&mut tx, id, &campaign.name, false).await?;
    let entry =
        Entry::new(AuditAction::CampaignChanged, AuditSubject::Campaigns, id).change("active", campaign.active, false);
    audit::record(&mut tx, By::caller(&caller), entry, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a campaign of your cities a number
#[utoipa::path(post, path = "/dictionaries/campaigns/{id}/numbers", tag = "dictionaries", request_body = NewNumber,
    extensions(("x-action" = json!("manage_campaigns"))),
    params(("id" = i64, Path, example = 1),
        ("If-Match" = Option<String>, Header, description = "Optional: the version that was read, in quotes")), responses(
    (status = 201, description = "The campaign with the number", body = Campaign),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "The number is taken", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "It is no phone number", body = Problem),
))]
async fn add_number(
    caller: CampaignManager,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<NewNumber>,
) -> Result<Response, AppError> {
    let number = phone::normalise_line(&body.phone, &app.config.telephony.region)
        .ok_or_else(|| AppError::invalid_field("/phone", "is no phone number"))?;
    let add = async |tx: &mut Tx| {
        let campaign = store::lock(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        if_match.check(campaign.version)?;
        let number_id = store::insert_number(tx, id, &number).await.map_err(taken)?;
        store::save(tx, id, &campaign.name, campaign.active).await?;
        let entry =
            Entry::new(AuditAction::CampaignNumberAdded, AuditSubject::Campaigns, id).with("number_id", number_id);
        audit::record(tx, By::caller(&caller), entry, app.clock.now()).await?;
        let campaign = store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        Ok(Answer::of(tagged(StatusCode::CREATED, campaign.version, campaign)))
    };
    dictionaries::once(&app, &caller, once, add).await
}

/// Take a number from a campaign of your cities
#[utoipa::path(delete, path = "/dictionaries/campaigns/{id}/numbers/{number_id}", tag = "dictionaries",
    extensions(("x-action" = json!("manage_campaigns"))),
    params(("id" = i64, Path, example = 1), ("number_id" = i64, Path, example = 4),
        ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 204, description = "Taken"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 412, description = "The campaign was changed by somebody else", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove_number(
    caller: CampaignManager,
    State(app): State<App>,
    Segments(ids): Segments,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    let ids: Vec<i64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let [id, number_id] = ids[..] else { return Err(error::NOT_FOUND.into()) };
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let campaign = store::lock(&mut tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(campaign.version)?;
    if !store::delete_number(&mut tx, id, number_id).await? {
        return Err(error::NOT_FOUND.into());
    }
    store::save(&mut tx, id, &campaign.name, campaign.active).await?;
    let entry =
        Entry::new(AuditAction::CampaignNumberRemoved, AuditSubject::Campaigns, id).with("number_id", number_id);
    audit::record(&mut tx, By::caller(&caller), entry, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(StatusCode::NO_CONTENT)
}
