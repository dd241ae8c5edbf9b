//! Creating, changing and deleting people, each in one transaction. Passwords are hashed before it
//! begins: the server ends one that is idle, and a hash may have to wait for a core.
//!
//! Lock order: all administrators (in the order of their ids), then the user; a service request is
//! locked before its master, so nothing here locks service requests.

use axum::response::Response;
use chrono::NaiveDate;

use super::{
    bodies::{Changes, Newcomer},
    model::{Kind, Person, UserStatus},
    passport::{Passport, Vault},
    rules, store, trail,
};
use crate::{
    app::App,
    audit::{self, By},
    auth::{self, Caller, Role, lockout, store::NewUser},
    cache::{self, Domain},
    db::{DbError, Tx},
    dictionaries,
    error::{self, AppError},
    http::{
        etag::IfMatch,
        idempotency::{Answer, Once},
    },
    phone,
};

/// Creates somebody, and answers what `show` makes of them.
///
/// # Errors
/// 422 for a city or a role that is not the caller's to give, 409 for a login or a phone that is taken.
pub async fn create(
    app: &App,
    caller: &Caller,
    once: Once,
    kind: Kind,
    newcomer: Newcomer,
    show: impl FnOnce(Person) -> Response,
) -> Result<Response, AppError> {
    if !rules::stands_above(caller.principal.role, newcomer.role) {
        return Err(too_high());
    }
    let now = app.clock.now();
    let phone = newcomer.phone.as_deref().map(|text| e164(app, text)).transpose()?;
    let vault = newcomer.passport.as_ref().map(|passport| vault(app, passport, now.date_naive())).transpose()?;
    let hash = app.passwords.hash(newcomer.password.expose(), &newcomer.login, "/password").await?;

    let create = async |tx: &mut Tx| {
        let found = dictionaries::store::city_ids(tx, &newcomer.cities).await?;
        rules::check_cities(caller, &[], &found)?;
        let row = NewUser {
            login: &newcomer.login,
            password_hash: &hash,
            name: &newcomer.name,
            role: newcomer.role,
            cities: &newcomer.cities,
            share: newcomer.share,
        };
        let id = auth::store::create_user(tx, &row, now).await.map_err(taken)?;
        lockout::adopt(tx, &app.keys, row.login, id).await?;
        if phone.is_some() || newcomer.email.is_some() {
            store::set_contact(tx, id, phone.as_deref(), newcomer.email.as_deref()).await.map_err(taken)?;
        }
        if let (Some(vault), Some(passport)) = (vault, &newcomer.passport) {
            let sealed = vault.seal(id, passport).map_err(AppError::internal)?;
            store::set_profile(tx, id, None, Some(&sealed)).await?;
        }
        let created = store::by_id(tx, caller, kind, id).await?.ok_or(error::NOT_FOUND)?;
        audit::record(tx, By::caller(caller), trail::created(id, &row), now).await?;
        Ok(Answer::of(show(created)))
    };
    let commit = |app, tx| async move { cache::commit(&app, tx, Domain::Users).await };
    once.run_until(app, caller, create, commit).await
}

/// Changes somebody.
///
/// # Errors
/// 404 out of scope, 412 stale, 403 for somebody who does not stand below the caller, 422 for what the
/// caller may not give, 409 for what clashes with others: a taken phone, service requests in a master's
/// hands, cities that are not the caller's, the last administrator.
pub async fn edit(
    app: &App,
    caller: &Caller,
    kind: Kind,
    id: i64,
    if_match: &IfMatch,
    changes: Changes,
) -> Result<Person, AppError> {
    rules::check_own(caller, id, &changes)?;
    let now = app.clock.now();
    let phone = match changes.phone.as_ref() {
        Some(Some(text)) => Some(Some(e164(app, text)?)),
        Some(None) => Some(None),
        None => None,
    };
    let passport = changes.passport.as_ref().and_then(Option::as_ref);
    let vault = passport.map(|passport| vault(app, passport, now.date_naive())).transpose()?;
    let hash = match &changes.password {
        Some(password) => {
            let known = store::by_id(&mut app.db.acquire().await?, caller, kind, id).await?.ok_or(error::NOT_FOUND)?;
            Some(app.passwords.hash(password.expose(), &known.login, "/password").await?)
        }
        None => None,
    };

    let mut tx = app.db.begin().await?;
    if kind == Kind::Administrator && changes.status == Some(UserStatus::Disabled) {
        store::lock_administrators(&mut tx).await?;
    }
    let before = store::lock(&mut tx, caller, kind, id).await?.ok_or(error::NOT_FOUND)?;
    if_match.check(before.version)?;
    rules::check_rank(caller, &before)?;

    let mut next = before.clone();
    next.name = changes.name.unwrap_or(next.name);
    next.phone = phone.unwrap_or(next.phone);
    next.email = changes.email.unwrap_or(next.email);
    next.status = changes.status.unwrap_or(next.status);
    next.share = changes.share.or(next.share);
    if let Some(role) = changes.role.filter(|role| *role != before.role) {
        if !rules::stands_above(caller.principal.role, role) {
            return Err(too_high());
        }
        next.role = role;
    }
    if let Some(codes) = &changes.cities {
        let found = dictionaries::store::city_ids(&mut tx, codes).await?;
        next.city_ids = rules::check_cities(caller, &before.city_ids, &found)?;
    }
    next.passport = match (&changes.passport, vault) {
        (Some(Some(passport)), Some(vault)) => Some(vault.seal(id, passport).map_err(AppError::internal)?),
        (Some(None), _) => None,
        _ => next.passport,
    };

    let moved = next.city_ids != before.city_ids;
    let concerns_all_cities =
        next.role != before.role || next.status != before.status || next.share != before.share || hash.is_some();
    if concerns_all_cities {
        rules::check_reach(caller, &before)?;
    }
    let profiled = next.share != before.share || next.passport != before.passport;
    let named = next.name != before.name || next.phone != before.phone || next.email != before.email;
    if !(moved || concerns_all_cities || profiled || named) {
        return Ok(before);
    }
    // Whoever was disabled before does not go now.
    let goes = next.status == UserStatus::Disabled && before.status == UserStatus::Active;
    check_dispensable(&mut tx, &before, &next, goes).await?;

    let outdates_tokens = moved || next.role != before.role || next.status != before.status || hash.is_some();
    let row = store::Row {
        id,
        name: &next.name,
        phone: next.phone.as_deref(),
        email: next.email.as_deref(),
        role: next.role,
        status: next.status,
        password_hash: hash.as_deref(),
        outdates_tokens,
    };
    store::save(&mut tx, &row).await.map_err(taken)?;
    if moved {
        store::set_cities(&mut tx, id, &next.city_ids).await?;
    }
    if profiled {
        store::set_profile(&mut tx, id, next.share, next.passport.as_deref()).await?;
    }
    if outdates_tokens {
        auth::store::revoke_sessions_of(&mut tx, id, now).await?;
    }
    // As it is now, even if it has left the caller's cities.
    next = store::anywhere(&mut tx, id).await?.ok_or(error::NOT_FOUND)?;
    audit::record(&mut tx, By::caller(caller), trail::changed(&before, &next, hash.is_some()), now).await?;
    cache::commit(app, tx, Domain::Users).await?;
    Ok(next)
}

/// Deletes somebody softly.
///
/// # Errors
/// As [`edit`]; 409 for oneself.
pub async fn delete(app: &App, caller: &Caller, kind: Kind, id: i64, if_match: &IfMatch) -> Result<(), AppError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if kind == Kind::Administrator {
        store::lock_administrators(&mut tx).await?;
    }
    let before = store::lock(&mut tx, caller, kind, id).await?.ok_or(error::NOT_FOUND)?;
    if id == caller.principal.user_id {
        return Err(error::CONFLICT.because("Nobody deletes themselves; ask somebody else."));
    }
    if_match.check(before.version)?;
    rules::check_rank(caller, &before)?;
    rules::check_reach(caller, &before)?;
    check_dispensable(&mut tx, &before, &before, true).await?;
    store::remove(&mut tx, id, now).await?;
    auth::store::revoke_sessions_of(&mut tx, id, now).await?;
    audit::record(&mut tx, By::caller(caller), trail::deleted(&before), now).await?;
    cache::commit(app, tx, Domain::Users).await
}

/// Nobody goes, or leaves a city, with work in their hands that needs them: service requests of a
/// master, and the installation itself.
async fn check_dispensable(tx: &mut Tx, before: &Person, next: &Person, goes: bool) -> Result<(), AppError> {
    if before.role == Role::Admin && goes && before.status == UserStatus::Active {
        let replaced = store::has_other_administrator(tx, before.id).await?;
        return if replaced { Ok(()) } else { Err(error::CONFLICT.because("There must be an active administrator.")) };
    }
    if before.role != Role::Master {
        return Ok(());
    }
    let left: Vec<i64> = before.city_ids.iter().copied().filter(|city| !next.city_ids.contains(city)).collect();
    let held = match (goes, left.is_empty()) {
        (true, _) => store::holdings(tx, before.id, None).await?,
        (false, false) => store::holdings(tx, before.id, Some(&left)).await?,
        (false, true) => 0,
    };
    if held > 0 {
        let detail = format!("This master holds {held} unfinished service requests there; reassign them first.");
        return Err(error::CONFLICT.because(detail));
    }
    Ok(())
}

fn e164(app: &App, text: &str) -> Result<String, AppError> {
    phone::normalise(text, &app.config.telephony.region)
        .ok_or_else(|| AppError::invalid_field("/phone", "is no phone number"))
}

fn too_high() -> AppError {
    AppError::invalid_field("/role", "is not below your own")
}

/// The vault for a passport that may be put into it.
fn vault<'a>(app: &'a App, passport: &Passport, today: NaiveDate) -> Result<&'a Vault, AppError> {
    // A day begins up to 14 hours earlier in the east than in UTC.
    let tomorrow = today.succ_opt().unwrap_or(today);
    let oldest = NaiveDate::from_ymd_opt(1900, 1, 1).unwrap_or(NaiveDate::MIN);
    if !(oldest..=tomorrow).contains(&passport.issued_on) {
        return Err(AppError::invalid_field("/passport/issued_on", "must lie between 1900 and today"));
    }
    app.passports.as_ref().ok_or_else(|| {
        error::CONFLICT.because("Passports cannot be stored here: no key is configured (privacy.passport_key).")
    })
}

/// What a violated unique constraint means to the person who sent the body.
fn taken(error: DbError) -> AppError {
    let detail = match error.constraint() {
        Some("users_login_key") => "The login is taken.",
        Some("users_phone_key") => "The phone is that of another user.",
        _ => return error.into(),
    };
    error::CONFLICT.because(detail).caused_by(error)
}
