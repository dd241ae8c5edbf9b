//! SQL of cities, request types, directions and transaction types, one at a time.

use crate::{
    db::{Conn, DbError, DbOperation, Rows},
    dictionaries::{
        bodies::{NewCity, NewItem, NewTransactionType},
        model::{City, Item, TransactionType},
    },
};

impl Rows for City {}
impl Rows for Item {}
impl Rows for TransactionType {}
impl Rows for i32 {}

/// Whether PostgreSQL knows a time zone, which it must to count business days in it.
///
/// # Errors
/// As the database.
pub async fn knows_timezone(db: &mut Conn, name: &str) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "is!""#, name);
    telemetry.run(DbOperation::TimezoneKnown, query.fetch_one(pg)).await
}

/// Creates a city.
///
/// # Errors
/// As the database; a code that is taken violates `cities_code_key`.
pub async fn insert_city(db: &mut Conn, city: &NewCity) -> Result<City, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        City,
        "INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ($1, $2, $3, $4)
         RETURNING id, code, name_ru, name_en, timezone, active, version",
        city.code,
        city.name_ru,
        city.name_en,
        city.timezone
    );
    telemetry.run(DbOperation::DictionaryInsert, query.fetch_one(pg)).await
}

/// A city, locked until the transaction ends.
///
/// # Errors
/// As the database.
pub async fn lock_city(db: &mut Conn, id: i64) -> Result<Option<City>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        City,
        "SELECT id, code, name_ru, name_en, timezone, active, version FROM cities WHERE id = $1 FOR NO KEY UPDATE",
        id
    );
    telemetry.run(DbOperation::DictionaryLock, query.fetch_optional(pg)).await
}

/// Writes what can change of a city, and raises its version. The row must be locked.
///
/// # Errors
/// As the database.
pub async fn save_city(db: &mut Conn, city: &City) -> Result<i32, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "UPDATE cities SET version = version + 1, name_ru = $2, name_en = $3, timezone = $4, active = $5
          WHERE id = $1 RETURNING version",
        city.id,
        city.name_ru,
        city.name_en,
        city.timezone,
        city.active
    );
    telemetry.run(DbOperation::DictionaryUpdate, query.fetch_one(pg)).await
}

/// Creates a kind of transaction.
///
/// # Errors
/// As the database; a code that is taken violates `transaction_types_code_key`.
pub async fn insert_transaction_type(db: &mut Conn, kind: &NewTransactionType) -> Result<TransactionType, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        TransactionType,
        "INSERT INTO transaction_types (code, name_ru, name_en, sign) VALUES ($1, $2, $3, $4)
         RETURNING id, code, name_ru, name_en, sign, active, version",
        kind.code,
        kind.name_ru,
        kind.name_en,
        kind.sign
    );
    telemetry.run(DbOperation::DictionaryInsert, query.fetch_one(pg)).await
}

/// A kind of transaction, locked until the transaction ends.
///
/// # Errors
/// As the database.
pub async fn lock_transaction_type(db: &mut Conn, id: i64) -> Result<Option<TransactionType>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        TransactionType,
        "SELECT id, code, name_ru, name_en, sign, active, version FROM transaction_types WHERE id = $1 FOR NO KEY UPDATE",
        id
    );
    telemetry.run(DbOperation::DictionaryLock, query.fetch_optional(pg)).await
}

/// Writes what can change of a kind of transaction, and raises its version. The row must be locked.
///
/// # Errors
/// As the database.
pub async fn save_transaction_type(db: &mut Conn, kind: &TransactionType) -> Result<i32, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "UPDATE transaction_types SET version = version + 1, name_ru = $2, name_en = $3, active = $4
          WHERE id = $1 RETURNING version",
        kind.id,
        kind.name_ru,
        kind.name_en,
        kind.active
    );
    telemetry.run(DbOperation::DictionaryUpdate, query.fetch_one(pg)).await
}

macro_rules! items {
    ($($insert:ident, $lock:ident, $save:ident: $table:literal;)*) => {$(
        #[doc = concat!("Creates an entry of `", $table, "`.")]
        ///
        /// # Errors
        /// As the database; a code that is taken violates a unique constraint.
        pub async fn $insert(db: &mut Conn, item: &NewItem) -> Result<Item, DbError> {
            let (pg, telemetry) = db.parts();
            let query = sqlx::query_as!(
                Item,
                "INSERT INTO " + $table + " (code, name_ru, name_en) VALUES ($1, $2, $3)
                 RETURNING id, code, name_ru, name_en, active, version",
                item.code,
                item.name_ru,
                item.name_en
            );
            telemetry.run(DbOperation::DictionaryInsert, query.fetch_one(pg)).await
        }

        #[doc = concat!("An entry of `", $table, "`, locked until the transaction ends.")]
        ///
        /// # Errors
        /// As the database.
        pub async fn $lock(db: &mut Conn, id: i64) -> Result<Option<Item>, DbError> {
            let (pg, telemetry) = db.parts();
            let query = sqlx::query_as!(
                Item,
                "SELECT id, code, name_ru, name_en, active, version FROM " + $table + " WHERE id = $1 FOR NO KEY UPDATE",
                id
            );
            telemetry.run(DbOperation::DictionaryLock, query.fetch_optional(pg)).await
        }

        #[doc = concat!("Writes what can change of an entry of `", $table, "`, and raises its version.")]
        /// The row must be locked.
        ///
        /// # Errors
        /// As the database.
        pub async fn $save(db: &mut Conn, item: &Item) -> Result<i32, DbError> {
            let (pg, telemetry) = db.parts();
            let query = sqlx::query_scalar!(
                "UPDATE " + $table + " SET version = version + 1, name_ru = $2, name_en = $3, active = $4
                  WHERE id = $1 RETURNING version",
                item.id,
                item.name_ru,
                item.name_en,
                item.active
            );
            telemetry.run(DbOperation::DictionaryUpdate, query.fetch_one(pg)).await
        }
    )*};
}

items! {
    insert_request_type, lock_request_type, save_request_type: "request_types";
    insert_direction, lock_direction, save_direction: "directions";
}
