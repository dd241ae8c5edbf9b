//! `/api/v1/reports` and `/api/v1/metrics`: HTTP only.

use axum::{Json, extract::State, response::Response};
use chrono::{Days, NaiveDate};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    business::{self, BusinessMetrics},
    collector, csv,
    csv::{Batches, Once, Table},
    export,
    model::{CallCentreRow, CampaignRow, CityRow, MasterRow, Report},
    performance::{self, PerformanceMetrics},
    range::{Range, RangeParams},
    store, turn,
};
use crate::{
    app::App,
    auth::{
        Caller,
        caller::{BusinessObserver, CallCentreReporter, MoneyReporter},
    },
    cache::Key,
    calls::providers::Provider,
    error::{self, AppError, Problem},
    http::{
        caching::{Freshness, Tagged},
        extract::ValidQuery,
    },
    telemetry::labels::{CacheName, WebhookOutcome},
};

/// The endpoints of reports, of the export and of the business metrics.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(call_centre))
        .routes(routes!(call_centre_csv))
        .routes(routes!(cities))
        .routes(routes!(cities_csv))
        .routes(routes!(masters))
        .routes(routes!(masters_csv))
        .routes(routes!(campaigns))
        .routes(routes!(campaigns_csv))
        .routes(routes!(export::export_requests))
        .routes(routes!(business))
        .routes(routes!(performance))
}

/// A report as the caller sees it, from the cache or made by `rows`.
async fn report<T: Serialize, F: Future<Output = Result<Vec<T>, AppError>>>(
    app: &App,
    caller: &Caller,
    freshness: Freshness,
    name: &str,
    range: &Range,
    rows: impl Fn() -> F,
) -> Result<Tagged, AppError> {
    // The last row of each statement is its totals, so there always is one.
    let without_totals = || AppError::internal("a report without totals");
    let load = || async { Report::new(range, rows().await?).ok_or_else(without_totals) };
    app.cache.read(&Key::seen_by(caller, CacheName::Reports, name, range)?, freshness, load).await
}

/// The same without its totals: who adds a column up must not count everything twice.
async fn file<T: Table>(report: &str, range: &Range, mut rows: Vec<T>) -> Result<Response, AppError> {
    rows.pop();
    csv::attachment(file_name(report, range), Once(Some(rows))).await
}

fn file_name(report: &str, range: &Range) -> String {
    let city = range.city.as_deref().map(|city| format!("{}_", csv::plain(city))).unwrap_or_default();
    format!("{report}_{city}{}_{}", range.from, range.to)
}

/// Calls by city and day
///
/// A line for each day on which there was an incoming call; calls that belong to no city are in no report.
#[utoipa::path(get, path = "/reports/call-centre", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("call_centre_report"))), responses(
    (status = 200, description = "The report", body = Report<CallCentreRow>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn call_centre(
    caller: CallCentreReporter,
    State(app): State<App>,
    freshness: Freshness,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Tagged, AppError> {
    let range = params.range()?;
    let rows = || async { Ok(store::call_centre(&mut turn(&app).await?.db, &caller, &range).await?) };
    report(&app, &caller, freshness, "call_centre", &range, rows).await
}

/// Calls by city and day, as CSV
#[utoipa::path(get, path = "/reports/call-centre.csv", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("call_centre_report"))), responses(
    (status = 200, description = "The file, without totals", body = String, content_type = "text/csv",
        example = json!("\u{feff}city,day,incoming,…\r\nnovosibirsk,2026-10-01,42,…\r\n")),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn call_centre_csv(
    caller: CallCentreReporter,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Response, AppError> {
    let range = params.range()?;
    let name = file_name("call-centre", &range);
    let next = Some(range.from);
    csv::attachment(name, CallCentreDays { app, caller: (*caller).clone(), range, next }).await
}

/// A month at a time: a line a day and city adds up.
struct CallCentreDays {
    app: App,
    caller: Caller,
    range: Range,
    /// `None` after the last batch.
    next: Option<NaiveDate>,
}

impl Batches for CallCentreDays {
    type Row = CallCentreRow;

    async fn next(&mut self) -> Result<Option<Vec<CallCentreRow>>, AppError> {
        let Some(from) = self.next.filter(|from| *from <= self.range.to) else { return Ok(None) };
        let after = from.checked_add_days(Days::new(31));
        let last = after.and_then(|after| after.pred_opt()).unwrap_or(self.range.to).min(self.range.to);
        let days = Range { from, to: last, city: self.range.city.clone() };
        let mut rows = store::call_centre(&mut turn(&self.app).await?.db, &self.caller, &days).await?;
        rows.pop();
        self.next = after;
        Ok(Some(rows))
    }
}

/// Service requests and money by city
#[utoipa::path(get, path = "/reports/cities", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The report; a master sees their own share of it", body = Report<CityRow>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn cities(
    caller: MoneyReporter,
    State(app): State<App>,
    freshness: Freshness,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Tagged, AppError> {
    let range = params.range()?;
    let rows = || async { Ok(store::cities(&mut turn(&app).await?.db, &caller, &range).await?) };
    report(&app, &caller, freshness, "cities", &range, rows).await
}

/// Service requests and money by city, as CSV
#[utoipa::path(get, path = "/reports/cities.csv", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The file, without totals", body = String, content_type = "text/csv",
        example = json!("\u{feff}city,created,open,…\r\nnovosibirsk,120,14,…\r\n")),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn cities_csv(
    caller: MoneyReporter,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Response, AppError> {
    let range = params.range()?;
    let rows = store::cities(&mut turn(&app).await?.db, &caller, &range).await?;
    file("cities", &range, rows).await
}

/// The work of masters
#[utoipa::path(get, path = "/reports/masters", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The report; a master sees themselves", body = Report<MasterRow>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn masters(
    caller: MoneyReporter,
    State(app): State<App>,
    freshness: Freshness,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Tagged, AppError> {
    let range = params.range()?;
    let rows = || async { Ok(store::masters(&mut turn(&app).await?.db, &caller, &range).await?) };
    report(&app, &caller, freshness, "masters", &range, rows).await
}

/// The work of masters, as CSV
#[utoipa::path(get, path = "/reports/masters.csv", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The file, without totals", body = String, content_type = "text/csv",
        example = json!("\u{feff}master_id,name,assigned,…\r\n12,Ivan Petrov,30,…\r\n")),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn masters_csv(
    caller: MoneyReporter,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Response, AppError> {
    let range = params.range()?;
    let rows = store::masters(&mut turn(&app).await?.db, &caller, &range).await?;
    file("masters", &range, rows).await
}

/// What advertising campaigns brought
#[utoipa::path(get, path = "/reports/campaigns", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The report; a master sees their own share of it", body = Report<CampaignRow>, headers(("ETag"))),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn campaigns(
    caller: MoneyReporter,
    State(app): State<App>,
    freshness: Freshness,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Tagged, AppError> {
    let range = params.range()?;
    let rows = || async { Ok(store::campaigns(&mut turn(&app).await?.db, &caller, &range).await?) };
    report(&app, &caller, freshness, "campaigns", &range, rows).await
}

/// What advertising campaigns brought, as CSV
#[utoipa::path(get, path = "/reports/campaigns.csv", tag = "reports", params(RangeParams),
    extensions(("x-action" = json!("money_reports"))), responses(
    (status = 200, description = "The file, without totals", body = String, content_type = "text/csv",
        example = json!("\u{feff}city,campaign,calls,…\r\nnovosibirsk,nsk_avito,80,…\r\n")),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 422, description = "The range is not valid", body = Problem),
))]
async fn campaigns_csv(
    caller: MoneyReporter,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<RangeParams>,
) -> Result<Response, AppError> {
    let range = params.range()?;
    let rows = store::campaigns(&mut turn(&app).await?.db, &caller, &range).await?;
    file("campaigns", &range, rows).await
}

/// The business metrics
///
/// As one replica computed them for all, a while ago: `age_s` says how long.
#[utoipa::path(get, path = "/metrics/business", tag = "metrics",
    extensions(("x-action" = json!("business_metrics"))), responses(
    (status = 200, description = "The figures of one's cities", body = BusinessMetrics),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 503, description = "Not computed yet, or no database", body = Problem),
))]
async fn business(
    caller: BusinessObserver,
    State(app): State<App>,
    freshness: Freshness,
) -> Result<Json<BusinessMetrics>, AppError> {
    let none = || error::OVERLOADED.because("They are not computed yet.").retry_after(1);
    let load = || async { collector::store::latest(&mut app.db.acquire().await?).await?.ok_or_else(none) };
    // Of all cities: what the caller sees of them is worked out for each request, and so is their age.
    let stored = app.cache.get(&Key::common(CacheName::Reports, "business"), freshness, load).await?;
    let rejected = |provider: &Provider| app.metrics.webhook_events(*provider, WebhookOutcome::Rejected).get();
    let rejected_here = Provider::ALL.iter().map(rejected).sum();
    Ok(Json(business::view(&stored, &caller, app.clock.now(), rejected_here)))
}

/// How fast this replica answers
///
/// Since it was started, and of this replica alone: ask Prometheus for the rest.
#[utoipa::path(get, path = "/metrics/performance", tag = "metrics",
    extensions(("x-action" = json!("business_metrics"))), responses(
    (status = 200, description = "The figures", body = PerformanceMetrics),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
))]
async fn performance(_: BusinessObserver, State(app): State<App>) -> Json<PerformanceMetrics> {
    app.db.sample();
    Json(performance::read(&app.metrics))
}
