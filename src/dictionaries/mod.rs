//! What the business names things: cities, request types, directions, transaction types, campaigns.
//! Small, read by everybody, so they are cached whole; whoever writes them ends with [`commit`].

pub mod bodies;
pub mod model;
pub mod routes;
pub mod store;

pub use model::Dictionaries;

use std::sync::Arc;

use axum::response::Response;

use crate::{
    app::App,
    auth::Caller,
    cache::{self, Domain, Key},
    db::Tx,
    error::AppError,
    http::{
        caching::Freshness,
        idempotency::{Answer, Once},
    },
    telemetry::labels::CacheName,
};

/// All dictionaries, from the cache or on a connection of their own: not to be called inside a
/// transaction, which would wait for the cache with a connection in its hand.
///
/// # Errors
/// As the database.
pub async fn cached(app: &App) -> Result<Arc<Dictionaries>, AppError> {
    let key = Key::common(CacheName::Dictionaries, "all");
    let load = || async { Ok(store::load(&mut app.db.acquire().await?).await?) };
    app.cache.get(&key, Freshness::Cached, load).await
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

/// Commits a change of dictionaries, after which nobody is served what was before.
///
/// # Errors
/// As the commit.
pub async fn commit(app: &App, tx: Tx) -> Result<(), AppError> {
    cache::commit(app, tx, Domain::Dictionaries).await
}
