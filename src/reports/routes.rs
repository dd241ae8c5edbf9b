//! HTTP of reports.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of reports.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
