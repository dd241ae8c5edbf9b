//! SQL of the ledger.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::{
    db::{Conn, DbError, DbOperation},
    requests::model::RequestView,
};

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
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, actor_id, at)
         SELECT $1, id, $2, $3, $4, $5, $6 FROM transaction_types WHERE code = 'income'",
        request.city_id,
        request.id,
        request.master_id,
        amount,
        actor_id,
        now
    );
    telemetry.run(DbOperation::TransactionInsert, query.execute(pg)).await.map(drop)
}

/// Reverses the income of a request that is reopened; returns the amount taken back.
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
    let query = sqlx::query_scalar!(
        r#"INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, reverses_id, actor_id, at)
           SELECT t.city_id, (SELECT id FROM transaction_types WHERE code = 'reversal'), t.request_id, t.master_id,
                  -t.amount, t.id, $2, $3
             FROM transactions t JOIN transaction_types tt ON tt.id = t.type_id
            WHERE t.request_id = $1 AND tt.code = 'income'
              AND NOT EXISTS (SELECT FROM transactions r WHERE r.reverses_id = t.id)
            ORDER BY t.id DESC LIMIT 1
           RETURNING -amount AS "amount!""#,
        request_id,
        actor_id,
        now
    );
    let amount = telemetry.run(DbOperation::TransactionReverse, query.fetch_optional(pg)).await?;
    amount.ok_or(DbError::Sql(sqlx::Error::RowNotFound))
}
