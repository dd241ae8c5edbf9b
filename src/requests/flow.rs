//! One move of a service request: lock, decide, write, book the money, append the history, all in
//! one transaction. Metrics are recorded after the commit, so that they never tell of what was
//! rolled back: whoever commits is handed the [`Effect`]s.

use chrono::{DateTime, SubsecRound, Utc};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive};
use serde_json::{Map, Value};

use super::{
    model::{EventKind, Move, PatchRequest, RequestView, Source},
    state::{self, Need, Refusal, Rule, Status},
    store::{self, NewEvent},
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::Caller,
    db::{Conn, DbError, Plans, Tx},
    error::{self, AppError},
    http::{etag::IfMatch, extract::FieldErrors},
    telemetry::{labels::RejectionReason, metrics::Metrics},
    transactions,
};

/// What a committed change means for the business metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A request came into being.
    Created {
        /// How.
        source: Source,
        /// Code of its type.
        kind: String,
        /// Code of its city.
        city: String,
    },
    /// A request moved.
    Moved {
        /// From
        from: Status,
        /// to.
        to: Status,
    },
    /// A person answered for the first time, this many seconds after the creation.
    FirstResponse(String, f64),
    /// It was offered to a master for the first time, this many seconds after the creation.
    Assigned(String, f64),
    /// It was done, this many seconds after the creation.
    Completed(String, f64),
    /// Income was booked in a city, rubles.
    Revenue(String, Decimal),
    /// Income was reversed in a city, rubles.
    Refund(String, Decimal),
}

/// Records what was committed.
pub fn record(metrics: &Metrics, effects: &[Effect]) {
    for effect in effects {
        match effect {
            Effect::Created { source, kind, city } => {
                metrics.requests_created(*source, &metrics.request_type(kind)).inc();
                metrics.requests_created_by_city(&metrics.city(city)).inc();
            }
            Effect::Moved { from, to } => metrics.request_transitions(*from, *to).inc(),
            Effect::FirstResponse(kind, seconds) => {
                metrics.request_first_response(&metrics.request_type(kind)).observe(*seconds);
            }
            Effect::Assigned(kind, seconds) => metrics.request_assign(&metrics.request_type(kind)).observe(*seconds),
            Effect::Completed(kind, seconds) => {
                metrics.request_completion(&metrics.request_type(kind)).observe(*seconds);
            }
            Effect::Revenue(city, amount) => metrics.revenue(&metrics.city(city)).inc_by(rubles(*amount)),
            Effect::Refund(city, amount) => metrics.refunds(&metrics.city(city)).inc_by(rubles(*amount)),
        }
    }
}

/// A counter takes no negative amounts; the constraints see to it that there are none.
fn rubles(amount: Decimal) -> f64 {
    amount.to_f64().unwrap_or(0.0).max(0.0)
}

/// A request that was moved, and what that means once it is committed.
type Moved = (RequestView, Vec<Effect>);

/// Moves a request to `body.to`.
///
/// # Errors
/// 404 out of scope, 412 stale, 409 not a move, 403 not for this role, 422 something missing.
pub async fn transition(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    id: i64,
    if_match: &IfMatch,
    body: Move,
) -> Result<Moved, AppError> {
    // `Move::validate` has seen that it is there.
    let to = body.to.ok_or(error::INVALID)?;
    advance(app, tx, caller, id, if_match, to, body, None).await
}

/// Offers a waiting request to a master.
///
/// # Errors
/// As [`transition`]; 422 when the user is no active master of the request's city.
pub async fn assign(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    id: i64,
    if_match: &IfMatch,
    master_id: i64,
) -> Result<Moved, AppError> {
    advance(app, tx, caller, id, if_match, Status::Offered, Move::default(), Some(master_id)).await
}

async fn advance(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    id: i64,
    if_match: &IfMatch,
    to: Status,
    body: Move,
    master_id: Option<i64>,
) -> Result<Moved, AppError> {
    let now = app.clock.now();
    let reject = |reason: RejectionReason, error: AppError| {
        app.metrics.request_transition_rejections(reason).inc();
        error
    };
    let before = store::lock(tx, caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(before.version).map_err(|error| reject(RejectionReason::Stale, error))?;
    let role = caller.principal.role;
    let rule = state::decide(before.status, to, role).map_err(|refusal| match refusal {
        Refusal::NotAllowed => {
            let allowed = state::allowed(before.status, role).into_iter().map(Status::as_str).collect();
            let detail = format!("It is {}, and from there it cannot become {}.", before.status.as_str(), to.as_str());
            reject(RejectionReason::NotAllowed, AppError::transition_not_allowed(detail, allowed))
        }
        Refusal::Forbidden(roles) => {
            let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            let detail = format!("This move is for others: {}.", roles.join(", "));
            reject(RejectionReason::Forbidden, error::FORBIDDEN.because(detail))
        }
    })?;
    let mut next = with_input(&before, &body, master_id);
    check_fields(rule, &next, &body).map_err(|error| reject(RejectionReason::MissingField, error))?;
    if let Some(master_id) = master_id
        && !store::is_master_of_city(tx, master_id, before.city_id).await?
    {
        let error = AppError::invalid_field("/master_id", "is no active master of this city");
        return Err(reject(RejectionReason::MissingField, error));
    }
    let mut effects = settle(&mut next, &before, to, now);
    let actor_id = caller.principal.user_id;
    effects.extend(book(tx, &mut next, &before, actor_id, now).await?);
    let written = write(tx, &mut next, &before, Some(actor_id), body.reason.as_deref()).await;
    written.map_err(|error| match error.constraint() {
        Some("requests_anonymised_stays_closed") => {
            error::CONFLICT.because("Its personal data has been removed, so it cannot be opened again.")
        }
        _ => error.into(),
    })?;
    Ok((next, effects))
}

/// Writes a move that is decided: the row and the history.
async fn write(
    db: &mut Conn,
    next: &mut RequestView,
    before: &RequestView,
    actor_id: Option<i64>,
    reason: Option<&str>,
) -> Result<(), DbError> {
    next.version = store::save(db, next).await?;
    let event = NewEvent {
        request_id: next.id,
        at: next.updated_at,
        actor_id,
        kind: EventKind::Transition,
        moved: Some((before.status, next.status)),
        reason,
        diff: diff(before, next),
    };
    store::append_event(db, &event).await
}

/// Takes an offer back that was made before `before` and not answered since: the system's own move, to
/// be made in a transaction. It does nothing when somebody is answering at this moment, or has.
///
/// # Errors
/// As the database.
pub async fn take_back(
    db: &mut Conn,
    id: i64,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Effect>, DbError> {
    let Some(offered) = store::lock_unanswered(db, id, before).await? else { return Ok(Vec::new()) };
    let mut next = offered.clone();
    let effects = settle(&mut next, &offered, Status::Waiting, now);
    next.escalated_at = Some(now);
    write(db, &mut next, &offered, None, Some("The master did not answer in time.")).await?;
    let escalated = NewEvent {
        request_id: id,
        at: now,
        actor_id: None,
        kind: EventKind::Escalated,
        moved: None,
        reason: None,
        diff: Value::Object(Map::new()),
    };
    store::append_event(db, &escalated).await?;
    Ok(effects)
}

/// The request with what the caller brought.
fn with_input(before: &RequestView, body: &Move, master_id: Option<i64>) -> RequestView {
    let mut next = before.clone();
    next.address = body.address.clone().or(next.address);
    next.meeting_at = body.meeting_at.map(storable).or(next.meeting_at);
    // These belong to one move: an old time must not stand in for a new one.
    next.callback_at = body.callback_at.map(storable);
    next.resume_at = body.resume_at.map(storable);
    next.master_id = master_id.or(next.master_id);
    next.result = body.result;
    next.expenses = body.expenses;
    next
}

/// A time in whole microseconds, as the database holds it: what is answered is what will be read.
fn storable(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// A move takes what its rule needs, all of it, and nothing else: what a client said is not edited in
/// passing, by somebody whose role may not edit it.
fn check_fields(rule: &Rule, next: &RequestView, body: &Move) -> Result<(), AppError> {
    let mut errors = FieldErrors::default();
    let fields = [
        (Need::CallbackAt, body.callback_at.is_some(), next.callback_at.is_some(), "/callback_at"),
        (Need::Address, body.address.is_some(), next.address.is_some(), "/address"),
        (Need::MeetingAt, body.meeting_at.is_some(), next.meeting_at.is_some(), "/meeting_at"),
        (Need::Master, false, next.master_id.is_some(), "/master_id"),
        (Need::ResumeAt, body.resume_at.is_some(), next.resume_at.is_some(), "/resume_at"),
        (Need::ResultAndExpenses, body.result.is_some(), next.result.is_some(), "/result"),
        // Parts may cost nothing, so expenses are taken and not demanded.
        (Need::ResultAndExpenses, body.expenses.is_some(), true, "/expenses"),
    ];
    let to = rule.to.as_str();
    for (need, given, known, pointer) in fields {
        if rule.needs.contains(&need) {
            errors.check(known, pointer, format!("is required to become {to}"));
        } else {
            errors.check(!given, pointer, format!("has no place in becoming {to}"));
        }
    }
    // Whoever likes may say why; who reopens must.
    let reason = body.reason.is_some() || !rule.needs.contains(&Need::Reason);
    errors.check(reason, "/reason", format!("is required to become {to}"));
    errors.into_result()
}

/// What follows from arriving in a state, and from leaving one.
fn settle(next: &mut RequestView, before: &RequestView, to: Status, now: DateTime<Utc>) -> Vec<Effect> {
    let mut effects = vec![Effect::Moved { from: before.status, to }];
    let age = || (now - before.created_at).as_seconds_f64().max(0.0);
    next.status = to;
    next.updated_at = now;
    if before.status == Status::New && before.first_response_at.is_none() {
        next.first_response_at = Some(now);
        effects.push(Effect::FirstResponse(next.r#type.clone(), age()));
    }
    if to == Status::Offered && before.assigned_at.is_none() {
        next.assigned_at = Some(now);
        effects.push(Effect::Assigned(next.r#type.clone(), age()));
    }
    if matches!(to, Status::Waiting | Status::New | Status::Callback) {
        next.master_id = None;
    }
    next.closed_at = to.is_finished().then_some(now);
    if to == Status::Done {
        next.expenses = Some(next.expenses.unwrap_or_default());
        effects.push(Effect::Completed(next.r#type.clone(), age()));
    } else {
        (next.result, next.expenses, next.net, next.handover) = (None, None, None, None);
    }
    effects
}

/// Books what the move means in money: income on `done`, its reversal on leaving it.
async fn book(
    tx: &mut Tx,
    next: &mut RequestView,
    before: &RequestView,
    actor_id: i64,
    now: DateTime<Utc>,
) -> Result<Option<Effect>, AppError> {
    if before.status == Status::Done {
        let amount = transactions::store::reverse_income(tx, next.id, actor_id, now).await?;
        return Ok(Some(Effect::Refund(next.city.clone(), amount)));
    }
    let (Some(result), Some(expenses), Some(master_id)) = (next.result, next.expenses, next.master_id) else {
        return Ok(None);
    };
    let share =
        store::master_share(tx, master_id).await?.ok_or_else(|| AppError::internal("a master without a profile"))?;
    let net = result - expenses;
    let handover = (net * share).round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    next.net = Some(net);
    next.handover = Some(handover);
    transactions::store::book_income(tx, next, handover, actor_id, now).await?;
    Ok(Some(Effect::Revenue(next.city.clone(), handover)))
}

/// Edits what a client said.
///
/// # Errors
/// 404 out of scope, 412 stale, 409 when it has ended, 422 when its state needs what would be cleared.
pub async fn edit(
    app: &App,
    caller: &Caller,
    id: i64,
    if_match: &IfMatch,
    patch: PatchRequest,
) -> Result<RequestView, AppError> {
    let mut tx = app.db.begin_with(Plans::Kept).await?;
    let before = store::lock(&mut tx, caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(before.version)?;
    if before.status.is_finished() {
        return Err(error::CONFLICT.because("It has ended; reopen it first."));
    }
    let mut next = before.clone();
    next.r#type = patch.r#type.unwrap_or(next.r#type);
    next.direction = patch.direction.unwrap_or(next.direction);
    next.client_name = patch.client_name.unwrap_or(next.client_name);
    next.description = patch.description.unwrap_or(next.description);
    next.address = patch.address.unwrap_or(next.address);
    next.meeting_at = patch.meeting_at.map_or(next.meeting_at, |at| at.map(storable));
    if next.status.has_visit() {
        let mut errors = FieldErrors::default();
        errors.check(next.address.is_some(), "/address", "is required while a visit is agreed");
        errors.check(next.meeting_at.is_some(), "/meeting_at", "is required while a visit is agreed");
        errors.into_result()?;
    }
    let changes = diff(&before, &next);
    if changes.as_object().is_none_or(Map::is_empty) {
        return Ok(before);
    }
    next.updated_at = app.clock.now();
    next.version = store::save(&mut tx, &next).await?;
    append(&mut tx, caller, id, EventKind::Edited, next.updated_at, changes).await?;
    tx.commit().await?;
    Ok(next)
}

/// Deletes a request softly.
///
/// # Errors
/// 404, 412, 409 while its income stands: only reopening takes that back, and nobody reopens what they
/// cannot see.
pub async fn delete(app: &App, caller: &Caller, id: i64, if_match: &IfMatch) -> Result<(), AppError> {
    let now = app.clock.now();
    let mut tx = app.db.begin_with(Plans::Kept).await?;
    let before = store::lock(&mut tx, caller, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(before.version)?;
    if before.status == Status::Done {
        return Err(error::CONFLICT.because("It is done and its income is booked; reopen it first."));
    }
    store::delete(&mut tx, id, now).await?;
    append(&mut tx, caller, id, EventKind::Deleted, now, Value::Object(Map::new())).await?;
    let entry = Entry::new(AuditAction::RequestDeleted, AuditSubject::Requests, id)
        .with("city", before.city)
        .with("status", before.status.as_str());
    audit::record(&mut tx, By::caller(caller), entry, now).await?;
    Ok(tx.commit().await?)
}

/// Appends a history entry of the caller that is no transition.
///
/// # Errors
/// As the database.
pub async fn append(
    tx: &mut Tx,
    caller: &Caller,
    id: i64,
    kind: EventKind,
    now: DateTime<Utc>,
    diff: Value,
) -> Result<(), AppError> {
    let actor_id = Some(caller.principal.user_id);
    let event = NewEvent { request_id: id, at: now, actor_id, kind, moved: None, reason: None, diff };
    Ok(store::append_event(tx, &event).await?)
}

/// Fields that changed, as `{"field": [before, after]}`; bookkeeping is left out.
fn diff(before: &RequestView, after: &RequestView) -> Value {
    const BOOKKEEPING: [&str; 3] = ["version", "updated_at", "status"];
    let fields = |view: &RequestView| match serde_json::to_value(view) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(before), fields(after));
    let changed =
        new.into_iter().filter(|(name, _)| !BOOKKEEPING.contains(&name.as_str())).filter_map(|(name, value)| {
            let previous = old.get(&name).cloned().unwrap_or(Value::Null);
            (previous != value).then(|| (name, Value::Array(vec![previous, value])))
        });
    Value::Object(changed.collect())
}
