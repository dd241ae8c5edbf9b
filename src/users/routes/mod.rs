//! `/api/v1/users`: HTTP only.

mod administrators;
mod employees;
mod masters;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

use super::{
    model::{Kind, ListParams, Person},
    store::Filter,
};
use crate::{
    app::App,
    error::AppError,
    http::{
        cursor::{self, Cursor},
        etag::etag,
    },
};

/// The endpoints of users.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(masters::router()).merge(employees::router()).merge(administrators::router())
}

fn filter(params: ListParams, search_logins: bool) -> Result<Filter, AppError> {
    Ok(Filter {
        city: params.city,
        status: params.status,
        text: params.text,
        search_logins,
        after: params.cursor.as_deref().map(Cursor::decode).transpose()?,
        limit: cursor::limit(params.limit)?,
    })
}

fn position(person: &Person) -> Cursor {
    Cursor { at: person.created_at, id: person.id }
}

/// Somebody with their ETag.
fn tagged(version: i32, view: impl Serialize) -> Response {
    ([(header::ETAG, etag(version))], Json(view)).into_response()
}

/// Somebody who was just created, with their ETag and where they are now.
fn created(kind: Kind, id: i64, version: i32, view: impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, tagged(version, view)).into_response();
    if let Ok(location) = format!("{}/{id}", kind.path()).try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
