//! Cash entries of the old system that somebody wrote by hand. The income of a finished request is
//! booked with the request; where it stands in this file too, it is recognised and not booked twice.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::{
    batch::{Import, Ready, Verdict},
    context::Context,
    fields::Fields,
    store,
    table::Column,
};
use crate::{
    audit::AuditSubject,
    db::{Conn, DbError, DbOperation},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Income,
    Expense,
}

const KINDS: &[(Kind, &[&str])] = &[(Kind::Income, &["Приход", "income"]), (Kind::Expense, &["Расход", "expense"])];

/// A row, checked.
#[derive(Debug)]
pub(super) struct Transaction {
    city_id: i64,
    kind: Kind,
    /// Never negative.
    amount: Decimal,
    master_id: Option<i64>,
    /// The old system's number of the request.
    request: Option<String>,
    request_id: Option<i64>,
    note: Option<String>,
    at: DateTime<Utc>,
}

/// `switchboard import transactions`.
#[derive(Debug)]
pub(super) struct Transactions;

impl Import for Transactions {
    type Item = Transaction;
    const KIND: &'static str = "transactions";
    const SUBJECT: AuditSubject = AuditSubject::Transactions;
    const COLUMNS: &'static [Column] = &[
        Column { name: "number", also: &["Номер", "id", "№"], required: true },
        Column { name: "at", also: &["Дата", "Дата создания", "date"], required: true },
        Column { name: "city", also: &["Город"], required: true },
        Column { name: "type", also: &["Тип"], required: true },
        Column { name: "amount", also: &["Сумма"], required: true },
        Column { name: "master", also: &["Мастер"], required: false },
        Column { name: "request", also: &["Заявка", "Номер заявки"], required: false },
        Column { name: "note", also: &["Комментарий", "Примечание"], required: false },
    ];

    fn read(&self, context: &Context, fields: &mut Fields<'_>) -> Option<Transaction> {
        fields.required("amount");
        let amount = fields.money("amount");
        fields.check(amount.is_none_or(|amount| !amount.is_zero()), "amount", "must not be zero");
        let kind = fields.required("type").and_then(|_| fields.choice("type", KINDS));
        let master_id = context.master(fields).map(|master| master.id);
        let request = fields.text("request", 64);
        let note = fields.text("note", 500);
        let (city, zone) = context.city(fields)?;
        fields.required("at");
        let at = fields.time("at", *zone);
        fields.check(at.is_none_or(|at| at <= context.now), "at", "lies in the future");
        let (kind, amount, at) = (kind?, amount?, at?);
        Some(Transaction { city_id: city.id, kind, amount, master_id, request, request_id: None, note, at })
    }

    async fn judge(&self, db: &mut Conn, rows: &mut [Ready<Transaction>]) -> Result<Vec<Verdict>, DbError> {
        let numbers: Vec<&str> = rows.iter().filter_map(|row| row.item.request.as_deref()).collect();
        let ids: HashMap<String, i64> = store::known(db, "requests", &numbers).await?.into_iter().collect();
        let booked = incomes(db, ids.values().copied().collect()).await?;
        let verdicts = rows.iter_mut().map(|Ready { item, .. }| {
            let Some(number) = &item.request else { return Verdict::New };
            item.request_id = ids.get(number).copied();
            let Some(id) = item.request_id else {
                return Verdict::Rejected("the request it belongs to is not here; import requests first".to_owned());
            };
            match booked.get(&id) {
                Some(income) if item.kind == Kind::Income && *income == item.amount => Verdict::Present,
                Some(_) if item.kind == Kind::Income => {
                    Verdict::Rejected("the request's income is booked with another amount".to_owned())
                }
                None if item.kind == Kind::Income => {
                    Verdict::Rejected("income of a request that is not done".to_owned())
                }
                _ => Verdict::New,
            }
        });
        Ok(verdicts.collect())
    }

    async fn store(&self, db: &mut Conn, _: &Context, rows: &[Ready<Transaction>]) -> Result<(), DbError> {
        macro_rules! each {
            (|$item:ident| $value:expr) => {
                &rows.iter().map(|Ready { item: $item, .. }| $value).collect::<Vec<_>>()
            };
        }
        let ids = store::new_ids(db, "transactions", rows.len()).await?;
        let (pg, telemetry) = db.parts();
        let query = sqlx::query!(
            "INSERT INTO transactions (id, city_id, type_id, request_id, master_id, amount, automatic, note, at) OVERRIDING SYSTEM VALUE
             SELECT row.id, city_id, type.id, request_id, master_id, amount, false, note, at
               FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::numeric[], $7::text[],
                    $8::timestamptz[])
                    AS row (id, city_id, type, request_id, master_id, amount, note, at)
               JOIN transaction_types type ON type.code = row.type",
            &ids,
            each!(|item| item.city_id),
            each!(|item| if item.kind == Kind::Income { "income" } else { "expense" }) as _,
            each!(|item| item.request_id) as _,
            each!(|item| item.master_id) as _,
            // In the ledger, money that leaves is negative.
            each!(|item| if item.kind == Kind::Income { item.amount } else { -item.amount }),
            each!(|item| item.note.as_deref()) as _,
            each!(|item| item.at)
        );
        telemetry.run(DbOperation::Import, query.execute(pg)).await?;
        store::keep_keys(db, Self::KIND, rows.iter().map(|row| row.number.as_str()), &ids).await
    }
}

/// The income of requests, as booked when they were done.
async fn incomes(db: &mut Conn, ids: Vec<i64>) -> Result<HashMap<i64, Decimal>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        r#"SELECT DISTINCT ON (t.request_id) t.request_id AS "request_id!", t.amount
             FROM transactions t JOIN transaction_types type ON type.id = t.type_id
            WHERE t.request_id = ANY($1) AND type.code = 'income'
              AND NOT EXISTS (SELECT FROM transactions r WHERE r.reverses_id = t.id)
            ORDER BY t.request_id, t.id DESC"#,
        &ids
    );
    let rows = telemetry.run(DbOperation::Import, query.fetch_all(pg)).await?;
    Ok(rows.into_iter().map(|row| (row.request_id, row.amount)).collect())
}
