//! `switchboard backup` and `switchboard restore`: the database by pg_dump and pg_restore, the folder
//! of files beside it, and a manifest that says what belongs to it. docs/runbooks/restore.md is how
//! a person uses them.

mod manifest;
mod postgres;
mod restore;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use sqlx::{Connection, Executor, PgConnection};

pub use restore::{RestoreArguments, run as restore};

use self::{
    manifest::{Content, DUMP, FILES, Manifest, Part},
    postgres::Programs,
};
use super::{database, demo::Credentials, progress};
use crate::{clock::Clock, config::Config};

/// How backups in the default folder are called: sorting by name sorts by time.
const NAME: &str = "%Y%m%dT%H%M%SZ";

/// Write the database and the files into a directory
///
/// Works beside a running server. The password of DATABASE_URL is passed on by the environment; with
/// none in it, PGPASSFILE, PGPASSWORD or ~/.pgpass is asked. Files in a bucket (files.store = s3://…)
/// are not copied: turn on the bucket's own versioning.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// A new or empty directory; without it, data.dir/backups/ and the time
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// In data.dir/backups, remove all but the newest so many; 0 keeps all
    #[arg(long, default_value_t = 7, value_name = "N")]
    keep: usize,
}

/// Makes a backup.
///
/// # Errors
/// When anything of it cannot be written; the directory then has no manifest, and a restore refuses it.
pub async fn run(arguments: BackupArguments, config: &Config) -> anyhow::Result<()> {
    let started = Clock::System.now();
    let default = config.data_dir()?.join("backups");
    let dir = match &arguments.to {
        Some(dir) => std::path::absolute(dir)?,
        None => default.join(started.format(NAME).to_string()),
    };
    prepare(&dir)?;
    let database = database::open_or_join(config).await?;
    let spinner = progress::spinner("dumping the database");
    let written = write(config, &database, &dir, started, &spinner).await;
    spinner.finish_and_clear();
    database.close().await?;
    let manifest = written?;
    println!("backup in {}", dir.display());
    println!("  rows   {} in {} tables", manifest.content.rows.values().sum::<i64>(), manifest.content.rows.len());
    println!("  files  {}", describe_files(&manifest));
    println!("  bytes  {}", manifest.bytes());
    println!(
        "Not in it: the secrets (settings; of a demo {}). Without them nobody can sign in.",
        Credentials::path(&config.data_dir()?).display()
    );
    if arguments.to.is_none() && arguments.keep > 0 {
        for old in prune(&default, arguments.keep)? {
            println!("removed {}, an older one", old.display());
        }
    }
    Ok(())
}

async fn write(
    config: &Config,
    database: &database::Database,
    dir: &Path,
    started: DateTime<Utc>,
    spinner: &indicatif::ProgressBar,
) -> anyhow::Result<Manifest> {
    let programs = Programs::new(config, &database.options);
    let mut pg = postgres::connect(&database.options).await?;
    let content = dump(&mut pg, &programs, &dir.join(DUMP)).await?;
    let mut parts = BTreeMap::from([(DUMP.to_owned(), manifest::read(&dir.join(DUMP), &mut io::sink())?)]);
    // After the dump: a file is written before its row and never again, so that every row of the dump
    // finds its file.
    if let Some(folder) = local_files(config)? {
        progress::say(spinner, "copying the files");
        let target = dir.join(FILES);
        parts.extend(tokio::task::spawn_blocking(move || copy_folder(&folder, &target)).await??);
    }
    let store = &config.files.store;
    let files_in = if store.is_empty() { FILES.to_owned() } else { store.clone() };
    let manifest = Manifest::new(started, content, files_in, parts);
    manifest.write(dir)?;
    tell(&mut pg, started, manifest.bytes()).await?;
    pg.close().await?;
    Ok(manifest)
}

/// Dumps the database and counts what is in the dump: both see the same snapshot.
async fn dump(pg: &mut PgConnection, programs: &Programs, to: &Path) -> anyhow::Result<Content> {
    pg.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let snapshot: String = sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut *pg).await?;
    let content = postgres::content(pg).await?;
    // For its owner only, also in a directory that somebody else has made: pg_dump writes into it.
    let kept = |error| anyhow::Error::new(error).context(to.display().to_string());
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(kept)?;
    let mut file = std::ffi::OsString::from("--file=");
    file.push(to);
    let arguments = [
        "--format=custom".into(),
        "--no-owner".into(),
        "--no-privileges".into(),
        "--no-password".into(),
        format!("--snapshot={snapshot}").into(),
        file,
    ];
    programs.run("pg_dump", &arguments).await?;
    pg.execute("COMMIT").await?;
    fs::File::open(to)?.sync_all()?;
    Ok(content)
}

/// Tells the database, from where every replica exports the age of the last backup. A schema that is
/// older than that is backed up all the same.
async fn tell(pg: &mut PgConnection, started: DateTime<Utc>, bytes: u64) -> anyhow::Result<()> {
    let sql = "SELECT to_regclass('maintenance_runs') IS NOT NULL";
    if sqlx::query_scalar(sql).fetch_one(&mut *pg).await? {
        let sql = "INSERT INTO maintenance_runs (kind, started_at, finished_at, bytes) VALUES ('backup', $1, $2, $3)";
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        sqlx::query(sql).bind(started).bind(Clock::System.now()).bind(bytes).execute(pg).await?;
    }
    Ok(())
}

/// Creates the directory, for its owner only: everything that the company knows will be in it.
fn prepare(dir: &Path) -> anyhow::Result<()> {
    let created = || -> io::Result<bool> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(fs::read_dir(dir)?.next().is_none())
    };
    let empty = created().with_context(|| format!("--to: {}", dir.display()))?;
    ensure!(empty, "--to: {}: is not empty; name a new directory", dir.display());
    Ok(())
}

/// The folder of the files, unless they lie in a bucket.
fn local_files(config: &Config) -> anyhow::Result<Option<PathBuf>> {
    Ok(if config.files.store.is_empty() { Some(config.data_dir()?.join(FILES)) } else { None })
}

/// Copies a folder, which may be missing; its files, by their path in the backup.
fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<Vec<(String, Part)>> {
    let mut copied = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(from.join(&folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("{}", from.join(&folder).display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            match manifest::copy(&from.join(&path), &to.join(&path)) {
                // Deleted meanwhile, as files are.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let _ = fs::remove_file(to.join(&path));
                }
                part => {
                    let part = part.with_context(|| format!("{}", from.join(&path).display()))?;
                    let name = Path::new(FILES).join(&path);
                    let name = name.to_str().with_context(|| format!("{}: is no UTF-8", path.display()))?;
                    copied.push((name.to_owned(), part));
                }
            }
        }
    }
    Ok(copied)
}

fn describe_files(manifest: &Manifest) -> String {
    if manifest.files_in == FILES {
        format!("{}", manifest.files().count())
    } else {
        format!("not copied: {} is backed up by its own means", manifest.files_in)
    }
}

/// Removes all but the newest complete backups of the default folder, and unfinished ones that are
/// older than those.
fn prune(folder: &Path, keep: usize) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut backups: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            chrono::NaiveDateTime::parse_from_str(name, NAME).is_ok()
        })
        .collect();
    backups.sort_unstable();
    let complete: Vec<&PathBuf> = backups.iter().filter(|path| path.join(manifest::FILE).exists()).collect();
    let Some(oldest) = complete.len().checked_sub(keep).and_then(|index| complete.get(index)).copied().cloned() else {
        return Ok(Vec::new());
    };
    backups.retain(|path| *path < oldest);
    for path in &backups {
        fs::remove_dir_all(path).with_context(|| format!("{}", path.display()))?;
    }
    Ok(backups)
}
