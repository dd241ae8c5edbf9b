//! SQL of campaigns and their numbers, one at a time, in the caller's scope.

use crate::{
    auth::Caller,
    db::{Conn, DbError, DbOperation},
    dictionaries::model::Campaign,
};

/// Creates a campaign without numbers; returns its id.
///
/// # Errors
/// As the database; a code that is taken violates `advertising_campaigns_code_key`.
pub async fn insert(db: &mut Conn, code: &str, name: &str, city_id: i64) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "INSERT INTO advertising_campaigns (code, name, city_id) VALUES ($1, $2, $3) RETURNING id",
        code,
        name,
        city_id
    );
    telemetry.run(DbOperation::DictionaryInsert, query.fetch_one(pg)).await
}

/// A campaign of a city in which the caller may act.
///
/// # Errors
/// As the database.
pub async fn by_id(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<Campaign>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(
        Campaign,
        r#"SELECT id, code, name, city_id, active, version,
                  COALESCE((SELECT jsonb_agg(jsonb_build_object('id', n.id, 'phone', n.phone_e164) ORDER BY n.id)
                              FROM campaign_numbers n WHERE n.campaign_id = c.id), '[]') AS "numbers!: _"
             FROM advertising_campaigns c
            WHERE id = $1 AND ($2::bigint[] IS NULL OR city_id = ANY($2))"#,
        id,
        caller.city_filter() as _
    );
    telemetry.run(DbOperation::Dictionary, query.fetch_optional(pg)).await
}

/// The same, locked until the transaction ends; two statements, as in [`crate::requests::store::lock`].
///
/// # Errors
/// As the database.
pub async fn lock(db: &mut Conn, caller: &Caller, id: i64) -> Result<Option<Campaign>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "SELECT id FROM advertising_campaigns
          WHERE id = $1 AND ($2::bigint[] IS NULL OR city_id = ANY($2)) FOR NO KEY UPDATE",
        id,
        caller.city_filter() as _
    );
    match telemetry.run(DbOperation::DictionaryLock, query.fetch_optional(pg)).await? {
        Some(id) => by_id(db, caller, id).await,
        None => Ok(None),
    }
}

/// Writes what can change, and raises the version: for a change of the numbers too. The row must be
/// locked.
///
/// # Errors
/// As the database.
pub async fn save(db: &mut Conn, id: i64, name: &str, active: bool) -> Result<i32, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "UPDATE advertising_campaigns SET version = version + 1, name = $2, active = $3 WHERE id = $1 RETURNING version",
        id,
        name,
        active
    );
    telemetry.run(DbOperation::DictionaryUpdate, query.fetch_one(pg)).await
}

/// Gives a campaign a number; its id.
///
/// # Errors
/// As the database; a number that is taken violates `campaign_numbers_phone_e164_key`.
pub async fn insert_number(db: &mut Conn, campaign_id: i64, phone_e164: &str) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        "INSERT INTO campaign_numbers (campaign_id, phone_e164) VALUES ($1, $2) RETURNING id",
        campaign_id,
        phone_e164
    );
    telemetry.run(DbOperation::CampaignNumberInsert, query.fetch_one(pg)).await
}

/// Takes a number from a campaign; `false` when it has no such number. Calls keep the line they came
/// over.
///
/// # Errors
/// As the database.
pub async fn delete_number(db: &mut Conn, campaign_id: i64, number_id: i64) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("DELETE FROM campaign_numbers WHERE id = $2 AND campaign_id = $1", campaign_id, number_id);
    Ok(telemetry.run(DbOperation::CampaignNumberDelete, query.execute(pg)).await?.rows_affected() == 1)
}
