//! SQL of people. Every query takes the caller's scope and applies it at the root: what lies outside
//! does not exist.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::model::{Kind, Person, UserStatus};
use crate::{
    auth::{Caller, Role},
    db::{Conn, DbError, DbOperation},
    http::cursor::Cursor,
};

/// `SELECT` of a [`Person`] with the given tail.
macro_rules! select_person {
    ($tail:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            Person,
            r#"SELECT u.id, u.version, u.login, u.name, u.phone_e164 AS phone, u.email, u.role AS "role: _",
                      u.status AS "status: _", u.created_at, p.share AS "share?", p.passport AS "passport?",
                      ARRAY(SELECT c.code FROM user_cities uc JOIN cities c ON c.id = uc.city_id
                             WHERE uc.user_id = u.id ORDER BY c.code) AS "cities!",
                      ARRAY(SELECT city_id FROM user_cities WHERE user_id = u.id ORDER BY city_id) AS "city_ids!"
                 FROM users u LEFT JOIN master_profiles p ON p.user_id = u.id "# + $tail,
            $($argument),*
        )
    };
}

/// Filters of a list, parsed.
#[derive(Clone, Debug)]
pub struct Filter {
    pub city: Option<String>,
    pub status: Option<UserStatus>,
    pub text: Option<String>,
    /// Whether the text may be found in a login: not for those who do not see it.
    pub search_logins: bool,
    pub after: Option<Cursor>,
    pub limit: i64,
}

/// Somebody of a kind in the caller's scope.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, kind: Kind, id: i64) -> Result<Option<Person>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_person!(
        "WHERE u.id = $1 AND u.deleted_at IS NULL AND u.role = ANY($2)
           AND ($3::bigint[] IS NULL OR EXISTS (SELECT FROM user_cities s WHERE s.user_id = u.id AND s.city_id = ANY($3)))
           AND ($4::bigint IS NULL OR u.id = $4)",
        id,
        &kind.roles(),
        caller.city_filter() as _,
        caller.master_filter()
    );
    telemetry.run(DbOperation::UserById, query.fetch_optional(pg)).await
}

/// Anybody who is not deleted; for an answer about somebody whom the caller has just changed.
///
/// # Errors
/// As the database.
pub async fn anywhere(db: &mut Conn, id: i64) -> Result<Option<Person>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_person!("WHERE u.id = $1 AND u.deleted_at IS NULL", id);
    telemetry.run(DbOperation::UserById, query.fetch_optional(pg)).await
}

/// As [`by_id`], locked until the transaction ends; two statements, as in [`crate::requests::store::lock`].
///
/// # Errors
/// As the database.
pub async fn lock(db: &mut Conn, caller: &Caller, kind: Kind, id: i64) -> Result<Option<Person>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM users u
          WHERE u.id = $1 AND u.deleted_at IS NULL AND u.role = ANY($2)
            AND ($3::bigint[] IS NULL OR EXISTS (SELECT FROM user_cities s WHERE s.user_id = u.id AND s.city_id = ANY($3)))
            AND ($4::bigint IS NULL OR u.id = $4)
            FOR NO KEY UPDATE OF u",
        id,
        &kind.roles(),
        caller.city_filter() as _,
        caller.master_filter()
    );
    match telemetry.run(DbOperation::UserLock, query.fetch_optional(pg)).await? {
        Some(id) => by_id(db, caller, kind, id).await,
        None => Ok(None),
    }
}

/// Locks all administrators, in one order: whoever is about to disable or delete one waits here, and
/// then counts those who are left.
///
/// # Errors
/// As the database.
pub async fn lock_administrators(db: &mut Conn) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM users WHERE role = 'admin' AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE"
    );
    telemetry.run(DbOperation::AdministratorLock, query.fetch_all(pg)).await.map(drop)
}

/// Whether there is another active administrator.
///
/// # Errors
/// As the database.
pub async fn has_other_administrator(db: &mut Conn, id: i64) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users WHERE role = 'admin' AND status = 'active' AND id <> $1) AS "is!""#,
        id
    );
    telemetry.run(DbOperation::AdministratorLock, query.fetch_one(pg)).await
}

/// A page of people in the caller's scope, newest first; one row more than the limit when there is
/// more.
///
/// # Errors
/// As the database.
pub async fn list(db: &mut Conn, caller: &Caller, kind: Kind, filter: &Filter) -> Result<Vec<Person>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_person!(
        "WHERE u.deleted_at IS NULL AND u.role = ANY($1)
           AND ($2::bigint[] IS NULL OR EXISTS (SELECT FROM user_cities s WHERE s.user_id = u.id AND s.city_id = ANY($2)))
           AND ($3::bigint IS NULL OR u.id = $3)
           AND ($4::text IS NULL OR EXISTS (SELECT FROM user_cities f JOIN cities fc ON fc.id = f.city_id
                                             WHERE f.user_id = u.id AND fc.code = $4))
           AND ($5::text IS NULL OR u.status = $5)
           AND ($6::text IS NULL
                OR strpos(lower(concat_ws(' ', u.name, u.phone_e164, CASE WHEN $7 THEN u.login END)), lower($6)) > 0)
           AND ($8::timestamptz IS NULL OR (u.created_at, u.id) < ($8, $9))
         ORDER BY u.created_at DESC, u.id DESC LIMIT $10",
        &kind.roles(),
        caller.city_filter() as _,
        caller.master_filter(),
        filter.city,
        filter.status.map(UserStatus::as_str),
        filter.text,
        filter.search_logins,
        filter.after.map(|cursor| cursor.at),
        filter.after.map(|cursor| cursor.id),
        filter.limit + 1
    );
    telemetry.run(DbOperation::UserList, query.fetch_all(pg)).await
}

/// What [`save`] writes.
pub struct Row<'a> {
    pub id: i64,
    pub name: &'a str,
    pub phone: Option<&'a str>,
    pub email: Option<&'a str>,
    pub role: Role,
    pub status: UserStatus,
    /// A new one, hashed.
    pub password_hash: Option<&'a str>,
    /// Whether what older tokens say has stopped being true.
    pub outdates_tokens: bool,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Writes a user's row, and raises the version. The row must be locked.
///
/// # Errors
/// As the database; a phone that is taken violates `users_phone_key`.
pub async fn save(db: &mut Conn, row: &Row<'_>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE users SET version = version + 1, name = $2, phone_e164 = $3, email = $4, role = $5, status = $6,
                password_hash = COALESCE($7, password_hash),
                token_version = token_version + CASE WHEN $8 THEN 1 ELSE 0 END
          WHERE id = $1",
        row.id,
        row.name,
        row.phone,
        row.email,
        row.role.as_str(),
        row.status.as_str(),
        row.password_hash,
        row.outdates_tokens
    );
    telemetry.run(DbOperation::UserUpdate, query.execute(pg)).await.map(drop)
}

/// Gives somebody who was just created their contact data.
///
/// # Errors
/// As the database; a phone that is taken violates `users_phone_key`.
pub async fn set_contact(db: &mut Conn, id: i64, phone: Option<&str>, email: Option<&str>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("UPDATE users SET phone_e164 = $2, email = $3 WHERE id = $1", id, phone, email);
    telemetry.run(DbOperation::UserUpdate, query.execute(pg)).await.map(drop)
}

/// Gives somebody exactly these cities. The user's row must be locked.
///
/// # Errors
/// As the database.
pub async fn set_cities(db: &mut Conn, id: i64, city_ids: &[i64]) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH gone AS (DELETE FROM user_cities WHERE user_id = $1 AND city_id <> ALL($2))
         INSERT INTO user_cities (user_id, city_id) SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING",
        id,
        city_ids
    );
    telemetry.run(DbOperation::UserCitiesUpdate, query.execute(pg)).await.map(drop)
}

/// Writes what only masters have. The user's row must be locked.
///
/// # Errors
/// As the database.
pub async fn set_profile(
    db: &mut Conn,
    id: i64,
    share: Option<Decimal>,
    sealed_passport: Option<&str>,
) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "UPDATE master_profiles SET share = COALESCE($2, share), passport = $3 WHERE user_id = $1",
        id,
        share,
        sealed_passport
    );
    telemetry.run(DbOperation::MasterProfileUpdate, query.execute(pg)).await.map(drop)
}

/// How many unfinished service requests are in a master's hands, in some cities or in all.
///
/// # Errors
/// As the database.
pub async fn holdings(db: &mut Conn, master_id: i64, city_ids: Option<&[i64]>) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM requests
            WHERE master_id = $1 AND deleted_at IS NULL AND ($2::bigint[] IS NULL OR city_id = ANY($2))
              AND status IN ('offered', 'accepted', 'en_route', 'in_progress', 'deferred')"#,
        master_id,
        city_ids as _
    );
    telemetry.run(DbOperation::MasterHoldings, query.fetch_one(pg)).await
}

/// Deletes somebody softly: the login stays taken, the history keeps its names, the passport, which
/// nobody can read from now on, is not kept. The row must be locked.
///
/// # Errors
/// As the database.
pub async fn remove(db: &mut Conn, id: i64, now: DateTime<Utc>) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "WITH forgotten AS (UPDATE master_profiles SET passport = NULL WHERE user_id = $1)
         UPDATE users SET version = version + 1, token_version = token_version + 1, status = 'disabled', deleted_at = $2
          WHERE id = $1",
        id,
        now
    );
    telemetry.run(DbOperation::UserUpdate, query.execute(pg)).await.map(drop)
}
