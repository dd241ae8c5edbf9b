//! The export of service requests: the list with its filters, whole, as one file.

use axum::{extract::State, response::Response};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use super::csv::{self, Batches, Table};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::{Caller, caller::RequestReader},
    dictionaries,
    error::{AppError, Problem},
    http::{
        cursor::Cursor,
        extract::{FieldErrors, ValidQuery},
    },
    requests::{
        model::{ListParams, RequestView},
        query::Filter,
        store,
    },
};

/// Rows of one batch: some hundred KiB, or five MiB if every text is as long as it may be.
const BATCH: i64 = 1000;

impl Table for RequestView {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "status",
        "source",
        "type",
        "direction",
        "city",
        "campaign",
        "client_phone",
        "client_name",
        "description",
        "address",
        "callback_at",
        "meeting_at",
        "resume_at",
        "master_id",
        "created_at",
        "updated_at",
        "first_response_at",
        "assigned_at",
        "escalated_at",
        "closed_at",
        "result",
        "expenses",
        "net",
        "handover",
    ];
}

/// The filters of the list; a file has no pages.
#[derive(Debug)]
pub struct ExportParams;

const PAGING: [&str; 2] = ["cursor", "limit"];

impl IntoParams for ExportParams {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = ListParams::into_params(place);
        params.retain(|parameter| !PAGING.contains(&parameter.name.as_str()));
        params
    }
}

/// What is left to be sent.
struct Requests {
    app: App,
    caller: Caller,
    /// `None` after the last batch.
    filter: Option<Filter>,
}

impl Batches for Requests {
    type Row = RequestView;

    async fn next(&mut self) -> Result<Option<Vec<RequestView>>, AppError> {
        let Some(filter) = &mut self.filter else { return Ok(None) };
        let mut db = self.app.db.acquire().await?;
        let mut rows = store::list(&mut db, &self.caller, filter).await?;
        drop(db);
        // One more than asked for says that there is more.
        let batch = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let more = rows.len() > batch;
        rows.truncate(batch);
        match rows.last() {
            Some(last) if more => filter.after = Some(Cursor { at: last.created_at, id: last.id }),
            _ => self.filter = None,
        }
        Ok(Some(rows))
    }
}

/// Export service requests as CSV, newest first
///
/// The list with its filters as one file: UTF-8 with a byte order mark, separated by commas. A cell that a
/// spreadsheet would take for a formula begins with an apostrophe. If something goes wrong on the way the
/// connection breaks off: a file that arrived whole is whole.
#[utoipa::path(get, path = "/requests.csv", tag = "requests", operation_id = "export", params(ExportParams),
    extensions(("x-action" = json!("read_requests"))), responses(
    (status = 200, description = "The file", body = String, content_type = "text/csv",
        example = json!("\u{feff}id,status,source,type,…\r\n1042,waiting,call,first_time,…\r\n")),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 422, description = "A filter is not valid", body = Problem),
))]
pub(super) async fn export_requests(
    caller: RequestReader,
    State(app): State<App>,
    ValidQuery(params): ValidQuery<ListParams>,
) -> Result<Response, AppError> {
    let mut errors = FieldErrors::default();
    errors.check(params.cursor.is_none(), PAGING[0], "has no place in an export, which has no pages");
    errors.check(params.limit.is_none(), PAGING[1], "has no place in an export, which has no pages");
    errors.into_result()?;
    let known = dictionaries::cached(&app).await?;
    let now = app.clock.now();
    let entry = Entry::of_many(AuditAction::RequestsExported, AuditSubject::Requests)
        .with("city", params.city.as_deref())
        .with("created_from", params.created_from.map(|at| at.to_rfc3339()))
        .with("created_to", params.created_to.map(|at| at.to_rfc3339()));
    let mut filter = Filter::new(params, &app.config.telephony.region, &known)?;
    filter.limit = BATCH;
    // Nobody takes the clients' names and numbers out without a trace.
    let mut tx = app.db.begin().await?;
    audit::record(&mut tx, By::caller(&caller), entry, now).await?;
    tx.commit().await?;
    let name = format!("requests_{}", now.format("%Y-%m-%dT%H%M%SZ"));
    csv::attachment(name, Requests { caller: (*caller).clone(), app, filter: Some(filter) }).await
}
