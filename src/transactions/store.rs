//! SQL of the ledger. Whoever reads for a caller applies the caller's scope at the root.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::model::{BalanceBy, BalanceParams, BalanceRow, INCOME, REVERSAL, TransactionView};
use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation},
    http::cursor::Cursor,
    requests::model::RequestView,
};

/// `SELECT` of a [`TransactionView`] in the caller's scope (the first two arguments), with the given tail.
macro_rules! select_transaction {
    ($tail:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            TransactionView,
            r#"SELECT t.id, tt.code AS "type", t.amount, t.city_id, ci.code AS city, t.master_id, t.request_id, t.automatic,
                      t.reverses_id, r.id AS "reversed_by?", t.note, t.reason, t.actor_id, t.at
                 FROM transactions t
                 JOIN transaction_types tt ON tt.id = t.type_id
                 JOIN cities ci ON ci.id = t.city_id
                 LEFT JOIN transactions r ON r.reverses_id = t.id
                WHERE ($1::bigint[] IS NULL OR t.city_id = ANY($1)) AND ($2::bigint IS NULL OR t.master_id = $2) "# + $tail,
            $($argument),*
        )
    };
}

/// The constraint that a second reversal violates.
pub const REVERSED_ONCE: &str = "transactions_reverses_id_key";

/// An entry to be written: the one way into the ledger.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// City id.
    pub city_id: i64,
    /// Code of the type.
    pub kind: &'a str,
    /// Signed.
    pub amount: Decimal,
    pub request_id: Option<i64>,
    pub master_id: Option<i64>,
    /// Whether the state machine writes it.
    pub automatic: bool,
    pub reverses_id: Option<i64>,
    pub note: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub actor_id: i64,
    pub at: DateTime<Utc>,
}

/// Writes an entry; its number.
///
/// # Errors
/// As the database, which checks the sign and that a reversal is exact.
pub async fn insert(db: &mut Conn, entry: &NewEntry<'_>) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "INSERT INTO transactions (city_id, type_id, amount, request_id, master_id, automatic, reverses_id, note, reason, actor_id, at)
         SELECT $1, id, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM transaction_types WHERE code = $2
         RETURNING id",
        entry.city_id,
        entry.kind,
        entry.amount,
        entry.request_id,
        entry.master_id,
        entry.automatic,
        entry.reverses_id,
        entry.note,
        entry.reason,
        entry.actor_id,
        entry.at
    );
    telemetry.run(DbOperation::TransactionInsert, query.fetch_one(pg)).await
}

/// Books the handover of a finished request as income.
///
/// # Errors
/// As the database.
pub async fn book_income(
    db: &mut Conn,
    request: &RequestView,
    amount: Decimal,
    actor_id: i64,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    let entry = NewEntry {
        city_id: request.city_id,
        kind: INCOME,
        amount,
        request_id: Some(request.id),
        master_id: request.master_id,
        automatic: true,
        reverses_id: None,
        note: None,
        reason: None,
        actor_id,
        at: now,
    };
    insert(db, &entry).await.map(drop)
}

/// Takes an entry back; the number of the reversal.
///
/// # Errors
/// As the database; [`REVERSED_ONCE`] when somebody was faster.
pub async fn reverse(
    db: &mut Conn,
    original: &TransactionView,
    reason: Option<&str>,
    actor_id: i64,
    now: DateTime<Utc>,
) -> Result<i64, DbError> {
    let entry = NewEntry {
        city_id: original.city_id,
        kind: REVERSAL,
        amount: -original.amount,
        request_id: original.request_id,
        master_id: original.master_id,
        automatic: original.automatic,
        reverses_id: Some(original.id),
        note: None,
        reason,
        actor_id,
        at: now,
    };
    insert(db, &entry).await
}

/// Reverses the income of a request that is reopened, whose row must be locked; returns the amount
/// taken back.
///
/// # Errors
/// As the database; [`sqlx::Error::RowNotFound`] when there is no income to reverse.
pub async fn reverse_income(
    db: &mut Conn,
    request_id: i64,
    actor_id: i64,
    now: DateTime<Utc>,
) -> Result<Decimal, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_transaction!(
        "AND t.request_id = $3 AND t.automatic AND t.reverses_id IS NULL AND r.id IS NULL",
        None::<&[i64]> as _,
        None::<i64>,
        request_id
    );
    let income = telemetry.run(DbOperation::TransactionOfRequest, query.fetch_optional(pg)).await?;
    let income = income.ok_or(DbError::Sql(sqlx::Error::RowNotFound))?;
    reverse(db, &income, None, actor_id, now).await?;
    Ok(income.amount)
}

/// One entry in the caller's scope.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<TransactionView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_transaction!("AND t.id = $3", caller.city_filter() as _, caller.master_filter(), id);
    telemetry.run(DbOperation::TransactionById, query.fetch_optional(pg)).await
}

/// Filters of a list.
#[derive(Debug)]
pub struct Filter {
    pub city: Option<String>,
    pub master: Option<i64>,
    pub request: Option<i64>,
    pub kind: Option<String>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
    pub after: Option<Cursor>,
    pub limit: i64,
}

/// A page of entries in the caller's scope, newest first; one row more than the limit when there is
/// more.
///
/// # Errors
/// As the database.
pub async fn list(db: &mut Conn, caller: &Caller, filter: &Filter) -> Result<Vec<TransactionView>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = select_transaction!(
        "AND ($3::text IS NULL OR ci.code = $3)
         AND ($4::bigint IS NULL OR t.master_id = $4)
         AND ($5::bigint IS NULL OR t.request_id = $5)
         AND ($6::text IS NULL OR tt.code = $6)
         AND ($7::timestamptz IS NULL OR t.at >= $7)
         AND ($8::timestamptz IS NULL OR t.at < $8)
         AND ($9::timestamptz IS NULL OR (t.at, t.id) < ($9, $10))
         ORDER BY t.at DESC, t.id DESC LIMIT $11",
        caller.city_filter() as _,
        caller.master_filter(),
        filter.city,
        filter.master,
        filter.request,
        filter.kind,
        filter.from,
        filter.to,
        filter.after.map(|cursor| cursor.at),
        filter.after.map(|cursor| cursor.id),
        filter.limit + 1
    );
    telemetry.run(DbOperation::TransactionList, query.fetch_all(pg)).await
}

/// The sums of what the caller may see, by city or by master.
///
/// # Errors
/// As the database.
pub async fn balance(
    db: &mut Conn,
    caller: &Caller,
    by: BalanceBy,
    params: &BalanceParams,
) -> Result<Vec<BalanceRow>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        BalanceRow,
        r#"SELECT CASE WHEN $3 THEN ci.code END AS city, CASE WHEN NOT $3 THEN t.master_id END AS master_id,
                  COALESCE(sum(t.amount) FILTER (WHERE ot.sign = 1), 0) AS "income!",
                  COALESCE(-sum(t.amount) FILTER (WHERE ot.sign = -1), 0) AS "expenses!",
                  sum(t.amount) AS "balance!", count(*) AS "entries!"
             FROM transactions t
             JOIN cities ci ON ci.id = t.city_id
             LEFT JOIN transactions o ON o.id = t.reverses_id
             JOIN transaction_types ot ON ot.id = COALESCE(o.type_id, t.type_id)
            WHERE ($1::bigint[] IS NULL OR t.city_id = ANY($1)) AND ($2::bigint IS NULL OR t.master_id = $2)
              AND ($4::text IS NULL OR ci.code = $4)
              AND ($5::timestamptz IS NULL OR t.at >= $5)
              AND ($6::timestamptz IS NULL OR t.at < $6)
            GROUP BY 1, 2 ORDER BY 1, 2"#,
        caller.city_filter() as _,
        caller.master_filter(),
        by == BalanceBy::City,
        params.city,
        params.from,
        params.to
    );
    telemetry.run(DbOperation::TransactionBalance, query.fetch_all(pg)).await
}

/// Whether entries of a type may be booked by hand, and then with which sign; `None` for a type that
/// does not exist, is not in use any more, or is the ledger's own.
///
/// # Errors
/// As the database.
pub async fn sign_of(db: &mut Conn, kind: &str) -> Result<Option<Decimal>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT sign::numeric AS "sign!" FROM transaction_types WHERE code = $1 AND active AND sign IS NOT NULL"#,
        kind
    );
    telemetry.run(DbOperation::TransactionSign, query.fetch_optional(pg)).await
}

/// Whether a user is, or was, a master of a city: the money of one who left can still come in.
///
/// # Errors
/// As the database.
pub async fn has_been_master_of_city(db: &mut Conn, user_id: i64, city_id: i64) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users u JOIN user_cities uc ON uc.user_id = u.id
                           WHERE u.id = $1 AND u.role = 'master' AND uc.city_id = $2) AS "is!""#,
        user_id,
        city_id
    );
    telemetry.run(DbOperation::MasterOfTransaction, query.fetch_one(pg)).await
}
