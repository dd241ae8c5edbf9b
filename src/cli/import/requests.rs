//! Service requests of the old system, with the history and the income that they imply.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use rust_decimal::{Decimal, RoundingStrategy};

use super::{
    batch::{Import, Ready},
    context::Context,
    fields::Fields,
    table::Column,
};
use crate::{
    audit::AuditSubject,
    db::{Conn, DbError, DbOperation},
    requests::{model::Source, state::Status},
};

const fn column(name: &'static str, also: &'static [&'static str], required: bool) -> Column {
    Column { name, also, required }
}

const STATUSES: &[(Status, &[&str])] = &[
    (Status::New, &["Новая", "Новый", "new"]),
    (Status::Callback, &["Перезвонить", "callback"]),
    (Status::NoAnswer, &["Не отвечает", "Недозвон", "no_answer"]),
    (Status::NotOrder, &["Незаказ", "Не заказ", "not_order"]),
    (Status::Waiting, &["Ожидает", "Ожидание", "waiting"]),
    (Status::Offered, &["Предложена", "Предложено", "offered"]),
    (Status::Accepted, &["Принял", "Принята", "accepted"]),
    (Status::EnRoute, &["В пути", "en_route"]),
    (Status::InProgress, &["В работе", "in_progress"]),
    (Status::Deferred, &["Модерн", "Отложена", "deferred"]),
    (Status::Done, &["Готово", "Выполнена", "done"]),
    (Status::Refused, &["Отказ", "refused"]),
];
const SOURCES: &[(Source, &[&str])] = &[(Source::Call, &["Звонок", "call"]), (Source::Manual, &["Вручную", "manual"])];

/// A row, checked.
#[derive(Debug)]
pub(super) struct Request {
    phone: String,
    city_id: i64,
    kind: String,
    direction: Option<String>,
    campaign_id: Option<i64>,
    source: Source,
    status: Status,
    client_name: Option<String>,
    description: Option<String>,
    address: Option<String>,
    callback_at: Option<DateTime<Utc>>,
    meeting_at: Option<DateTime<Utc>>,
    resume_at: Option<DateTime<Utc>>,
    master_id: Option<i64>,
    created_at: DateTime<Utc>,
    closed_at: Option<DateTime<Utc>>,
    money: Option<Money>,
}

#[derive(Clone, Copy, Debug)]
struct Money {
    result: Decimal,
    expenses: Decimal,
    net: Decimal,
    handover: Decimal,
}

/// `switchboard import requests`.
#[derive(Debug)]
pub(super) struct Requests;

impl Import for Requests {
    type Item = Request;
    const KIND: &'static str = "requests";
    const SUBJECT: AuditSubject = AuditSubject::Requests;
    const COLUMNS: &'static [Column] = &[
        column("number", &["Номер", "id", "№"], true),
        column("created_at", &["Дата создания", "Создана"], true),
        column("phone", &["Телефон", "Телефон клиента"], true),
        column("client_name", &["Имя", "Имя клиента", "name"], false),
        column("address", &["Адрес"], false),
        column("city", &["Город"], true),
        column("campaign", &["РК", "Рекламная кампания"], false),
        column("type", &["Тип", "Тип заявки"], true),
        column("direction", &["Направление"], false),
        column("source", &["Источник"], false),
        column("status", &["Статус"], true),
        column("master", &["Мастер"], false),
        column("meeting_at", &["Дата встречи"], false),
        column("callback_at", &["Дата перезвона"], false),
        column("resume_at", &["Дата продолжения"], false),
        column("result", &["Итог"], false),
        column("expenses", &["Расход"], false),
        column("net", &["Чистыми", "Чистые"], false),
        column("handover", &["Сдача мастера", "Сдача"], false),
        column("closed_at", &["Дата закрытия", "Закрыта"], false),
        column("description", &["Описание", "Проблема"], false),
        column("comment", &["Комментарий"], false),
    ];

    fn read(&self, context: &Context, fields: &mut Fields<'_>) -> Option<Request> {
        let phone = fields.phone("phone", &context.region);
        let client_name = fields.text("client_name", 100);
        let address = fields.text("address", 300);
        let description = description(fields);
        let kind = context.request_type(fields);
        let direction = context.direction(fields);
        let source = fields.choice("source", SOURCES).unwrap_or(Source::Manual);
        let status = fields.required("status").and_then(|_| fields.choice("status", STATUSES));
        let master = context.master(fields);
        // Without a city nothing can be said about times and campaigns.
        let (city, zone) = context.city(fields)?;
        let campaign_id = context.campaign(fields, city);
        let times = Times::read(fields, *zone, context.now);
        let status = status?;
        let money = money(fields, status, master.map(|master| master.share));
        needs(fields, status, &times, address.is_some(), fields.get("master").is_some());
        Some(Request {
            phone: phone?,
            city_id: city.id,
            kind: kind?,
            direction,
            campaign_id,
            source,
            status,
            client_name,
            description,
            address,
            callback_at: times.callback.filter(|_| status == Status::Callback),
            // The old system kept no meeting of what was done.
            meeting_at: times.meeting.or(times.closed.filter(|_| status == Status::Done)),
            resume_at: times.resume.filter(|_| status == Status::Deferred),
            master_id: master.map(|master| master.id),
            created_at: times.created?,
            closed_at: times.closed,
            money,
        })
    }

    async fn store(&self, db: &mut Conn, _: &Context, rows: &[Ready<Request>]) -> Result<(), DbError> {
        let clients = clients(db, rows).await?;
        let ids = insert(db, rows, &clients).await?;
        history(db, rows, &ids).await?;
        super::store::keep_keys(db, Self::KIND, rows.iter().map(|row| row.number.as_str()), &ids).await
    }
}

fn description(fields: &mut Fields<'_>) -> Option<String> {
    let parts: Vec<&str> = ["description", "comment"].iter().filter_map(|name| fields.get(name)).collect();
    let text = parts.join("\n");
    let fits = text.chars().count() <= 2000;
    let longer = if fields.get("comment").is_some() { "comment" } else { "description" };
    fields.check(fits, longer, "is too long: at most 2000 characters fit");
    (!text.is_empty()).then_some(text)
}

struct Times {
    created: Option<DateTime<Utc>>,
    closed: Option<DateTime<Utc>>,
    meeting: Option<DateTime<Utc>>,
    callback: Option<DateTime<Utc>>,
    resume: Option<DateTime<Utc>>,
}

impl Times {
    fn read(fields: &mut Fields<'_>, zone: Tz, now: DateTime<Utc>) -> Self {
        fields.required("created_at");
        let created = fields.time("created_at", zone);
        let closed = fields.time("closed_at", zone);
        for (at, name) in [(created, "created_at"), (closed, "closed_at")] {
            fields.check(at.is_none_or(|at| at <= now), name, "lies in the future");
        }
        if let (Some(created), Some(closed)) = (created, closed) {
            fields.check(created <= closed, "closed_at", "lies before the creation");
        }
        Self {
            created,
            closed,
            meeting: fields.time("meeting_at", zone),
            callback: fields.time("callback_at", zone),
            resume: fields.time("resume_at", zone),
        }
    }
}

/// What the database demands of each state, said in words. A value that could not be read has been
/// complained about already and counts as given.
fn needs(fields: &mut Fields<'_>, status: Status, times: &Times, address: bool, master: bool) {
    use Status::{Callback, Deferred, Done, NoAnswer, NotOrder, Waiting};
    let needed = format!("is needed by the status {}", status.as_str());
    let given = |fields: &Fields<'_>, name: &str, at: Option<DateTime<Utc>>| at.is_some() || fields.get(name).is_some();
    if status.has_visit() {
        fields.check(address, "address", &needed);
        let known = given(fields, "meeting_at", times.meeting) || status == Done;
        fields.check(known, "meeting_at", &needed);
    }
    if status.has_visit() && status != Waiting {
        fields.check(master, "master", &needed);
    } else if matches!(status, Status::New | Callback | NoAnswer | NotOrder | Waiting) {
        fields.check(!master, "master", &format!("has no place in the status {}", status.as_str()));
    }
    let callback = status != Callback || given(fields, "callback_at", times.callback);
    fields.check(callback, "callback_at", &needed);
    let resume = status != Deferred || given(fields, "resume_at", times.resume);
    fields.check(resume, "resume_at", &needed);
    let closed = given(fields, "closed_at", times.closed);
    if status.is_finished() {
        fields.check(closed, "closed_at", &needed);
    } else {
        fields.check(!closed, "closed_at", &format!("has no place in the status {}", status.as_str()));
    }
}

fn money(fields: &mut Fields<'_>, status: Status, share: Option<Decimal>) -> Option<Money> {
    let names = ["result", "expenses", "net", "handover"];
    let [result, expenses, net, handover] = names.map(|name| fields.money(name));
    if status != Status::Done {
        // The old system wrote zeros where there was nothing.
        for (name, amount) in names.into_iter().zip([result, expenses, net, handover]) {
            let nothing = amount.is_none_or(|amount| amount.is_zero());
            fields.check(nothing, name, &format!("has no place in the status {}", status.as_str()));
        }
        return None;
    }
    fields.check(fields.get("result").is_some(), "result", "is needed by the status done");
    let result = result?;
    let expenses = expenses.unwrap_or_default();
    fields.check(expenses <= result, "expenses", "must not exceed the result");
    let difference = result - expenses;
    fields.check(net.is_none_or(|net| net == difference), "net", "is not the result without the expenses");
    fields.check(handover.is_none_or(|handover| handover <= difference), "handover", "must not exceed the net");
    let by_share =
        |share: Decimal| (difference * share).round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    // What was handed over then counts, even if the share is another one now.
    let handover = handover.or(share.map(by_share))?;
    Some(Money { result, expenses, net: difference, handover })
}

/// The clients of these rows, in their order, created if new and locked as a call would lock them.
async fn clients(db: &mut Conn, rows: &[Ready<Request>]) -> Result<Vec<i64>, DbError> {
    let (pg, telemetry) = db.parts();
    let phones: Vec<&str> = rows.iter().map(|row| row.item.phone.as_str()).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.item.created_at).collect();
    let query = sqlx::query!(
        "INSERT INTO clients (phone_e164, created_at)
         SELECT phone, min(at) FROM UNNEST($1::text[], $2::timestamptz[]) AS row (phone, at) GROUP BY phone ORDER BY phone
         ON CONFLICT (phone_e164) DO UPDATE SET phone_e164 = excluded.phone_e164 RETURNING id, phone_e164",
        &phones as _,
        &times
    );
    let found = telemetry.run(DbOperation::Import, query.fetch_all(pg)).await?;
    let by_phone: std::collections::HashMap<&str, i64> =
        found.iter().map(|client| (client.phone_e164.as_str(), client.id)).collect();
    phones.iter().map(|phone| by_phone.get(phone).copied().ok_or(DbError::Sql(sqlx::Error::RowNotFound))).collect()
}

/// Inserts the requests; their ids, in the order of the rows.
async fn insert(db: &mut Conn, rows: &[Ready<Request>], clients: &[i64]) -> Result<Vec<i64>, DbError> {
    macro_rules! each {
        ($($field:ident).+) => { &rows.iter().map(|row| row.item.$($field).+.clone()).collect::<Vec<_>>() };
    }
    macro_rules! amount {
        ($field:ident) => {
            &rows.iter().map(|row| row.item.money.map(|money| money.$field)).collect::<Vec<_>>()
        };
    }
    let ids = super::store::new_ids(db, "requests", rows.len()).await?;
    let statuses: Vec<&str> = rows.iter().map(|row| row.item.status.as_str()).collect();
    let sources: Vec<&str> = rows.iter().map(|row| row.item.source.as_str()).collect();
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!(
        "INSERT INTO requests (id, client_id, city_id, type_id, direction_id, campaign_id, source, status, client_name,
                               description, address, callback_at, meeting_at, resume_at, master_id, created_at, updated_at,
                               closed_at, result, expenses, net, handover)
         OVERRIDING SYSTEM VALUE
         SELECT row.id, client_id, city_id, type.id, direction.id, campaign_id, source, status, client_name, description,
                address, callback_at, meeting_at, resume_at, master_id, created_at, COALESCE(closed_at, created_at),
                closed_at, result, expenses, net, handover
           FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                       $8::text[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[],
                       $14::timestamptz[], $15::bigint[], $16::timestamptz[], $17::timestamptz[], $18::numeric[],
                       $19::numeric[], $20::numeric[], $21::numeric[])
                AS row (id, client_id, city_id, type, direction, campaign_id, source, status, client_name, description,
                        address, callback_at, meeting_at, resume_at, master_id, created_at, closed_at, result, expenses,
                        net, handover)
           JOIN request_types type ON type.code = row.type
           LEFT JOIN directions direction ON direction.code = row.direction",
        &ids,
        clients,
        each!(city_id),
        each!(kind),
        each!(direction) as _,
        each!(campaign_id) as _,
        &sources as _,
        &statuses as _,
        each!(client_name) as _,
        each!(description) as _,
        each!(address) as _,
        each!(callback_at) as _,
        each!(meeting_at) as _,
        each!(resume_at) as _,
        each!(master_id) as _,
        each!(created_at),
        each!(closed_at) as _,
        amount!(result) as _,
        amount!(expenses) as _,
        amount!(net) as _,
        amount!(handover) as _
    );
    telemetry.run(DbOperation::Import, query.execute(pg)).await?;
    Ok(ids)
}

/// The history that a row implies: its creation, the one move to where it is now, and for what was
/// done the income. By the system, marked as imported.
async fn history(db: &mut Conn, rows: &[Ready<Request>], ids: &[i64]) -> Result<(), DbError> {
    let (pg, telemetry) = db.parts();
    let numbers: Vec<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    let query = sqlx::query!(
        "INSERT INTO request_events (request_id, at, kind, to_status, diff)
         SELECT r.id, r.created_at, 'created', 'new', jsonb_build_object('imported', jsonb_build_array(NULL, row.number))
           FROM UNNEST($1::bigint[], $2::text[]) AS row (id, number) JOIN requests r ON r.id = row.id ORDER BY r.id",
        ids,
        &numbers as _
    );
    telemetry.run(DbOperation::Import, query.execute(&mut *pg)).await?;
    let query = sqlx::query!(
        "INSERT INTO request_events (request_id, at, kind, from_status, to_status, reason)
         SELECT id, COALESCE(closed_at, created_at), 'transition', 'new', status, 'imported'
           FROM requests WHERE id = ANY($1) AND status <> 'new' ORDER BY id",
        ids
    );
    telemetry.run(DbOperation::Import, query.execute(&mut *pg)).await?;
    let query = sqlx::query!(
        "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, at)
         SELECT r.city_id, t.id, r.id, r.master_id, r.handover, true, r.closed_at
           FROM requests r JOIN transaction_types t ON t.code = 'income'
          WHERE r.id = ANY($1) AND r.status = 'done' ORDER BY r.id",
        ids
    );
    telemetry.run(DbOperation::Import, query.execute(pg)).await.map(drop)
}
