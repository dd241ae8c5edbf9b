//! An App behind its listeners: the routers with the order of their layers, the OpenAPI document, and
//! what must be ready before the first request.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use ipnet::IpNet;
use tower_http::cors::CorsLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    app::App,
    auth, calls, dictionaries,
    error::{self, AppError},
    events, files,
    http::{caching, capacity, cors, docs, guard, health, observe, rate_limit},
    phone, reports, requests, security, sla,
    telemetry::metrics::Operation,
    transactions, users,
};

impl App {
    /// Reads the dictionaries, so that the first requests find them cached and their series exist, and
    /// whatever else the first request would have to wait for.
    ///
    /// # Errors
    /// As the database.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        self.metrics.seed_operations(&operations(&openapi()));
        let known = dictionaries::cached(self).await.context("reading the dictionaries")?;
        self.metrics.seed_dictionaries(
            known.cities.iter().map(|city| city.code.as_str()),
            known.request_types.iter().map(|kind| kind.code.as_str()),
        );
        // Its tables are parsed at the first use, which takes half a second that no caller should pay.
        let _ = phone::normalise("+79130000001", &self.config.telephony.region);
        Ok(())
    }

    /// The public router.
    pub fn router(&self) -> Router {
        let (router, document) = routes().split_for_parts();
        let layers = Layers { app: self.clone(), cors: cors::policy(&self.config.http.allowed_origins) };
        router
            .merge(docs::router(&document))
            .fallback(async || AppError::from(error::NOT_FOUND))
            .method_not_allowed_fallback(async || AppError::from(error::METHOD_NOT_ALLOWED))
            .layer(DefaultBodyLimit::max(self.config.http.body_limit_bytes))
            .layer(middleware::from_fn_with_state(Arc::new(layers), enter))
            .with_state(self.clone())
    }

    /// The router of the ops listener: metrics and probes. Nothing here is observed: scrapes and
    /// probes are not the service.
    pub fn ops_router(&self) -> Router {
        let (probes, _) = health::router().split_for_parts();
        probes
            .route("/metrics", get(metrics))
            .fallback(async || AppError::from(error::NOT_FOUND))
            .method_not_allowed_fallback(async || AppError::from(error::METHOD_NOT_ALLOWED))
            .layer(middleware::from_fn_with_state(self.trusted_proxies(), guard::careful))
            .with_state(self.clone())
    }

    fn trusted_proxies(&self) -> Arc<[IpNet]> {
        self.config.http.trusted_proxies.as_slice().into()
    }
}

/// What [`enter`] needs.
#[derive(Debug)]
struct Layers {
    app: App,
    cors: CorsLayer,
}

/// What every request passes through on its way in and out. What observes is outermost, so that nothing an inner layer
/// answers is missed. One middleware of many functions: as many middlewares would each copy all that are inside of them,
/// for every request.
async fn enter(State(layers): State<Arc<Layers>>, request: Request, next: Next) -> Response {
    let Layers { app, cors } = &*layers;
    let time_limit = Duration::from_millis(app.config.http.request_timeout_ms);
    let handled = |request| caching::spare(request, |request| next.run(request));
    let caught = |request| guard::catching(request, handled);
    let timed = |request| guard::time_limit(time_limit, request, caught);
    let asked = |request| cors::preflights(cors, request, timed);
    let limited = |request| rate_limit::per_address(app, request, asked);
    let placed = |request| capacity::limit(&app.capacity, request, limited);
    let framed = |request| guard::framing(request, placed);
    let readable = |request| cors::answers(cors, request, framed);
    let secured = |request| guard::security_headers(&app.config.http.trusted_proxies, request, readable);
    observe::observe(&app.metrics, request, secured).await
}

/// All routes of the public API, with their documentation.
fn routes() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .merge(auth::routes::router())
        .merge(requests::routes::router())
        .merge(calls::routes::router())
        .merge(calls::webhooks::router())
        .merge(calls::recordings::routes::router())
        .merge(dictionaries::routes::router())
        .merge(users::routes::router())
        .merge(transactions::routes::router())
        .merge(files::routes::router())
        .merge(sla::routes::router())
        .merge(reports::routes::router())
        .merge(events::routes::router())
        .merge(security::routes::router());
    let mut routes = OpenApiRouter::with_openapi(docs::Document::openapi())
        .nest("/api/v1", api)
        .merge(health::detailed_router())
        .merge(health::router());
    docs::complete(routes.get_openapi_mut());
    routes
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().split_for_parts().1
}

/// Every operation of the document with the status of its success.
fn operations(document: &utoipa::openapi::OpenApi) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (route, item) in &document.paths.paths {
        let methods = [
            (Method::GET, &item.get),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::PUT, &item.put),
            (Method::DELETE, &item.delete),
        ];
        for (method, operation) in
            methods.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
        {
            let success = operation
                .responses
                .responses
                .keys()
                .find(|status| status.starts_with('2'))
                .and_then(|status| status.parse().ok());
            operations.push(Operation { method, route: route.clone(), success: success.unwrap_or_default() });
        }
    }
    operations
}

/// What Prometheus scrapes.
async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, AppError> {
    app.db.sample();
    let runtime = tokio::runtime::Handle::current().metrics();
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    app.metrics.tokio_workers().set(count(runtime.num_workers()));
    app.metrics.tokio_alive_tasks().set(count(runtime.num_alive_tasks()));
    app.metrics.tokio_global_queue_depth().set(count(runtime.global_queue_depth()));
    match app.config.business.hours.opened(app.clock.now()) {
        Some(opened) => app.metrics.business_opened().set(opened.timestamp()),
        None => app.metrics.forget_business_opened(),
    }
    let text = app.metrics.render().map_err(AppError::internal)?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
