//! What the business asks after the fact: reports for a range of days, the export of service requests,
//! and the business metrics that one elected replica computes for all.

pub mod business;
pub mod collector;
pub mod csv;
pub mod export;
pub mod figures;
pub mod model;
pub mod performance;
pub mod range;
pub mod routes;
pub mod store;

use tokio::{sync::SemaphorePermit, time::timeout};

use crate::{
    app::App,
    db::Tx,
    error::{self, AppError},
};

/// A report's turn: one of few, and a transaction for its statement. Both are given back together.
#[derive(Debug)]
pub struct Turn<'a> {
    /// For [`store`].
    pub db: Tx,
    _permit: SemaphorePermit<'a>,
}

/// Waits for a turn, for as long as one waits for a connection.
///
/// # Errors
/// 503 when other reports take too long; as the database.
pub async fn turn(app: &App) -> Result<Turn<'_>, AppError> {
    let busy = || error::OVERLOADED.because("Other reports are being made; try again.").retry_after(1);
    let permit = timeout(app.config.database.acquire_timeout(), app.report_turns.acquire()).await;
    let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
    Ok(Turn { db: app.db.begin_long().await?, _permit: permit })
}
