//! What the business names things: cities, request types, directions, transaction types, campaigns.
//! Small, read by everybody, so they are cached whole; whoever writes them ends with [`commit`].

pub mod bodies;
pub mod model;
pub mod routes;
pub mod store;

pub use model::Dictionaries;

use axum::response::Response;
use tracing::Instrument;

use crate::{
    app::App,
    auth::Caller,
    cache::Key,
    db::{DbError, Tx},
    error::AppError,
    http::idempotency::{Answer, Once},
};

/// All dictionaries, from the cache or on a connection of their own: not to be called inside a
/// transaction, which would wait for the cache with a connection in its hand.
///
/// # Errors
/// As the database.
pub async fn cached(app: &App) -> Result<Dictionaries, DbError> {
    app.cache.get_or_load(&Key::dictionary("all"), async { store::load(&mut app.db.acquire().await?).await }).await
}

/// Does what a POST asks for, once, and ends with [`commit`].
///
/// # Errors
/// As `work`, [`Once::run`] and [`commit`].
pub async fn once(
    app: &App,
    caller: &Caller,
    once: Once,
    work: impl AsyncFnOnce(&mut Tx) -> Result<Answer, AppError>,
) -> Result<Response, AppError> {
    once.run_until(app, caller, work, |app, tx| async move { commit(&app, tx).await }).await
}

/// Commits a change of dictionaries and forgets what is cached. In a task of its own: a caller who
/// hangs up in between must not leave the old state in the cache.
///
/// # Errors
/// As the commit.
pub async fn commit(app: &App, tx: Tx) -> Result<(), AppError> {
    let app = app.clone();
    let work = async move {
        let committed = tx.commit().await;
        // Even if the commit is not confirmed: it may have happened.
        app.cache.forget(&Key::dictionary("all")).await;
        committed
    };
    Ok(tokio::spawn(work.in_current_span()).await.map_err(AppError::internal)??)
}
