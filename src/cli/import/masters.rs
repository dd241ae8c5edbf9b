//! Masters of the old system. They cannot sign in until somebody gives them a password.

use rust_decimal::Decimal;

use super::{
    batch::{Import, Ready},
    context::Context,
    fields::Fields,
    table::Column,
};
use crate::{
    audit::AuditSubject,
    auth::{
        Role,
        store::{NewUser, create_user},
    },
    db::{Conn, DbError, DbOperation},
};

const STATUSES: &[(bool, &[&str])] =
    &[(true, &["Работает", "Активен", "active"]), (false, &["Уволен", "Отключен", "disabled"])];

/// A row, checked.
#[derive(Debug)]
pub(super) struct Master {
    login: String,
    name: String,
    /// Codes.
    cities: Vec<String>,
    share: Decimal,
    active: bool,
}

/// `switchboard import masters`.
#[derive(Debug)]
pub(super) struct Masters;

impl Import for Masters {
    type Item = Master;
    const KIND: &'static str = "masters";
    const SUBJECT: AuditSubject = AuditSubject::Users;
    const COLUMNS: &'static [Column] = &[
        Column { name: "number", also: &["Номер", "id", "№"], required: true },
        Column { name: "name", also: &["Имя", "ФИО", "Мастер"], required: true },
        Column { name: "login", also: &["Логин"], required: false },
        Column { name: "cities", also: &["Города", "Город", "city"], required: true },
        Column { name: "share", also: &["Доля", "Процент сдачи"], required: true },
        Column { name: "status", also: &["Статус"], required: false },
    ];

    fn read(&self, context: &Context, fields: &mut Fields<'_>) -> Option<Master> {
        fields.required("name");
        let name = fields.text("name", 100);
        let login = login(fields);
        let share = share(fields);
        let active = fields.choice("status", STATUSES).unwrap_or(true);
        let mut cities = Vec::new();
        for city in fields.required("cities")?.split([',', '|', '/']).map(str::trim).filter(|city| !city.is_empty()) {
            match context.city_named(city) {
                Some((city, _)) => cities.push(city.code.clone()),
                None => fields.problem("cities", "there is no such city"),
            }
        }
        fields.check(!cities.is_empty(), "cities", "names no city");
        Some(Master { login: login?, name: name?, cities, share: share?, active })
    }

    async fn store(&self, db: &mut Conn, context: &Context, rows: &[Ready<Master>]) -> Result<(), DbError> {
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let user = NewUser {
                login: &row.item.login,
                password_hash: &context.no_password,
                name: &row.item.name,
                role: Role::Master,
                cities: &row.item.cities,
                share: Some(row.item.share),
            };
            let id = create_user(db, &user, context.now).await?;
            if !row.item.active {
                let (pg, telemetry) = db.parts();
                let query = sqlx::query!("UPDATE users SET status = 'disabled' WHERE id = $1", id);
                telemetry.run(DbOperation::Import, query.execute(pg)).await?;
            }
            ids.push(id);
        }
        super::store::keep_keys(db, Self::KIND, rows.iter().map(|row| row.number.as_str()), &ids).await
    }
}

/// The login, or one made of the old system's number.
fn login(fields: &mut Fields<'_>) -> Option<String> {
    let login = match fields.get("login") {
        Some(login) => login.to_lowercase(),
        None => format!("master-{}", fields.get("number")?.to_lowercase()),
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (2..=64).contains(&login.len())
        && login.starts_with(allowed)
        && login.chars().all(|c| allowed(c) || matches!(c, '.' | '_' | '-'));
    fields.check(fits, "login", "must be 2 to 64 of a-z 0-9 . _ -");
    fits.then_some(login)
}

/// 0.5, 0,5, 50 or 50%.
fn share(fields: &mut Fields<'_>) -> Option<Decimal> {
    let text = fields.required("share")?;
    let number: Option<Decimal> = text.trim_end_matches('%').trim().replace(',', ".").parse().ok();
    let share = number.map(|number| {
        let percent = text.ends_with('%') || number > Decimal::ONE;
        if percent { number / Decimal::ONE_HUNDRED } else { number }
    });
    let share = share.filter(|share| (Decimal::ZERO..=Decimal::ONE).contains(share) && share.normalize().scale() <= 4);
    fields.check(share.is_some(), "share", "is no part between 0 and 1, nor a percentage");
    share
}
