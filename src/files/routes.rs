//! `/api/v1/files`, and the files of service requests and transactions: HTTP only.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde_json::json;
use tracing::Instrument;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{Binary, FileView, UploadForm},
    serve::{self, Content},
    store::{self, Owner},
    upload::{Received, Upload},
};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::{
        Caller,
        caller::{Commenter, FileDeleter, FileReader, TransactionManager, TransactionReader},
        policy::{self, Action},
    },
    db::{Conn, DbError, Tx},
    error::{self, AppError, Problem},
    http::{
        cursor::{Cursor, Page, PageParams},
        etag::IfMatch,
        extract::{Id, ValidQuery},
        idempotency::{Answer, Once},
    },
    requests::{self, flow, model::EventKind},
    transactions,
};

/// The endpoints of files.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(of_request, attach_to_request))
        .routes(routes!(of_transaction, attach_to_transaction))
        .routes(routes!(download, remove))
}

/// Attach a file to a service request
#[utoipa::path(post, path = "/requests/{id}/files", tag = "files", params(("id" = i64, Path)),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    extensions(("x-action" = json!("comment"))), responses(
    (status = 201, description = "Attached", body = FileView),
    (status = 400, description = "The body breaks off", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It has as many files as it may have", body = Problem),
    (status = 413, description = "The file is too large", body = Problem),
    (status = 415, description = "No form, or a file of a type that is not taken", body = Problem),
    (status = 422, description = "A field is missing or not valid", body = Problem),
    (status = 507, description = "The file cannot be stored now", body = Problem),
))]
async fn attach_to_request(
    caller: Commenter,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    upload: Upload,
) -> Result<Response, AppError> {
    let owner = Owner::Request(id);
    let mut db = app.db.acquire().await?;
    if !once.is_answered(&mut db, &caller).await? {
        requests::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        check_room(&app, &mut db, owner).await?;
    }
    // A client's pace must not hold a connection.
    drop(db);
    let (received, caller) = receive(&app, &caller, Action::Comment, &once, upload).await?;
    let attach = async |tx: &mut Tx| {
        requests::store::lock(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        Ok(attach(&app, &caller, tx, owner, received).await?.about(id))
    };
    once.run(&app, &caller, attach).await
}

/// Attach a file to a transaction
#[utoipa::path(post, path = "/transactions/{id}/files", tag = "files", params(("id" = i64, Path)),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    extensions(("x-action" = json!("manage_transactions"))), responses(
    (status = 201, description = "Attached", body = FileView),
    (status = 400, description = "The body breaks off", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 409, description = "It has as many files as it may have", body = Problem),
    (status = 413, description = "The file is too large", body = Problem),
    (status = 415, description = "No form, or a file of a type that is not taken", body = Problem),
    (status = 422, description = "A field is missing or not valid", body = Problem),
    (status = 507, description = "The file cannot be stored now", body = Problem),
))]
async fn attach_to_transaction(
    caller: TransactionManager,
    once: Once,
    State(app): State<App>,
    Id(id): Id,
    upload: Upload,
) -> Result<Response, AppError> {
    let owner = Owner::Transaction(id);
    let mut db = app.db.acquire().await?;
    if !once.is_answered(&mut db, &caller).await? {
        transactions::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        check_room(&app, &mut db, owner).await?;
    }
    drop(db);
    let (received, caller) = receive(&app, &caller, Action::ManageTransactions, &once, upload).await?;
    let attach = async |tx: &mut Tx| {
        transactions::store::by_id(tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
        if !store::lock_transaction(tx, id).await? {
            return Err(error::NOT_FOUND.into());
        }
        attach(&app, &caller, tx, owner, received).await
    };
    once.run(&app, &caller, attach).await
}

/// Reads an upload, which may take minutes, and who the caller is afterwards.
async fn receive(
    app: &App,
    caller: &Caller,
    action: Action,
    once: &Once,
    upload: Upload,
) -> Result<(Received, Caller), AppError> {
    let received = upload.receive(app).await?;
    let Received { kind, name, stored, .. } = &received;
    once.note_body(&[kind.as_str().as_bytes(), name.as_bytes(), stored.sha256.as_bytes()]);
    let caller = caller.again(&mut app.db.acquire().await?, action, app.clock.now()).await?;
    Ok((received, caller))
}

async fn check_room(app: &App, db: &mut Conn, owner: Owner) -> Result<(), AppError> {
    let most = i64::from(app.config.files.max_per_owner);
    if store::count(db, owner).await? >= most {
        return Err(error::CONFLICT.because(format!("It has {most} files, and may have no more.")));
    }
    Ok(())
}

/// Writes the row of what was received. The owner must be locked.
async fn attach(
    app: &App,
    caller: &Caller,
    tx: &mut Tx,
    owner: Owner,
    mut received: Received,
) -> Result<Answer, AppError> {
    let now = app.clock.now();
    check_room(app, tx, owner).await?;
    let view = store::insert(tx, owner, &received, caller.principal.user_id, now).await?;
    note(tx, caller, &view, EventKind::FileAttached, json!([null, view.id]), now).await?;
    received.stored.keep();
    let (location, etag) = (format!("/api/v1/files/{}", view.id), serve::etag(&view.sha256));
    Ok(Answer::of((StatusCode::CREATED, [(header::LOCATION, location), (header::ETAG, etag)], Json(view))))
}

/// Tells of a file in the history of its service request; the ledger has none.
async fn note(
    tx: &mut Tx,
    caller: &Caller,
    file: &FileView,
    kind: EventKind,
    change: serde_json::Value,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(), AppError> {
    match file.request_id {
        Some(id) => flow::append(tx, caller, id, kind, now, json!({ "file_id": change })).await,
        None => Ok(()),
    }
}

/// List the files of a service request, oldest first
#[utoipa::path(get, path = "/requests/{id}/files", tag = "files", params(("id" = i64, Path), PageParams),
    extensions(("x-action" = json!("read_files"))), responses(
    (status = 200, description = "A page", body = Page<FileView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn of_request(
    caller: FileReader,
    State(app): State<App>,
    Id(id): Id,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<FileView>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire().await?;
    requests::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let rows = store::list(&mut db, Owner::Request(id), after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}

/// List the files of a transaction, oldest first
#[utoipa::path(get, path = "/transactions/{id}/files", tag = "files", params(("id" = i64, Path), PageParams),
    extensions(("x-action" = json!("read_transactions"))), responses(
    (status = 200, description = "A page", body = Page<FileView>),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 422, description = "A parameter is not valid", body = Problem),
))]
async fn of_transaction(
    caller: TransactionReader,
    State(app): State<App>,
    Id(id): Id,
    ValidQuery(params): ValidQuery<PageParams>,
) -> Result<Json<Page<FileView>>, AppError> {
    let (after, limit) = params.parse()?;
    let mut db = app.db.acquire().await?;
    transactions::store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let rows = store::list(&mut db, Owner::Transaction(id), after, limit).await?;
    Ok(Json(Page::new(rows, limit, |row| Cursor { at: row.at, id: row.id })))
}

/// Download a file
#[utoipa::path(get, path = "/files/{id}", tag = "files", params(("id" = i64, Path),
    ("Range" = Option<String>, Header, description = "One range of bytes", example = "bytes=0-1023"),
    ("If-Range" = Option<String>, Header, description = "The ETag that the range is of")),
    extensions(("x-action" = json!("read_files"))), responses(
    (status = 200, description = "The file", body = Binary, content_type = "*/*", headers(("ETag"))),
    (status = 206, description = "The part that was asked for", body = Binary, content_type = "*/*"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 416, description = "The file has no such part", body = Problem),
))]
async fn download(
    caller: FileReader,
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, AppError> {
    let mut db = app.db.acquire().await?;
    let found = store::by_id(&mut db, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    drop(db);
    let FileView { name, mime, bytes, sha256, .. } = found.view;
    serve::respond(&app.storage, &headers, &Content { object: found.object, name, mime, bytes, sha256 }).await
}

/// Remove a file
#[utoipa::path(delete, path = "/files/{id}", tag = "files",
    params(("id" = i64, Path), ("If-Match" = String, Header, description = "The file's ETag: its SHA-256 in quotes")),
    extensions(("x-action" = json!("delete_files"))), responses(
    (status = 204, description = "Removed"),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 403, description = "Not for this role", body = Problem),
    (status = 404, description = "Not there, or not yours to see", body = Problem),
    (status = 412, description = "It is another file", body = Problem),
    (status = 428, description = "If-Match is missing", body = Problem),
))]
async fn remove(
    caller: FileDeleter,
    State(app): State<App>,
    Id(id): Id,
    if_match: IfMatch,
) -> Result<StatusCode, AppError> {
    let if_match = if_match.required()?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let found = store::by_id(&mut tx, &caller, id).await?.ok_or(error::NOT_FOUND)?;
    let role = caller.principal.role;
    if found.view.transaction_id.is_some() && policy::scope(role, Action::ManageTransactions).is_none() {
        return Err(error::FORBIDDEN.because("Your role reads transactions and does not change them."));
    }
    if_match.check_tag(&serve::etag(&found.view.sha256))?;
    if !store::delete(&mut tx, id, caller.principal.user_id, now).await? {
        return Err(error::NOT_FOUND.into());
    }
    note(&mut tx, &caller, &found.view, EventKind::FileRemoved, json!([id, null]), now).await?;
    let entry = Entry::new(AuditAction::FileDeleted, AuditSubject::Files, id)
        .with("request_id", found.view.request_id)
        .with("transaction_id", found.view.transaction_id)
        .with("sha256", found.view.sha256);
    audit::record(&mut tx, By::caller(&caller), entry, now).await?;
    // In a task of its own: a caller who hangs up in between must not leave the object behind.
    let work = async move {
        tx.commit().await?;
        // After the commit: a row without its object is worse than an object without its row.
        app.storage.delete(&found.object).await;
        Ok::<_, DbError>(())
    };
    tokio::spawn(work.in_current_span()).await.map_err(AppError::internal)??;
    Ok(StatusCode::NO_CONTENT)
}
