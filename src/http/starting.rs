//! What a listener serves before there is an App. It is bound before anything slow, and whoever asks then is
//! told that this process lives and is not ready yet, instead of waiting until it is.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use ipnet::IpNet;
use tower::{ServiceExt, service_fn};

use super::{guard, health};
use crate::error::{self, AppError};

/// The place of a router that is not there yet; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stage(Arc<OnceLock<Router>>);

impl Stage {
    /// From here on `router` answers. Once.
    pub fn open(&self, router: Router) {
        let _ = self.0.set(router);
    }

    /// Serves what was opened; until then liveness, and 503 for everything else.
    pub fn router(&self, trusted_proxies: Arc<[IpNet]>) -> Router {
        let (stage, waiting) = (self.clone(), waiting(trusted_proxies));
        Router::new().fallback_service(service_fn(move |request: Request| {
            stage.0.get().unwrap_or(&waiting).clone().oneshot(request)
        }))
    }
}

fn waiting(trusted_proxies: Arc<[IpNet]>) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/health/ready", get(async || health::says("starting")))
        .fallback(not_yet)
        .method_not_allowed_fallback(not_yet)
        .layer(middleware::from_fn_with_state(trusted_proxies, guard::careful))
}

async fn not_yet() -> Response {
    AppError::from(error::STARTING).retry_after(1).into_response()
}
