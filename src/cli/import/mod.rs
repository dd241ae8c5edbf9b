//! `switchboard import`: CSV exports of the old system. What the columns mean is in docs/import.md and
//! in `--help`; one file here a kind of export, [`batch`] is the loop that they share.

mod batch;
mod campaigns;
mod context;
mod fields;
mod masters;
mod requests;
mod store;
mod table;
mod transactions;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use self::{batch::Import, context::Context, store::Run, table::Table};
use super::{database, progress};
use crate::{
    auth::{passwords, tokens::random_id},
    clock::Clock,
    config::{Config, Secret},
    db::{Db, migrate},
    telemetry::{ProcessCounters, metrics::Metrics},
};

/// Exit code when some rows were not taken.
const EXIT_REJECTED: u8 = 3;

const HELP: &str = "\
Import campaigns and masters first, then requests, then transactions, since each refers to those
before it. Cities have to exist.

  switchboard import campaigns campaigns.csv
  switchboard import masters masters.csv
  switchboard import requests requests.csv
  switchboard import transactions cash.csv

Columns, in any order, by the Russian heading or the English name; * must be there:

  campaigns
    Номер* number, Название* name, Город* city, Телефоны* phones, Код code, Активна active
  masters
    Номер* number, Имя* name, Города* cities, Доля* share, Логин login, Статус status
  requests
    Номер* number, Дата создания* created_at, Телефон* phone, Город* city, Тип* type,
    Статус* status, Имя client_name, Адрес address, РК campaign, Направление direction,
    Источник source, Мастер master, Дата встречи meeting_at, Дата перезвона callback_at,
    Дата продолжения resume_at, Итог result, Расход expenses, Чистыми net,
    Сдача мастера handover, Дата закрытия closed_at, Описание description, Комментарий comment
  transactions
    Номер* number, Дата* at, Город* city, Тип* type, Сумма* amount, Мастер master,
    Заявка request, Комментарий note

The file is UTF-8 or Windows-1251, separated by ; or , with times as DD.MM.YYYY HH:MM or ISO in
the time zone of the city. What was imported before is left as it is: repeat it as you like.

Rows that were not taken are written beside the file, with line and reason: those of cash.csv as
cash.rejects.csv. Mend them there and import that file.

Exit code: 0 everything is in, 3 some rows were rejected, 1 the import could not be finished;
the same command then goes on where it was.";

/// Read an export of the old system
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More about the columns: switchboard import --help")]
pub struct Arguments {
    /// What the file holds
    kind: Kind,
    /// The CSV file
    file: PathBuf,
    /// Rows stored in one transaction
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=5000))]
    batch_rows: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Requests,
    Masters,
    Campaigns,
    Transactions,
}

/// Imports a file.
///
/// # Errors
/// When the file is not of this kind or the database cannot be used.
pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    match arguments.kind {
        Kind::Requests => import(&requests::Requests, &arguments, config).await,
        Kind::Masters => import(&masters::Masters, &arguments, config).await,
        Kind::Campaigns => import(&campaigns::Campaigns, &arguments, config).await,
        Kind::Transactions => import(&transactions::Transactions, &arguments, config).await,
    }
}

async fn import<I: Import>(import: &I, arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let name = arguments.file.display();
    let content = fs::read(&arguments.file).with_context(|| format!("{name}"))?;
    let table = Table::parse(&content, I::COLUMNS).with_context(|| format!("{name}"))?;
    let sha256 = super::hex(&Sha256::digest(&content));
    drop(content);
    let unused = table.unused();
    if !unused.is_empty() {
        eprintln!("columns that are not used: {}", unused.join(", "));
    }

    let database = database::open_or_join(config).await?;
    migrate::run(&database.options).await?;
    let metrics = Arc::new(Metrics::new(ProcessCounters::default())?);
    let db = Db::new(database.options.clone(), &config.database, metrics);
    let bar = progress::bar(&format!("importing {}", I::KIND), table.rows.len() as u64);
    let outcome = pass(import, &table, &db, config, &sha256, arguments.batch_rows, &bar).await;
    bar.finish_and_clear();
    db.close().await;
    database.close().await?;
    let (run, rejects) = outcome?;

    let rejects_file = write_rejects(&arguments.file, &table, &rejects)?;
    println!("{} from {name}", I::KIND);
    println!("  read           {}", table.rows.len());
    println!("  accepted       {}", run.accepted);
    println!("  already there  {}", run.present);
    println!("  rejected       {}", run.rejected);
    println!("  seconds        {:.1}", started.elapsed().as_secs_f64());
    if rejects.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("Why, row by row: {}", rejects_file.display());
    Ok(ExitCode::from(EXIT_REJECTED))
}

/// One pass over the file, or the rest of one that was interrupted.
async fn pass<I: Import>(
    import: &I,
    table: &Table,
    db: &Db,
    config: &Config,
    sha256: &str,
    batch_rows: u16,
    bar: &ProgressBar,
) -> anyhow::Result<(Run, Vec<(u64, String)>)> {
    // Held to the end: two imports at once would both think that a row is new.
    let mut office = db.connect_alone().await?;
    ensure!(store::lock(&mut office).await?, "another import is running; wait for it");
    let clock = Clock::System;
    // Of a password that nobody knows, not even for the time that it takes to hash it.
    let cost = config.password.cost;
    let hash = move || passwords::hash(&Secret::new(random_id()), cost, &random_id());
    let no_password = tokio::task::spawn_blocking(hash).await??;
    let context = Context::load(&mut office, &config.telephony.region, no_password, clock.now()).await?;
    let run = store::open_run(&mut office, I::KIND, sha256, table.rows.len(), clock.now()).await?;
    if run.rows_done > 0 {
        eprintln!("going on after row {} of an import that was interrupted", run.rows_done);
    }
    let run = batch::run(import, table, db, &context, run, usize::from(batch_rows), bar).await?;
    store::finish(&mut office, &run, clock.now()).await?;
    let rejects = store::rejects(&mut office, &run).await?;
    Ok((run, rejects))
}

/// Writes what was not taken beside the file, as one that can be imported when it has been mended; its path.
/// One that somebody may be mending is left alone: the next then has a number.
fn write_rejects(file: &Path, table: &Table, rejects: &[(u64, String)]) -> anyhow::Result<PathBuf> {
    let first = file.with_extension("rejects.csv");
    if rejects.is_empty() {
        return Ok(first);
    }
    let delimiter = char::from(table.delimiter);
    // The mark tells Excel that it is UTF-8.
    let mut content =
        format!("\u{feff}{}{delimiter}", table::REJECT_HEADINGS.join(&delimiter.to_string())).into_bytes();
    content.extend_from_slice(table.raw_header());
    content.extend_from_slice(b"\r\n");
    let reasons: std::collections::HashMap<u64, &str> =
        rejects.iter().map(|(line, reason)| (*line, reason.as_str())).collect();
    for row in &table.rows {
        if let Some(reason) = reasons.get(&row.line) {
            content.extend_from_slice(
                format!("{}{delimiter}\"{}\"{delimiter}", row.line, reason.replace('"', "\"\"")).as_bytes(),
            );
            content.extend_from_slice(table.raw(row));
            content.extend_from_slice(b"\r\n");
        }
    }
    let same_or_free = |path: &Path| fs::read(path).map_or_else(|_| !path.exists(), |present| present == content);
    let others = (2..).map(|n| file.with_extension(format!("rejects-{n}.csv")));
    let path = std::iter::once(first).chain(others).find(|path| same_or_free(path)).unwrap_or_default();
    // Whole or not at all, and for its owner only: it holds names and addresses.
    let unfinished = path.with_extension("csv.unfinished");
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&content)?;
        fs::rename(&unfinished, &path)
    };
    written().with_context(|| path.display().to_string())?;
    Ok(path)
}
