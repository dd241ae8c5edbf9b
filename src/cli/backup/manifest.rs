//! What a backup says about itself. It is written last: a directory without it is no backup.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::hex;

/// Its name in the directory of the backup.
pub(super) const FILE: &str = "manifest.json";
/// The database, as pg_dump writes it.
pub(super) const DUMP: &str = "database.dump";
/// The folder of the files.
pub(super) const FILES: &str = "files";
/// Of the layout of a backup.
const FORMAT: u32 = 1;

/// Everything that a restored installation is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    /// When the backup began.
    pub created_at: DateTime<Utc>,
    /// Of the program that made it.
    pub version: String,
    /// What is in the database.
    pub content: Content,
    /// Where files lay; those of a bucket are not in the backup.
    pub files_in: String,
    /// Path in the backup, size and checksum of everything else in it.
    pub parts: BTreeMap<String, Part>,
}

/// What is in a database, countable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// The newest migration.
    pub migration: i64,
    /// The sum over the ledger.
    pub ledger: String,
    /// Rows by table.
    pub rows: BTreeMap<String, i64>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub bytes: u64,
    pub sha256: String,
}

impl Manifest {
    pub fn new(created_at: DateTime<Utc>, content: Content, files_in: String, parts: BTreeMap<String, Part>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, created_at, version, content, files_in, parts }
    }

    /// Bytes of everything in the backup.
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }

    /// The files in it, without the database.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Part)> {
        let name = |path: &str| Path::new(path).starts_with(FILES);
        self.parts.iter().filter(move |(path, _)| name(path)).map(|(path, part)| (path.as_str(), part))
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let unfinished = dir.join("manifest.json.unfinished");
        let written = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, dir.join(FILE))?;
            File::open(dir)?.sync_all()
        };
        written().with_context(|| format!("{}", dir.join(FILE).display()))
    }

    /// Reads it.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{}: is no complete backup: it has no {FILE}, which is written last", dir.display())
            }
            read => read.with_context(|| format!("{}", path.display()))?,
        };
        let manifest: Self = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(manifest.format == FORMAT, "{}: is of another format; use the release that made it", dir.display());
        for path in manifest.parts.keys() {
            let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            ensure!(inside, "{}: names a file outside the backup", dir.join(FILE).display());
        }
        ensure!(manifest.parts.contains_key(DUMP), "{}: names no {DUMP}", dir.join(FILE).display());
        Ok(manifest)
    }

    /// Checks that everything is there as it was written.
    pub fn verify(&self, dir: &Path) -> anyhow::Result<()> {
        for (name, part) in &self.parts {
            let path = dir.join(name);
            let found = read(&path, &mut io::sink()).with_context(|| format!("{}", path.display()))?;
            ensure!(
                found == *part,
                "{}: is not what was backed up ({} bytes and sha256 {}, not {} and {}); use another backup",
                path.display(),
                found.bytes,
                found.sha256,
                part.bytes,
                part.sha256
            );
        }
        Ok(())
    }
}

/// Copies a file, durably; what was copied. It is readable for its owner only.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<Part> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let part = read(from, &mut target)?;
    target.sync_all()?;
    Ok(part)
}

/// Size and checksum of a file, which is written to `sink` on the way.
pub(super) fn read(path: &Path, sink: &mut impl Write) -> io::Result<Part> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 128 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        sink.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
    Ok(Part { bytes, sha256: hex(&hash.finalize()) })
}
