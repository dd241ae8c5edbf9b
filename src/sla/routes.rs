//! HTTP of SLA policies.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The endpoints of SLA policies.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
