//! `/api/v1/transactions`: HTTP only.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::Response,
};
use rust_decimal::Decimal;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Balance, BalanceBy, BalanceParams, INCOME, NewTransaction, Reversal, TransactionParams, TransactionView},
    store::{self, Filter, NewEntry},
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::caller::{TransactionManager, TransactionReader},
    db::Tx,
    dictionaries,
    error::{self, AppError, Problem},
    http::{
        cursor::{self, Cursor, Page},
        extract::{FieldErrors, Id, ValidJson, ValidQuery},
        idempotency::{Answer, Once},
    },
    requests::{
        self,
        flow::{self, Effect},
    },
};

/// The endpoints of transactions.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, book))
        .routes(routes!(balance))
        .routes(routes!(read))
        .routes(routes!(reverse))
}

/// 201 with where to find it, and what it means for the business metrics.
fn created(view: TransactionView, effect: Option<Effect>) -> Answer {
    let location = format!("/api/v1/transactions/{}", view.id);
    let answer = Answer::of((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)));
    answer.then(move |app| flow::record(&app.metrics, effect.as_slice()))
}

/// What the audit log says about an entry of the ledger.
fn booked(action: AuditAction, view: &TransactionView) -> Entry {
    Entry::new(action, AuditSubject::Transactions, view.id)
        .with("type", view.r#type.as_str())
        .with("amount", view.amount.to_string())
        .with("city", view.city.as_str())
}

/// List transactions, newest first
#[utoipa::path(get, path = "/transactions", tag = "transactions", params(TransactionParams),
    extensions(("x-action" = json!("read_transactions"))), responses(
    (status = 200, description = "A page", body = Page<TransactionView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
async fn list(
    caller: TransactionReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<TransactionParams>,
) -> Result<Json<Page<TransactionView>>, AppError> {
    let filter = Filter {
        city: params.city,
        master: params.master,
        request: params.request,
        kind: params.r#type,
        from: params.from,
        to: params.to,
        after: params.cursor.as_deref().map(Cursor::decode).transpose()?,
        limit: cursor::limit(params.limit)?,
    };
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, &caller, &filter).await?;
    Ok(Json(Page::new(rows, filter.limit, |row| Cursor { at: row.at, id: row.id })))
}

/// Book money that came in or was spent
#[utoipa::path(post, path = "/transactions", tag = "transactions", request_body = NewTransaction,
    extensions(("x-action" = json!("manage_transactions"))), responses(
    (status = 201, description = "Booked", body = TransactionView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A field is not valid", body = Problem),
))]
async fn book(
    caller: TransactionManager,
    once: Once,
    State(app): State<App>,
    ValidJson(body): ValidJson<NewTransaction>,
) -> Result<Response, AppError> {
    let dictionaries = dictionaries::cached(&app).await?;
    let book = async |tx: &mut Tx| {
        // Of a city that was closed, too: its last bills come later.
        let city = dictionaries.cities.iter().find(|city| city.code == body.city && caller.may_act_in(city.id));
        let city = city.ok_or_else(|| AppError::invalid_field("/city", "is no city of yours"))?;
        let mut errors = FieldErrors::default();
        let sign = store::sign_of(tx, &body.r#type).await?;
        errors.check(sign.is_some(), "/type", "is no type that is booked by hand");
        if let Some(id) = body.request_id {
            let request = requests::store::by_id(tx, &caller, id).await?;
            let here = request.is_some_and(|request| request.city_id == city.id);
            errors.check(here, "/request_id", "is no service request of this city");
        }
        if let Some(id) = body.master_id {
            let here = store::has_been_master_of_city(tx, id, city.id).await?;
            errors.check(here, "/master_id", "is no master of this city");
        }
        errors.into_result()?;
        let entry = NewEntry {
            city_id: city.id,
            kind: &body.r#type,
            amount: body.amount * sign.unwrap_or(Decimal::ONE),
            request_id: body.request_id,
            master_id: body.master_id,
            automatic: false,
            reverses_id: None,
            note: body.note.as_deref(),
            reason: None,
            actor_id: caller.principal.user_id,
            at: app.clock.now(),
        };
        let id = store::insert(tx, &entry).await?;
        let view = store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        audit::record(tx, By::caller(&caller), booked(AuditAction::TransactionBooked, &view), view.at).await?;
        let effect = (view.r#type == INCOME).then(|| Effect::Revenue(view.city.clone(), view.amount));
        Ok(created(view, effect))
    };
    once.run(&app, &caller, book).await
}

/// Sums by city or by master
#[utoipa::path(get, path = "/transactions/balance", tag = "transactions", params(BalanceParams),
    extensions(("x-action" = json!("read_transactions"))), responses(
    (status = 200, description = "The balance of what you may see", body = Balance),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn balance(
    caller: TransactionReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<BalanceParams>,
) -> Result<Json<Balance>, AppError> {
    let by = params.by.unwrap_or(BalanceBy::City);
    let mut db = app.db.acquire().await?;
    let rows = store::balance(&mut db, &caller, by, &params).await?;
    let balance = rows.iter().map(|row| row.balance).sum();
    Ok(Json(Balance { by, rows, balance }))
}

/// Read a transaction
#[utoipa::path(get, path = "/transactions/{id}", tag = "transactions", params(("id" = i64, Path)),
    extensions(("x-action" = json!("read_transactions"))), responses(
    (status = 200, description = "The transaction", body = TransactionView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
))]
async fn read(
    caller: TransactionReader,
    State(app): State<App>,
    Id(id): Id,
) -> Result<Json<TransactionView>, AppError> {
    let mut db = app.db.acquire().await?;
    Ok(Json(store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?))
}

/// Take a transaction back by booking its opposite
#[utoipa::path(post, path = "/transactions/{id}/reverse", tag = "transactions", request_body = Reversal,
    params(("id" = i64, Path)), extensions(("x-action" = json!("manage_transactions"))), responses(
    (status = 201, description = "Reversed; this is the reversal", body = TransactionView),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It is reversed already, is a reversal itself, or belongs to a finished service request", body = Problem),
    (status = 422, description = "The reason is missing or too long", body = Problem),
))]
async fn reverse(
    caller: TransactionManager,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    ValidJson(body): ValidJson<Reversal>,
) -> Result<Response, AppError> {
    const REVERSED: &str = "It is reversed already.";
    let reverse = async |tx: &mut Tx| {
        let original = store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        if original.reverses_id.is_some() {
            return Err(error::CONFLICT.because("A reversal cannot be reversed; book the transaction anew."));
        }
        if original.reversed_by.is_some() {
            return Err(error::CONFLICT.because(REVERSED));
        }
        if original.automatic {
            return Err(error::CONFLICT.because("A finished service request made it: reopen the request."));
        }
        let now = app.clock.now();
        let reversal = store::reverse(tx, &original, Some(&body.reason), caller.principal.user_id, now).await;
        let reversal = reversal.map_err(|error| match error.constraint() {
            Some(store::REVERSED_ONCE) => error::CONFLICT.because(REVERSED),
            _ => error.into(),
        })?;
        let view = store::by_id(tx, &caller, reversal).await?.ok_or(error::NOT_FOUND)?;
        let entry = booked(AuditAction::TransactionReversed, &view).with("reverses_id", id);
        audit::record(tx, By::caller(&caller), entry, now).await?;
        let effect = (original.r#type == INCOME).then_some(Effect::Refund(original.city, original.amount));
        Ok(created(view, effect))
    };
    once.run(&app, &caller, reverse).await
}
