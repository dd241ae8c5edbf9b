//! HTTP of users.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of users.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
