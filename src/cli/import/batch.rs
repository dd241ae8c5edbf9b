//! The loop over a file: read rows, leave out what is there, store a batch and move the cursor in one
//! transaction. A row that only the database refuses costs no other row.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;

use super::{
    context::Context,
    fields::Fields,
    store::{self, Run},
    table::{Column, Row, Table},
};
use crate::{
    audit::{self, AuditAction, AuditSubject, By},
    db::{Conn, Db, DbError, Tx},
    telemetry::labels::SqlstateClass,
};

/// A kind of file.
pub(super) trait Import {
    /// A checked row.
    type Item;
    /// As in the command and in the database.
    const KIND: &'static str;
    /// Where its rows go.
    const SUBJECT: AuditSubject;
    /// What a file of this kind may have.
    const COLUMNS: &'static [Column];

    /// Checks a row; what is wrong with it is noted in `fields`.
    fn read(&self, context: &Context, fields: &mut Fields<'_>) -> Option<Self::Item>;

    /// Decides what only the database knows about checked rows: all of them are new unless said
    /// otherwise.
    async fn judge(&self, _: &mut Conn, rows: &mut [Ready<Self::Item>]) -> Result<Vec<Verdict>, DbError> {
        Ok(rows.iter().map(|_| Verdict::New).collect())
    }

    /// Stores rows, all or none, with their keys.
    async fn store(&self, db: &mut Conn, context: &Context, rows: &[Ready<Self::Item>]) -> Result<(), DbError>;
}

/// A row that can be stored.
#[derive(Debug)]
pub(super) struct Ready<T> {
    pub line: u64,
    /// In the old system.
    pub number: String,
    pub item: T,
}

/// What becomes of a checked row.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It is stored.
    New,
    /// It is there already.
    Present,
    /// It cannot be taken, for this reason.
    Rejected(String),
}

/// Imports what is left of a file.
///
/// # Errors
/// When the database cannot be used; what was stored until then stays, and the next run goes on there.
pub(super) async fn run<I: Import>(
    import: &I,
    table: &Table,
    db: &Db,
    context: &Context,
    mut run: Run,
    batch: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Run> {
    let doubles = doubles(table);
    let done = usize::try_from(run.rows_done)?;
    ensure!(done <= table.rows.len(), "an unfinished import of this file counted more rows than it has now");
    bar.set_position(done as u64);
    for (index, rows) in table.rows[done..].chunks(batch).enumerate() {
        let first = done + index * batch;
        let stored = store_batch(import, table, db, context, run, rows, &doubles).await;
        run = stored.with_context(|| {
            format!("the import stopped after {first} rows, which are stored; the same command goes on from there")
        })?;
        bar.inc(rows.len() as u64);
    }
    Ok(run)
}

/// For lines whose number stands on an earlier line too: that line, and whether they say the same.
fn doubles(table: &Table) -> HashMap<u64, (u64, bool)> {
    let mut first: HashMap<&str, &Row> = HashMap::new();
    let mut doubles = HashMap::new();
    for row in &table.rows {
        let Some(number) = number_of(table, row) else { continue };
        match first.entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(row);
            }
            Entry::Occupied(entry) => {
                let earlier = entry.get();
                doubles.insert(row.line, (earlier.line, earlier.values == row.values));
            }
        }
    }
    doubles
}

fn number_of<'a>(table: &'a Table, row: &'a Row) -> Option<&'a str> {
    Fields::new(table, row.values.as_ref().ok()?).get("number")
}

async fn store_batch<I: Import>(
    import: &I,
    table: &Table,
    db: &Db,
    context: &Context,
    mut run: Run,
    rows: &[Row],
    doubles: &HashMap<u64, (u64, bool)>,
) -> Result<Run, DbError> {
    let numbers: Vec<&str> = rows.iter().filter_map(|row| number_of(table, row)).collect();
    // First of all: a row that is there is left alone, whatever became since of what it refers to.
    let known = store::known(&mut db.acquire().await?, I::KIND, &numbers).await?;
    let known: HashSet<String> = known.into_iter().map(|(number, _)| number).collect();
    let mut rejects: Vec<(u64, String)> = Vec::new();
    let mut ready: Vec<Ready<I::Item>> = Vec::new();
    let mut present = 0;
    for row in rows {
        let double = doubles.get(&row.line);
        if let Some((line, false)) = double {
            rejects.push((row.line, format!("line {line} has the same number and says something else")));
        } else if number_of(table, row).is_some_and(|number| known.contains(number)) {
            present += 1;
        } else {
            match read(import, table, context, row) {
                // The same line once more.
                Ok(_) if double.is_some() => present += 1,
                Ok(row) => ready.push(row),
                Err(reason) => rejects.push((row.line, reason)),
            }
        }
    }

    let mut tx = db.begin().await?;
    let mut verdicts = import.judge(&mut tx, &mut ready).await?.into_iter();
    ready.retain(|row| match verdicts.next() {
        Some(Verdict::New) => true,
        Some(Verdict::Rejected(reason)) => {
            rejects.push((row.line, reason));
            false
        }
        Some(Verdict::Present) | None => {
            present += 1;
            false
        }
    });
    let accepted = store_rows(import, &mut tx, context, &ready, &mut rejects).await?;

    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    run.rows_done += count(rows.len());
    run.accepted += count(accepted);
    run.present += count(present);
    run.rejected += count(rejects.len());
    store::reject(&mut tx, &run, &rejects).await?;
    store::advance(&mut tx, &run).await?;
    if accepted > 0 {
        let entry = audit::Entry::of_many(AuditAction::Imported, I::SUBJECT).with("rows", accepted);
        audit::record(&mut tx, By::CLI, entry, context.now).await?;
    }
    tx.commit().await?;
    Ok(run)
}

fn read<I: Import>(import: &I, table: &Table, context: &Context, row: &Row) -> Result<Ready<I::Item>, String> {
    let values = row.values.as_ref().map_err(Clone::clone)?;
    let mut fields = Fields::new(table, values);
    let number = fields.number();
    let item = import.read(context, &mut fields);
    match (fields.problems(), number, item) {
        (None, Some(number), Some(item)) => Ok(Ready { line: row.line, number, item }),
        (problems, ..) => Err(problems.unwrap_or_else(|| "cannot be read".to_owned())),
    }
}

/// Stores as many rows as the database takes: where it refuses a row, the halves are tried, down to
/// the row that it is. How many it took.
async fn store_rows<I: Import>(
    import: &I,
    tx: &mut Tx,
    context: &Context,
    rows: &[Ready<I::Item>],
    rejects: &mut Vec<(u64, String)>,
) -> Result<usize, DbError> {
    let mut accepted = 0;
    let mut waiting = vec![rows];
    while let Some(rows) = waiting.pop() {
        if rows.is_empty() {
            continue;
        }
        store::savepoint(tx, "SAVEPOINT").await?;
        match import.store(tx, context, rows).await {
            Ok(()) => {
                store::savepoint(tx, "RELEASE SAVEPOINT").await?;
                accepted += rows.len();
            }
            Err(error) if matches!(error.class(), Some(SqlstateClass::Integrity | SqlstateClass::Data)) => {
                store::savepoint(tx, "ROLLBACK TO SAVEPOINT").await?;
                if let [row] = rows {
                    rejects.push((row.line, refusal(&error)));
                } else {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    waiting.extend([right, left]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(accepted)
}

/// In words, without the values that the database's own message quotes.
fn refusal(error: &DbError) -> String {
    match error.constraint() {
        Some("users_login_key") => "the login is taken".to_owned(),
        Some("campaign_numbers_phone_e164_key") => "a number belongs to another campaign".to_owned(),
        Some("advertising_campaigns_code_key") => "the code is taken; write another one".to_owned(),
        Some(constraint) => format!("the database refuses it: {constraint}"),
        None => "the database cannot hold one of its values".to_owned(),
    }
}
