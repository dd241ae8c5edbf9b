//! Advertising campaigns of the old system, with the numbers that they advertise.

use super::{
    batch::{Import, Ready},
    context::Context,
    fields::Fields,
    table::{Column, fold},
};
use crate::{
    audit::AuditSubject,
    db::{Conn, DbError, DbOperation},
    phone,
};

const STATUSES: &[(bool, &[&str])] =
    &[(true, &["Да", "Активна", "active", "true", "1"]), (false, &["Нет", "Остановлена", "inactive", "false", "0"])];

/// A row, checked.
#[derive(Debug)]
pub(super) struct Campaign {
    city_id: i64,
    code: String,
    name: String,
    active: bool,
    phones: Vec<String>,
}

/// `switchboard import campaigns`.
#[derive(Debug)]
pub(super) struct Campaigns;

impl Import for Campaigns {
    type Item = Campaign;
    const KIND: &'static str = "campaigns";
    const SUBJECT: AuditSubject = AuditSubject::Campaigns;
    const COLUMNS: &'static [Column] = &[
        Column { name: "number", also: &["Номер", "id", "№"], required: true },
        Column {
            name: "name", also: &["Название", "РК", "Рекламная кампания"], required: true
        },
        Column { name: "city", also: &["Город"], required: true },
        Column {
            name: "phones", also: &["Телефоны", "Телефон", "Номера", "phone"], required: true
        },
        Column { name: "code", also: &["Код"], required: false },
        Column { name: "active", also: &["Активна", "Статус"], required: false },
    ];

    fn read(&self, context: &Context, fields: &mut Fields<'_>) -> Option<Campaign> {
        fields.required("name");
        let name = fields.text("name", 100);
        let active = fields.choice("active", STATUSES).unwrap_or(true);
        let mut phones = Vec::new();
        for number in fields.get("phones").unwrap_or_default().split([',', '|', '/']) {
            let number = number.trim();
            match phone::normalise_line(number, &context.region) {
                Some(e164) => phones.push(e164),
                None if number.is_empty() => {}
                None => fields.problem("phones", "contains what is no phone number"),
            }
        }
        let (city, _) = context.city(fields)?;
        let code = match fields.get("code") {
            Some(code) => code.to_owned(),
            None => format!("{}_{}", city.code, transliterate(name.as_deref()?)).chars().take(40).collect(),
        };
        let fits = code.len() <= 40
            && code.starts_with(|c: char| c.is_ascii_lowercase())
            && code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        fields.check(fits, "code", "must be 1 to 40 of a-z 0-9 _, beginning with a letter");
        Some(Campaign { city_id: city.id, code, name: name?, active, phones })
    }

    async fn store(&self, db: &mut Conn, _: &Context, rows: &[Ready<Campaign>]) -> Result<(), DbError> {
        let mut ids = Vec::with_capacity(rows.len());
        for Ready { item, .. } in rows {
            let (pg, telemetry) = db.parts();
            let query = sqlx::query_scalar!(
                "INSERT INTO advertising_campaigns (city_id, code, name, active) VALUES ($1, $2, $3, $4) RETURNING id",
                item.city_id,
                item.code,
                item.name,
                item.active
            );
            let id = telemetry.run(DbOperation::Import, query.fetch_one(&mut *pg)).await?;
            let query = sqlx::query!(
                "INSERT INTO campaign_numbers (campaign_id, phone_e164) SELECT $1, * FROM UNNEST($2::text[])",
                id,
                &item.phones
            );
            telemetry.run(DbOperation::Import, query.execute(pg)).await?;
            ids.push(id);
        }
        super::store::keep_keys(db, Self::KIND, rows.iter().map(|row| row.number.as_str()), &ids).await
    }
}

/// Russian letters as one writes them in a link; what has no letter becomes an underscore.
fn transliterate(name: &str) -> String {
    const LETTERS: [(&str, &str); 2] =
        [("абвгдезийклмнопрстуфыэ", "abvgdeziiklmnoprstufye"), ("жхцчшщюя", "zh kh ts ch sh sch yu ya")];
    let one = |c: char| -> String {
        if c.is_ascii_alphanumeric() {
            return c.to_string();
        }
        let at = |letters: &str| letters.chars().position(|letter| letter == c);
        if let Some(index) = at(LETTERS[0].0) {
            return LETTERS[0].1.chars().nth(index).into_iter().collect();
        }
        match at(LETTERS[1].0) {
            Some(index) => LETTERS[1].1.split(' ').nth(index).unwrap_or_default().to_owned(),
            None if matches!(c, 'ь' | 'ъ') => String::new(),
            None => "_".to_owned(),
        }
    };
    fold(name).chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_code() {
        assert_eq!(transliterate("Авито Жёлтые щётки-2"), "avito_zheltye_schetki_2");
        assert_eq!(transliterate("Объявления"), "obyavleniya");
    }
}
