//! HTTP of transactions.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of transactions.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
