//! SQL of dictionaries.

pub mod campaigns;
pub mod entries;

use super::model::{Campaign, City, Dictionaries, Item, TransactionType};
use crate::db::{Conn, DbError, DbOperation};

/// Reads all of them.
///
/// # Errors
/// As the database.
pub async fn load(db: &mut Conn) -> Result<Dictionaries, DbError> {
    macro_rules! rows {
        ($ty:ty, $sql:literal) => {{
            let (pg, telemetry) = db.parts();
            telemetry.run(DbOperation::Dictionary, sqlx::query_as!($ty, $sql).fetch_all(pg)).await?
        }};
    }
    Ok(Dictionaries {
        cities: rows!(City, "SELECT id, code, name_ru, name_en, timezone, active, version FROM cities ORDER BY id"),
        request_types: rows!(Item, "SELECT id, code, name_ru, name_en, active, version FROM request_types ORDER BY id"),
        directions: rows!(Item, "SELECT id, code, name_ru, name_en, active, version FROM directions ORDER BY id"),
        transaction_types: rows!(
            TransactionType,
            "SELECT id, code, name_ru, name_en, sign, active, version FROM transaction_types ORDER BY id"
        ),
        campaigns: rows!(
            Campaign,
            r#"SELECT id, code, name, city_id, active, version,
                      COALESCE((SELECT jsonb_agg(jsonb_build_object('id', n.id, 'phone', n.phone_e164) ORDER BY n.id)
                                  FROM campaign_numbers n WHERE n.campaign_id = c.id), '[]') AS "numbers!: _"
                 FROM advertising_campaigns c ORDER BY id"#
        ),
    })
}

/// The id of each city of these codes, in their order.
///
/// # Errors
/// As the database.
pub async fn city_ids(db: &mut Conn, codes: &[String]) -> Result<Vec<Option<i64>>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(
        r#"SELECT c.id AS "id?" FROM unnest($1::text[]) WITH ORDINALITY AS asked (code, n)
             LEFT JOIN cities c ON c.code = asked.code ORDER BY asked.n"#,
        codes
    );
    telemetry.run(DbOperation::CityByCode, query.fetch_all(pg)).await
}
