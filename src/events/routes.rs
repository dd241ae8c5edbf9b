//! HTTP of events.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of events.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
