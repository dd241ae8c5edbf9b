//! What the business names things: cities, request types, directions, transaction types, campaigns.
//! Small, read by everybody, so they are cached whole. Read-only for now.

pub mod model;
pub mod routes;
pub mod store;

pub use model::Dictionaries;

use crate::{app::App, cache::Key, db::DbError};

/// All dictionaries, from the cache or on a connection of their own: not to be called inside a
/// transaction, which would wait for the cache with a connection in its hand.
///
/// # Errors
/// As the database.
pub async fn cached(app: &App) -> Result<Dictionaries, DbError> {
    app.cache.get_or_load(&Key::dictionary("all"), async { store::load(&mut app.db.acquire().await?).await }).await
}
