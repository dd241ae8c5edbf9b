//! Writing cities, request types, directions and transaction types. They are never deleted: what was
//! called something stays called so. What is not used any more is made inactive.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{tagged, taken};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::caller::DictionaryManager,
    db::{Conn, Tx},
    dictionaries::{
        self,
        bodies::{NO_TIMEZONE, NewCity, NewItem, NewTransactionType, PatchCity, PatchItem},
        commit,
        model::{City, Item, TransactionType},
        store::entries as store,
    },
    error::{self, AppError, Problem},
    http::{
        etag::IfMatch,
        extract::{Id, ValidJson},
        idempotency::{Answer, Once},
    },
};

/// The endpoints that write entries.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_city))
        .routes(routes!(edit_city))
        .routes(routes!(create_request_type))
        .routes(routes!(edit_request_type))
        .routes(routes!(create_direction))
        .routes(routes!(edit_direction))
        .routes(routes!(create_transaction_type))
        .routes(routes!(edit_transaction_type))
}

/// Codes that the ledger itself writes.
const LEDGER: [&str; 3] = ["income", "expense", "reversal"];

/// What the audit log says about a new entry.
fn created(subject: AuditSubject, id: i64, code: &str) -> Entry {
    Entry::new(AuditAction::DictionaryEntryCreated, subject, id).with("code", code)
}

/// What it says about a changed one, of whichever kind.
macro_rules! changed {
    ($subject:ident, $before:ident, $entry:ident) => {
        Entry::new(AuditAction::DictionaryEntryChanged, AuditSubject::$subject, $entry.id)
            .field("name_ru", $entry.name_ru != $before.name_ru)
            .field("name_en", $entry.name_en != $before.name_en)
            .change("active", $before.active, $entry.active)
    };
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// PostgreSQL counts business days, so that a zone which only this program knows is of no use.
async fn check_timezone(db: &mut Conn, name: &str) -> Result<(), AppError> {
    // The form that the column takes: no GMT+0, no EST5EDT.
    let area = name.split('/').next().unwrap_or_default();
    let plain = area.chars().all(|character| character.is_ascii_alphabetic() || character == '_');
    if plain && store::knows_timezone(db, name).await? {
        return Ok(());
    }
    Err(AppError::invalid_field("/timezone", NO_TIMEZONE))
}

/// Create a city
#[utoipa::path(post, path = "/dictionaries/cities", tag = "dictionaries", request_body = NewCity,
    extensions(("x-action" = json!("manage_dictionaries"))), responses(
    (status = 201, description = "Created", body = City),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The code is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_city(
    caller: DictionaryManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewCity>,
) -> Result<Response, AppError> {
    let create = async |tx: &mut Tx| {
        check_timezone(tx, &body.timezone).await?;
        let entry = store::insert_city(tx, &body).await.map_err(taken)?;
        let note = created(AuditSubject::Cities, entry.id, &entry.code);
        audit::record(tx, By::caller(&caller), note, app.clock.now()).await?;
        let code = entry.code.clone();
        let answer = Answer::of(tagged(StatusCode::CREATED, entry.version, entry));
        // Its counters start at 0, so that the first request counts.
        Ok(answer.then(move |app| app.metrics.seed_dictionaries([code.as_str()], [])))
    };
    dictionaries::once(&app, &caller, once, create).await
}

/// Change a city
#[utoipa::path(patch, path = "/dictionaries/cities/{id}", tag = "dictionaries", request_body = PatchCity,
    extensions(("x-action" = json!("manage_dictionaries"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = City),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or never changes", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_city(
    caller: DictionaryManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchCity>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let mut entry = store::lock_city(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(entry.version)?;
    let before = entry.clone();
    if let Some(timezone) = body.timezone.filter(|timezone| *timezone != entry.timezone) {
        check_timezone(&mut tx, &timezone).await?;
        entry.timezone = timezone;
    }
    set(&mut entry.name_ru, body.name_ru);
    set(&mut entry.name_en, body.name_en);
    set(&mut entry.active, body.active);
    entry.version = store::save_city(&mut tx, &entry).await?;
    let note = changed!(Cities, before, entry).change("timezone", before.timezone, entry.timezone.clone());
    audit::record(&mut tx, By::caller(&caller), note, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(tagged(StatusCode::OK, entry.version, entry))
}

/// Create a request type
#[utoipa::path(post, path = "/dictionaries/request-types", tag = "dictionaries", request_body = NewItem,
    extensions(("x-action" = json!("manage_dictionaries"))), responses(
    (status = 201, description = "Created", body = Item),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The code is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_request_type(
    caller: DictionaryManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewItem>,
) -> Result<Response, AppError> {
    let create = async |tx: &mut Tx| {
        let entry = store::insert_request_type(tx, &body).await.map_err(taken)?;
        let note = created(AuditSubject::RequestTypes, entry.id, &entry.code);
        audit::record(tx, By::caller(&caller), note, app.clock.now()).await?;
        let code = entry.code.clone();
        let answer = Answer::of(tagged(StatusCode::CREATED, entry.version, entry));
        Ok(answer.then(move |app| app.metrics.seed_dictionaries([], [code.as_str()])))
    };
    dictionaries::once(&app, &caller, once, create).await
}

/// Change a request type
#[utoipa::path(patch, path = "/dictionaries/request-types/{id}", tag = "dictionaries", request_body = PatchItem,
    extensions(("x-action" = json!("manage_dictionaries"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = Item),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or never changes", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_request_type(
    caller: DictionaryManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchItem>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let mut entry = store::lock_request_type(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(entry.version)?;
    let before = entry.clone();
    set(&mut entry.name_ru, body.name_ru);
    set(&mut entry.name_en, body.name_en);
    set(&mut entry.active, body.active);
    entry.version = store::save_request_type(&mut tx, &entry).await?;
    let note = changed!(RequestTypes, before, entry);
    audit::record(&mut tx, By::caller(&caller), note, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(tagged(StatusCode::OK, entry.version, entry))
}

/// Create a direction
#[utoipa::path(post, path = "/dictionaries/directions", tag = "dictionaries", request_body = NewItem,
    extensions(("x-action" = json!("manage_dictionaries"))), responses(
    (status = 201, description = "Created", body = Item),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The code is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_direction(
    caller: DictionaryManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewItem>,
) -> Result<Response, AppError> {
    let create = async |tx: &mut Tx| {
        let entry = store::insert_direction(tx, &body).await.map_err(taken)?;
        let note = created(AuditSubject::Directions, entry.id, &entry.code);
        audit::record(tx, By::caller(&caller), note, app.clock.now()).await?;
        Ok(Answer::of(tagged(StatusCode::CREATED, entry.version, entry)))
    };
    dictionaries::once(&app, &caller, once, create).await
}

/// Change a direction
#[utoipa::path(patch, path = "/dictionaries/directions/{id}", tag = "dictionaries", request_body = PatchItem,
    extensions(("x-action" = json!("manage_dictionaries"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = Item),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or never changes", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_direction(
    caller: DictionaryManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchItem>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let mut entry = store::lock_direction(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(entry.version)?;
    let before = entry.clone();
    set(&mut entry.name_ru, body.name_ru);
    set(&mut entry.name_en, body.name_en);
    set(&mut entry.active, body.active);
    entry.version = store::save_direction(&mut tx, &entry).await?;
    let note = changed!(Directions, before, entry);
    audit::record(&mut tx, By::caller(&caller), note, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(tagged(StatusCode::OK, entry.version, entry))
}

/// Create a transaction type
#[utoipa::path(post, path = "/dictionaries/transaction-types", tag = "dictionaries", request_body = NewTransactionType,
    extensions(("x-action" = json!("manage_dictionaries"))), responses(
    (status = 201, description = "Created", body = TransactionType),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 409, description = "The code is taken", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn create_transaction_type(
    caller: DictionaryManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewTransactionType>,
) -> Result<Response, AppError> {
    let create = async |tx: &mut Tx| {
        let entry = store::insert_transaction_type(tx, &body).await.map_err(taken)?;
        let note = created(AuditSubject::TransactionTypes, entry.id, &entry.code).with("sign", entry.sign);
        audit::record(tx, By::caller(&caller), note, app.clock.now()).await?;
        Ok(Answer::of(tagged(StatusCode::CREATED, entry.version, entry)))
    };
    dictionaries::once(&app, &caller, once, create).await
}

/// Change a transaction type
#[utoipa::path(patch, path = "/dictionaries/transaction-types/{id}", tag = "dictionaries", request_body = PatchItem,
    extensions(("x-action" = json!("manage_dictionaries"))),
    params(("id" = i64, Path, example = 1), ("If-Match" = String, Header, description = "The version that was read, in quotes", example = "\"1\"")), responses(
    (status = 200, description = "Changed", body = TransactionType),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there", body = Problem),
    (status = 409, description = "The ledger itself needs it", body = Problem),
    (status = 412, description = "Changed by somebody else", body = Problem),
    (status = 422, description = "A field is not valid, or never changes", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn edit_transaction_type(
    caller: DictionaryManager,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
    ValidJson(body): ValidJson<PatchItem>,
) -> Result<Response, AppError> {
    let if_match = if_match.required()?;
    let mut tx = app.db.begin().await?;
    let mut entry = store::lock_transaction_type(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(entry.version)?;
    let before = entry.clone();
    if body.active == Some(false) && LEDGER.contains(&entry.code.as_str()) {
        return Err(error::CONFLICT.because("The ledger itself writes transactions of this type."));
    }
    set(&mut entry.name_ru, body.name_ru);
    set(&mut entry.name_en, body.name_en);
    set(&mut entry.active, body.active);
    entry.version = store::save_transaction_type(&mut tx, &entry).await?;
    let note = changed!(TransactionTypes, before, entry);
    audit::record(&mut tx, By::caller(&caller), note, app.clock.now()).await?;
    commit(&app, tx).await?;
    Ok(tagged(StatusCode::OK, entry.version, entry))
}
