//! Taking in a `multipart/form-data` body with a `kind` and a `file`: the file goes to the store as it
//! arrives, and is only an object if all of the body was right.

use std::time::Duration;

use axum::{
    extract::{
        DefaultBodyLimit, FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::StatusCode,
};
use bytes::BytesMut;
use futures_util::stream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    intake::{self, IntakeError, Rules},
    media::Media,
    model::FileKind,
    storage::Stored,
};
use crate::{
    app::App,
    error::{self, AppError},
    http::{extract::FieldErrors, guard::Deadline},
};

/// Where files of service requests and transactions lie in the store.
const FOLDER: &str = "attachments";
/// Longest value of a field that is no file, in bytes.
const MAX_TEXT_BYTES: usize = 64;
/// How long the rest of a refused body is read, so that its sender reads the refusal: a connection that
/// is closed with unread data in it takes the answer with it.
const DRAIN: Duration = Duration::from_secs(5);

/// An upload whose body is still to be read. Taking it as an argument gives the request the time that
/// `files.upload_timeout_s` allows, instead of that of other requests.
#[derive(Debug)]
pub struct Upload {
    multipart: Multipart,
    deadline: Instant,
    /// Longest wait for the next piece.
    idle: Duration,
    max_bytes: u64,
}

/// What was taken in.
#[derive(Debug)]
pub struct Received {
    pub kind: FileKind,
    pub name: String,
    pub media: Media,
    pub stored: Stored,
}

impl FromRequest<App> for Upload {
    type Rejection = AppError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, AppError> {
        let idle = Duration::from_millis(app.config.http.request_timeout_ms);
        let deadline = Instant::now() + Duration::from_secs(u64::from(app.config.files.upload_timeout_s));
        if let Some(limit) = request.extensions().get::<Deadline>() {
            // What follows the last byte has as long as any request.
            limit.put_off(deadline + idle);
        }
        let max_bytes = app.config.files.max_bytes;
        // The file's own size is counted below; what is more than twice that is not even drained.
        DefaultBodyLimit::max(max_bytes.saturating_mul(2).saturating_add(64 * 1024)).apply(&mut request);
        let multipart = Multipart::from_request(request, app)
            .await
            .map_err(|_| error::WRONG_MEDIA_TYPE.because("Send multipart/form-data with a boundary."))?;
        Ok(Self { multipart, deadline, idle, max_bytes: max_bytes as u64 })
    }
}

impl Upload {
    /// Reads all of it. The object is removed again unless it is [kept](Stored::keep).
    ///
    /// # Errors
    /// 400 when the body breaks off, 408 when it takes too long, 413, 415 for a type that is not taken, 422 for a bad field, 507 when
    /// the store does not take it, 503 when too many are on their way.
    pub async fn receive(mut self, app: &App) -> Result<Received, AppError> {
        let received = self.read(app).await;
        if received.is_err() {
            let rest = async { while let Ok(Some(_)) = self.multipart.next_field().await {} };
            let _ = timeout(DRAIN, rest).await;
        }
        received
    }

    async fn read(&mut self, app: &App) -> Result<Received, AppError> {
        let _place = app.capacity.admit_upload()?;
        let patience = Patience { deadline: self.deadline, idle: self.idle };
        let (mut kind, mut file) = (None, None);
        while let Some(field) = patience.wait(self.multipart.next_field()).await? {
            match field.name().unwrap_or_default() {
                "kind" if kind.is_none() => kind = Some(read_kind(field, &patience).await?),
                "file" if file.is_none() => {
                    file = Some(read_file(app, field, &patience, self.max_bytes).await?);
                }
                "kind" | "file" => return Err(AppError::invalid_field(pointer(&field), "is given more than once")),
                _ => return Err(AppError::invalid_field(pointer(&field), "is no field of this form")),
            }
        }
        let mut errors = FieldErrors::default();
        errors.check(kind.is_some(), "/kind", "is required");
        errors.check(file.is_some(), "/file", "is required");
        errors.into_result()?;
        let (Some(kind), Some((name, media, stored))) = (kind, file) else {
            return Err(error::INVALID.into());
        };
        Ok(Received { kind, name, media, stored })
    }
}

/// JSON pointer of a field of the form.
fn pointer(field: &Field<'_>) -> String {
    let name: String = field.name().unwrap_or_default().chars().take(MAX_TEXT_BYTES).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

async fn read_kind(mut field: Field<'_>, patience: &Patience) -> Result<FileKind, AppError> {
    let mut text = BytesMut::new();
    while let Some(chunk) = patience.wait(field.chunk()).await? {
        if text.len() + chunk.len() > MAX_TEXT_BYTES {
            return Err(AppError::invalid_field("/kind", "is too long"));
        }
        text.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&text).parse().map_err(|detail: String| AppError::invalid_field("/kind", detail))
}

async fn read_file(
    app: &App,
    field: Field<'_>,
    patience: &Patience,
    max_bytes: u64,
) -> Result<(String, Media, Stored), AppError> {
    let given = field.file_name().unwrap_or_default().to_owned();
    let pieces = stream::try_unfold(field, async |mut field| {
        Ok::<_, AppError>(patience.wait(field.chunk()).await?.map(|piece| (piece, field)))
    });
    let rules = Rules { folder: FOLDER, max_bytes, accepts: |_| true };
    let (media, stored) = intake::take_in(&app.storage, rules, app.clock.now(), pieces).await?;
    Ok((media.name(&given), media, stored))
}

impl From<IntakeError> for AppError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Empty => Self::invalid_field("/file", "is empty"),
            IntakeError::WrongType => {
                error::WRONG_MEDIA_TYPE.because("The file is none of JPEG, PNG, WebP, HEIC, PDF, MP3, WAV, Ogg.")
            }
            IntakeError::TooLarge => error::TOO_LARGE.because("The file is larger than files may be here."),
            IntakeError::Storage(error) => error.while_writing(),
        }
    }
}

/// How long to wait for a client.
struct Patience {
    deadline: Instant,
    idle: Duration,
}

impl Patience {
    async fn wait<T>(&self, piece: impl Future<Output = Result<T, MultipartError>>) -> Result<T, AppError> {
        let until = self.deadline.min(Instant::now() + self.idle);
        match timeout_at(until, piece).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(error::TOO_LARGE.into()),
            Ok(Err(_)) => Err(error::MALFORMED.because("The form broke off or is not well-formed.")),
            Err(_) => Err(error::BODY_TOO_SLOW.into()),
        }
    }
}
