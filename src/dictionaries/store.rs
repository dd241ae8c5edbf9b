//! SQL of dictionaries.

use super::model::{Campaign, City, Dictionaries, Item};
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
        cities: rows!(City, "SELECT id, code, name_ru, name_en, timezone, active FROM cities ORDER BY id"),
        request_types: rows!(Item, "SELECT id, code, name_ru, name_en FROM request_types ORDER BY id"),
        directions: rows!(Item, "SELECT id, code, name_ru, name_en FROM directions ORDER BY id"),
        transaction_types: rows!(Item, "SELECT id, code, name_ru, name_en FROM transaction_types ORDER BY id"),
        campaigns: rows!(
            Campaign,
            r#"SELECT id, code, name, city_id, active,
                      ARRAY(SELECT phone_e164 FROM campaign_numbers n WHERE n.campaign_id = c.id ORDER BY n.id) AS "numbers!"
                 FROM advertising_campaigns c ORDER BY id"#
        ),
    })
}
