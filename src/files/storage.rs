//! Where contents lie: a folder, or a bucket. An object is either whole or not there: what is not
//! finished, or finished and then not [kept](Stored::keep), is removed, also when the client hangs up.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use anyhow::Context;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tracing::Instrument;

use crate::{
    auth::tokens::random_id,
    config::Config,
    error::{self, AppError, describe},
};

/// Parts of one object that may be on their way to the store at once.
const PARTS_UNDERWAY: usize = 2;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// As the store says.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// The folder cannot be made.
    #[error("the folder for files cannot be created")]
    Folder(#[from] std::io::Error),
    /// What was to finish it died.
    #[error("storing an object was not finished")]
    Died(#[from] tokio::task::JoinError),
}

impl StorageError {
    /// What a client whose upload it concerns is told.
    #[must_use]
    pub fn while_writing(self) -> AppError {
        AppError::from(error::INSUFFICIENT_STORAGE).caused_by(self)
    }

    /// What a client who wants to read is told. That an object is missing whose row is there is our fault.
    #[must_use]
    pub fn while_reading(self) -> AppError {
        match self {
            Self::Store(object_store::Error::NotFound { .. }) => AppError::internal(self),
            _ => AppError::from(error::STORAGE_UNAVAILABLE).caused_by(self).retry_after(1),
        }
    }
}

/// The object store of one App; cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Place>);

#[derive(Debug)]
enum Place {
    /// Opened when first used: a server that never stores anything leaves no folder.
    Folder {
        dir: PathBuf,
        opened: OnceLock<Arc<dyn ObjectStore>>,
    },
    Bucket(Arc<dyn ObjectStore>),
}

impl Storage {
    /// The store that the settings name. A bucket is not asked whether it is there.
    ///
    /// # Errors
    /// When the setting cannot be used.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        if config.files.store.is_empty() {
            let dir = config.data_dir()?.join("files");
            return Ok(Self(Arc::new(Place::Folder { dir, opened: OnceLock::new() })));
        }
        let setting = || format!("SWITCHBOARD_FILES_STORE: {:?}", config.files.store);
        let url = url::Url::parse(&config.files.store).with_context(setting)?;
        let bucket = AmazonS3Builder::from_env().with_url(url.as_str()).build().with_context(setting)?;
        let prefix = Path::from_url_path(url.path()).with_context(setting)?;
        Ok(Self(Arc::new(Place::Bucket(Arc::new(PrefixStore::new(bucket, prefix))))))
    }

    fn open(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match &*self.0 {
            Place::Bucket(store) => Ok(store.clone()),
            Place::Folder { dir, opened } => {
                if let Some(store) = opened.get() {
                    return Ok(store.clone());
                }
                if let Some(parent) = dir.parent() {
                    fs::create_dir_all(parent)?;
                }
                // Contracts and voices: nobody else on this machine may read them.
                fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                // Synced, because the row that follows is too.
                let store = LocalFileSystem::new_with_prefix(dir)?.with_fsync(true);
                Ok(opened.get_or_init(|| Arc::new(store)).clone())
            }
        }
    }

    /// Begins an object below `folder`, under a name of its own.
    ///
    /// # Errors
    /// As the store.
    pub async fn create(&self, folder: &str, now: DateTime<Utc>) -> Result<Writer, StorageError> {
        let object = format!("{folder}/{}/{}", now.format("%Y/%m"), random_id());
        let upload = self.open()?.put_multipart(&Path::from(object.as_str())).await?;
        let upload = Some(WriteMultipart::new(upload));
        Ok(Writer { storage: self.clone(), object, upload, hash: Sha256::new(), bytes: 0 })
    }

    /// Reads an object, or a part of it.
    ///
    /// # Errors
    /// As the store.
    pub async fn read(
        &self,
        object: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, StorageError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        Ok(self.open()?.get_opts(&Path::from(object), options).await?.into_stream())
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove(&self, object: &str) -> Result<(), StorageError> {
        match self.open()?.delete(&Path::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object whose row is gone. One that stays is only in the way, so a failure is logged.
    pub async fn delete(&self, object: &str) {
        if let Err(error) = self.remove(object).await {
            tracing::warn!(object, error = describe(&error), "an object that nobody needs could not be removed");
        }
    }
}

/// An object being written. Dropped before [`Writer::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    storage: Storage,
    object: String,
    upload: Option<WriteMultipart>,
    hash: Sha256,
    bytes: u64,
}

impl Writer {
    /// Appends.
    ///
    /// # Errors
    /// As the store, about this or an earlier part.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        self.hash.update(&chunk);
        self.bytes += chunk.len() as u64;
        if let Some(upload) = &mut self.upload {
            upload.wait_for_capacity(PARTS_UNDERWAY).await?;
            upload.put(chunk);
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it an object. In a task of its own: a store that is told to finish does so, whether or not
    /// somebody still waits for it, and then the object must be removed.
    ///
    /// # Errors
    /// As the store; then it is none.
    pub async fn finish(self) -> Result<Stored, StorageError> {
        tokio::spawn(self.finish_it().in_current_span()).await?
    }

    async fn finish_it(mut self) -> Result<Stored, StorageError> {
        if let Some(upload) = self.upload.take() {
            upload.finish().await?;
        }
        let sha256 = self.hash.finalize_reset().iter().fold(String::with_capacity(64), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
        let bytes = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        let object = std::mem::take(&mut self.object);
        Ok(Stored { storage: self.storage.clone(), object, sha256, bytes, kept: false })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(error = describe(&error), "what was left of a broken upload could not be removed");
                }
            });
        }
    }
}

/// An object that no row names yet. Dropped before [`Stored::keep`], it is removed.
#[derive(Debug)]
pub struct Stored {
    storage: Storage,
    /// Its name in the store.
    pub object: String,
    /// Lower-case hexadecimal digits.
    pub sha256: String,
    pub bytes: i64,
    kept: bool,
}

impl Stored {
    /// Leaves it there. To be called before the commit: if that fails without an answer there may be an
    /// object without a row, which harms nobody, and not a row without its object.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.kept, Handle::try_current()) {
            let (storage, object) = (self.storage.clone(), std::mem::take(&mut self.object));
            runtime.spawn(async move { storage.delete(&object).await });
        }
    }
}
