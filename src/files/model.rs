//! What the API takes and gives for files.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire_enum;

wire_enum! {
    /// What a file is for.
    pub enum FileKind {
        /// What was paid.
        Receipt = "receipt",
        /// What was agreed.
        Contract = "contract",
        /// What was broken, or is whole again.
        Photo = "photo",
        /// What was said.
        Recording = "recording",
        /// Anything else.
        Other = "other",
    }
}

/// A file that was attached to a service request or to a transaction.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": 31, "request_id": 1042, "transaction_id": null, "kind": "photo", "name": "tap.jpg", "mime": "image/jpeg",
    "bytes": 183_412, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "uploaded_by": 7,
    "at": "2026-06-01T07:00:00Z",
}))]
pub struct FileView {
    /// Its number.
    pub id: i64,
    /// Number of the service request it belongs to.
    pub request_id: Option<i64>,
    /// Number of the transaction it belongs to.
    pub transaction_id: Option<i64>,
    /// What it is for.
    pub kind: FileKind,
    /// What it was called, cleaned; its extension is that of its type.
    pub name: String,
    /// What it is, by its content.
    pub mime: String,
    /// Its size.
    pub bytes: i64,
    /// Of its content, hexadecimal; in quotes, its ETag.
    pub sha256: String,
    /// User id.
    pub uploaded_by: i64,
    /// When it was uploaded.
    pub at: DateTime<Utc>,
}

/// A file to be attached.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "photo", "file": "(the content)"}))]
#[expect(dead_code, reason = "documents a body that is read as it comes in")]
pub struct UploadForm {
    /// What it is for.
    kind: FileKind,
    /// A picture (JPEG, PNG, WebP, HEIC), a PDF or sound (MP3, WAV, Ogg).
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// The content itself.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary, example = "(the content)")]
#[expect(dead_code, reason = "documents a body that is sent as it is read")]
pub struct Binary(Vec<u8>);
