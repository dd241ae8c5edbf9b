//! What one replica does for all every few seconds: record broken promises, and take back offers that
//! no master answered.

use chrono::{DateTime, TimeDelta, Utc};

use super::store;
use crate::{
    app::App,
    db::{Conn, DbError, DbOperation},
    requests::flow::{self, Effect},
};

/// Timers marked by one statement.
const BREACHES: i64 = 500;
/// Offers taken back in one round; the others follow in the next.
const OFFERS: i64 = 200;

/// One round, on the connection that holds the job's lock.
///
/// # Errors
/// As the database.
pub async fn round(app: &App, db: &mut Conn) -> Result<(), DbError> {
    let now = app.clock.now();
    loop {
        let breaches = store::mark_breaches(db, now, BREACHES).await?;
        for breach in &breaches {
            app.metrics.sla_breaches(breach.policy).inc_by(u64::try_from(breach.count).unwrap_or(0));
        }
        if breaches.iter().map(|breach| breach.count).sum::<i64>() < BREACHES {
            break;
        }
    }
    let before = now - TimeDelta::seconds(i64::from(app.config.sla.offer_timeout_s));
    for id in store::unanswered_offers(db, before, OFFERS).await? {
        let effects = take_back(db, id, before, now).await?;
        flow::record(&app.metrics, &effects);
    }
    Ok(())
}

/// Takes one offer back, unless it was answered meanwhile. What fails leaves the transaction open: the
/// connection is then dropped, and that rolls it back.
async fn take_back(db: &mut Conn, id: i64, before: DateTime<Utc>, now: DateTime<Utc>) -> Result<Vec<Effect>, DbError> {
    let (pg, telemetry) = db.parts();
    telemetry.run(DbOperation::Begin, sqlx::query!("BEGIN").execute(pg)).await?;
    let effects = flow::take_back(db, id, before, now).await?;
    let (pg, telemetry) = db.parts();
    telemetry.run(DbOperation::Commit, sqlx::query!("COMMIT").execute(pg)).await?;
    Ok(effects)
}
