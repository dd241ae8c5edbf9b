//! `switchboard restore`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use sqlx::{Connection, Executor, PgConnection};

use super::{
    local_files,
    manifest::{self, DUMP, FILES, Manifest},
    postgres::{self, Programs},
};
use crate::{
    audit::{AuditAction, AuditSubject, Via},
    cli::{database, progress},
    clock::Clock,
    config::Config,
    db::migrate,
};

/// Read a backup back: the database and the files
///
/// Stop the server first. The checksums of the backup are verified before anything is touched, and
/// what was restored is counted afterwards. Into an empty database it needs nothing else.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The directory of the backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Replace what is there: all tables are dropped, and the folder of files is set aside
    #[arg(long)]
    force: bool,
}

/// Restores a backup.
///
/// # Errors
/// When the backup is not whole, the target is in use or not empty, or what was restored is not what
/// was backed up.
pub async fn run(arguments: RestoreArguments, config: &Config) -> anyhow::Result<()> {
    let dir = std::path::absolute(&arguments.from)?;
    let manifest = Manifest::read(&dir)?;
    let spinner = progress::spinner("verifying the backup");
    let (whole, from) = (manifest.clone(), dir.clone());
    let verified = tokio::task::spawn_blocking(move || whole.verify(&from)).await?;
    spinner.finish_and_clear();
    verified?;
    ensure!(
        manifest.content.migration <= migrate::newest(),
        "the backup is of a newer release: it has migration {}, this program knows {}",
        manifest.content.migration,
        migrate::newest()
    );
    let database = database::open(config).await?;
    let restored = replace(config, &database, &dir, &manifest, arguments.force).await;
    database.close().await?;
    restored
}

async fn replace(
    config: &Config,
    database: &database::Database,
    dir: &Path,
    manifest: &Manifest,
    force: bool,
) -> anyhow::Result<()> {
    let mut pg = postgres::connect(&database.options).await?;
    check_unused(&mut pg).await?;
    let folder = local_files(config)?.filter(|_| manifest.files_in == FILES);
    ensure!(
        folder.is_some() || manifest.files_in != FILES || manifest.files().next().is_none(),
        "the backup has {} files, and the settings name {} for them, where a restore does not write; restore with \
         SWITCHBOARD_FILES_STORE empty, then copy the folder into the bucket and set it again",
        manifest.files().count(),
        config.files.store
    );
    if !force {
        let tables = postgres::tables(&mut pg).await?;
        ensure!(tables.is_empty(), "the database is not empty: it has {} tables; --force replaces them", tables.len());
        if let Some(folder) = &folder {
            let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
            ensure!(empty, "{}: is not empty; --force sets it aside", folder.display());
        }
    }
    let programs = Programs::new(config, &database.options);
    // That the program is there, and not too old to read the dump, is found out before anything is dropped.
    programs.run("pg_restore", &["--list".into(), dir.join(DUMP).into_os_string()]).await?;

    let spinner = progress::spinner("copying the files");
    // Beside their place first, so that a failure leaves everything as it was.
    let prepared = match folder {
        Some(folder) => {
            let (manifest, dir) = (manifest.clone(), dir.to_owned());
            Some(tokio::task::spawn_blocking(move || prepare_files(&manifest, &dir, folder)).await??)
        }
        None => None,
    };
    progress::say(&spinner, "restoring the database");
    if force {
        clear(&mut pg).await?;
    }
    let arguments = [
        "--single-transaction".into(),
        "--exit-on-error".into(),
        "--no-owner".into(),
        "--no-privileges".into(),
        "--no-comments".into(),
        "--no-password".into(),
        format!("--dbname={}", programs.database()).into(),
        dir.join(DUMP).into_os_string(),
    ];
    if let Err(error) = programs.run("pg_restore", &arguments).await {
        if let Some((unfinished, _)) = &prepared {
            let _ = fs::remove_dir_all(unfinished);
        }
        return Err(error);
    }
    let aside = match prepared {
        Some((unfinished, folder)) => place_files(&unfinished, &folder)?,
        None => None,
    };
    pg.execute("ANALYZE").await?;
    let content = postgres::content(&mut pg).await?;
    outdate_caches(&mut pg).await?;
    note(&mut pg).await?;
    pg.close().await?;
    spinner.finish_and_clear();
    if let Some(aside) = aside {
        println!("the files that were there are now in {}", aside.display());
    }
    compare(manifest, &content)
}

/// A server that is running would write into what is being replaced.
async fn check_unused(pg: &mut PgConnection) -> anyhow::Result<()> {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'switchboard'";
    let servers: i64 = sqlx::query_scalar(sql).fetch_one(pg).await?;
    ensure!(servers == 0, "a server is using this database ({servers} connections); stop it first");
    Ok(())
}

/// Drops everything of ours. Not the schema itself: who owns it is the business of whoever made the
/// database, and extensions stay too.
async fn clear(pg: &mut PgConnection) -> anyhow::Result<()> {
    let sql = "DO $$
        DECLARE
            statement text;
        BEGIN
            FOR statement IN
                SELECT format('DROP TABLE IF EXISTS public.%I CASCADE', tablename) FROM pg_tables WHERE schemaname = 'public'
            LOOP EXECUTE statement; END LOOP;
            FOR statement IN
                SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure) FROM pg_proc p
                 WHERE p.pronamespace = 'public'::regnamespace
                   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
            LOOP EXECUTE statement; END LOOP;
        END $$";
    pg.execute(sql).await.context("the database could not be emptied")?;
    Ok(())
}

/// What other processes have cached may be newer than the backup, and is wrong now. A schema that is older than the
/// cache has no versions; its migration gives new ones.
async fn outdate_caches(pg: &mut PgConnection) -> anyhow::Result<()> {
    if sqlx::query_scalar("SELECT to_regclass('cache_versions') IS NOT NULL").fetch_one(&mut *pg).await? {
        pg.execute("UPDATE cache_versions SET version = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .await?;
    }
    Ok(())
}

/// Says in the audit log that it was replaced too. A schema that is older than the log has none.
async fn note(pg: &mut PgConnection) -> anyhow::Result<()> {
    if sqlx::query_scalar("SELECT to_regclass('audit_log') IS NOT NULL").fetch_one(&mut *pg).await? {
        let sql = "INSERT INTO audit_log (at, via, action, subject) VALUES ($1, $2, $3, $4)";
        let query = sqlx::query(sql).bind(Clock::System.now()).bind(Via::Cli.as_str());
        let query = query.bind(AuditAction::DatabaseRestored.as_str()).bind(AuditSubject::Database.as_str());
        query.execute(pg).await?;
    }
    Ok(())
}

/// Copies the files of a backup to a folder beside the one where they belong; both.
fn prepare_files(manifest: &Manifest, dir: &Path, folder: PathBuf) -> anyhow::Result<(PathBuf, PathBuf)> {
    let unfinished = folder.with_extension(format!("restoring-{}", std::process::id()));
    let copied = || -> anyhow::Result<()> {
        fs::create_dir_all(&unfinished).with_context(|| format!("{}", unfinished.display()))?;
        for (path, part) in manifest.files() {
            let target = unfinished.join(Path::new(path).strip_prefix(FILES)?);
            let copied = manifest::copy(&dir.join(path), &target).with_context(|| format!("{}", target.display()))?;
            ensure!(copied == *part, "{}: changed while it was copied", dir.join(path).display());
        }
        Ok(())
    };
    if let Err(error) = copied() {
        // On a disk that is full, half a copy would be in everybody's way.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    Ok((unfinished, folder))
}

/// Gives them their place; where the ones are that had it.
fn place_files(unfinished: &Path, folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let aside = folder.with_extension(Clock::System.now().format("before-%Y%m%dT%H%M%SZ").to_string());
    let moved = match fs::rename(folder, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("{}", folder.display())),
        // An empty one is nobody's loss.
        Ok(()) => fs::remove_dir(&aside).is_err().then_some(aside),
    };
    fs::rename(unfinished, folder).with_context(|| format!("{}", folder.display()))?;
    Ok(moved)
}

/// Prints what was backed up beside what was restored.
fn compare(manifest: &Manifest, restored: &manifest::Content) -> anyhow::Result<()> {
    let expected = &manifest.content;
    println!("{:<28} {:>14} {:>14}", "restored", "in the backup", "now");
    let mut wrong = Vec::new();
    let mut line = |name: &str, before: &str, now: &str| {
        println!("{name:<28} {before:>14} {now:>14}{}", if before == now { "" } else { "  DIFFERS" });
        if before != now {
            wrong.push(name.to_owned());
        }
    };
    let tables: std::collections::BTreeSet<&String> = expected.rows.keys().chain(restored.rows.keys()).collect();
    let count = |rows: Option<&i64>| rows.map_or_else(|| "–".to_owned(), ToString::to_string);
    for table in tables {
        line(table, &count(expected.rows.get(table)), &count(restored.rows.get(table)));
    }
    line("sum of the ledger", &expected.ledger, &restored.ledger);
    line("newest migration", &expected.migration.to_string(), &restored.migration.to_string());
    if manifest.files_in == FILES {
        let files = manifest.files().count().to_string();
        line("files, by checksum", &files, &files);
    } else {
        println!("files are in {}, which has its own backup", manifest.files_in);
    }
    if !wrong.is_empty() {
        bail!("what was restored differs from the backup: {}", wrong.join(", "));
    }
    Ok(())
}
