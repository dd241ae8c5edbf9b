//! HTTP of files.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of files.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
