//! From a stream of pieces to an object: known by its first bytes before the first of them is stored,
//! measured and hashed on the way.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};

use super::{
    media::{HEAD_BYTES, Media},
    storage::{Storage, StorageError, Stored, Writer},
};

/// Why a content is not taken in, other than that it does not arrive.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// Its type is not one of those.
    #[error("its type is not accepted")]
    WrongType,
    /// There is too much of it.
    #[error("it is too large")]
    TooLarge,
    /// It cannot be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is taken in, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// In the store.
    pub folder: &'static str,
    pub max_bytes: u64,
    pub accepts: fn(Media) -> bool,
}

/// Takes all pieces in.
///
/// # Errors
/// As the pieces, or an [`IntakeError`]; nothing is stored then.
pub async fn take_in<E: From<IntakeError>>(
    storage: &Storage,
    rules: Rules,
    now: DateTime<Utc>,
    pieces: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(Media, Stored), E> {
    let mut pieces = pin!(pieces);
    let mut head = BytesMut::new();
    while head.len() < HEAD_BYTES
        && let Some(piece) = pieces.try_next().await?
    {
        head.extend_from_slice(&piece);
    }
    if head.is_empty() {
        return Err(IntakeError::Empty.into());
    }
    let media = Media::of(&head).filter(|media| (rules.accepts)(*media)).ok_or(IntakeError::WrongType)?;
    let mut writer = storage.create(rules.folder, now).await.map_err(IntakeError::from)?;
    write(&mut writer, head.freeze(), rules.max_bytes).await?;
    while let Some(piece) = pieces.try_next().await? {
        write(&mut writer, piece, rules.max_bytes).await?;
    }
    Ok((media, writer.finish().await.map_err(IntakeError::from)?))
}

async fn write(writer: &mut Writer, piece: Bytes, max_bytes: u64) -> Result<(), IntakeError> {
    if writer.bytes() + piece.len() as u64 > max_bytes {
        return Err(IntakeError::TooLarge);
    }
    Ok(writer.write(piece).await?)
}
