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
    store::{self, Filter},
};
use crate::{
    app::App,
    auth::Caller,
    cache::Key,
    error::AppError,
    http::{
        caching::{Freshness, Tagged},
        cursor::{self, Cursor, Page},
        etag::etag,
    },
    telemetry::labels::CacheName,
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

/// A page of people, as `view` shows them to the caller. First pages are cached; searches and further pages are
/// seldom asked for twice, and there is no end of them.
async fn page<T: Serialize>(
    app: &App,
    caller: &Caller,
    kind: Kind,
    filter: Filter,
    view: impl Fn(Person) -> T,
) -> Result<Tagged, AppError> {
    let load = || async {
        let mut db = app.db.acquire().await?;
        let page = Page::new(store::list(&mut db, caller, kind, &filter).await?, filter.limit, position);
        let items = page.items.into_iter().map(&view).collect();
        Ok(Page { items, next_cursor: page.next_cursor })
    };
    if filter.text.is_some() || filter.after.is_some() {
        return Tagged::json(&load().await?);
    }
    let key = Key::seen_by(caller, CacheName::Users, kind.path(), &(&filter.city, filter.status, filter.limit))?;
    app.cache.read(&key, Freshness::Cached, load).await
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
