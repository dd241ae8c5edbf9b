//! What the business names things: cities, request types, directions, transaction types, campaigns.
//! Small, read by everybody, so they are cached whole; whoever writes them ends with [`commit`].

pub mod bodies;
pub mod model;
pub mod routes;
pub mod store;

pub use model::Dictionaries;

use tracing::Instrument;

use crate::{
    app::App,
    cache::Key,
    db::{DbError, Tx},
    error::AppError,
};

/// All dictionaries, from the cache or on a connection of their own: not to be called inside a
/// transaction, which would wait for the cache with a connection in its hand.
///
/// # Errors
/// As the database.
pub async fn cached(app: &App) -> Result<Dictionaries, DbError> {
    app.cache.get_or_load(&Key::dictionary("all"), async { store::load(&mut app.db.acquire().await?).await }).await
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
