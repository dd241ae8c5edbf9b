//! What the business names things: cities, request types, directions, transaction types, campaigns.
//! Small, read by everybody, so they are cached whole; whoever writes them ends with [`commit`].

pub mod bodies;
pub mod model;
pub mod routes;
pub mod store;

pub use model::Dictionaries;

use crate::{
    app::App,
    cache::{self, Domain, Key},
    db::Tx,
    error::AppError,
    http::caching::Freshness,
    telemetry::labels::CacheName,
};

/// All dictionaries, from the cache or on a connection of their own: not to be called inside a
/// transaction, which would wait for the cache with a connection in its hand.
///
/// # Errors
/// As the database.
pub async fn cached(app: &App) -> Result<Dictionaries, AppError> {
    let key = Key::common(CacheName::Dictionaries, "all");
    let load = || async { Ok(store::load(&mut app.db.acquire().await?).await?) };
    app.cache.get(&key, Freshness::Cached, load).await
}

/// Commits a change of dictionaries, after which nobody is served what was before.
///
/// # Errors
/// As the commit.
pub async fn commit(app: &App, tx: Tx) -> Result<(), AppError> {
    cache::commit(app, tx, Domain::Dictionaries).await
}
