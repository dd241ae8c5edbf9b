//! What the rows of a file refer to: cities, dictionaries, campaigns and masters, read once.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;

use super::{fields::Fields, table::fold};
use crate::{
    db::{Conn, DbError, DbOperation},
    dictionaries::{
        self,
        model::{Campaign, City, Item},
    },
};

/// Everything that rows are checked against.
#[derive(Debug)]
pub(super) struct Context {
    pub now: DateTime<Utc>,
    /// Of phone numbers without a country code.
    pub region: String,
    /// For accounts that nobody can sign in to yet.
    pub no_password: String,
    cities: Vec<(City, Tz)>,
    request_types: Vec<Item>,
    directions: Vec<Item>,
    campaigns: Vec<Campaign>,
    masters: Vec<Master>,
    /// By number of the old system, login and name; several may share a name.
    masters_by_name: HashMap<String, Vec<usize>>,
}

/// A master, working here or not any more.
#[derive(Clone, Debug)]
pub(super) struct Master {
    pub id: i64,
    pub login: String,
    pub name: String,
    /// The part of a net that is handed over.
    pub share: Decimal,
    /// In the old system.
    pub numbers: Vec<String>,
}

impl Context {
    /// Reads it.
    ///
    /// # Errors
    /// As the database.
    pub async fn load(db: &mut Conn, region: &str, no_password: String, now: DateTime<Utc>) -> Result<Self, DbError> {
        let known = dictionaries::store::load(db).await?;
        let (pg, telemetry) = db.parts();
        let query = sqlx::query_as!(
            Master,
            r#"SELECT u.id, u.login, u.name, p.share,
                      ARRAY(SELECT external_id FROM imported_keys k WHERE k.kind = 'masters' AND k.id = u.id) AS "numbers!"
                 FROM users u JOIN master_profiles p ON p.user_id = u.id ORDER BY u.id"#
        );
        let masters = telemetry.run(DbOperation::Import, query.fetch_all(pg)).await?;
        let mut masters_by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, master) in masters.iter().enumerate() {
            for name in master.numbers.iter().chain([&master.login, &master.name]) {
                let same = masters_by_name.entry(fold(name)).or_default();
                if !same.contains(&index) {
                    same.push(index);
                }
            }
        }
        // A zone that the database took is one that chrono knows.
        let cities = known.cities.into_iter().map(|city| (city.timezone.parse().unwrap_or(Tz::UTC), city));
        Ok(Self {
            now,
            region: region.to_owned(),
            no_password,
            cities: cities.map(|(zone, city)| (city, zone)).collect(),
            request_types: known.request_types,
            directions: known.directions,
            campaigns: known.campaigns,
            masters,
            masters_by_name,
        })
    }

    /// The city by its code or one of its names.
    pub fn city_named(&self, name: &str) -> Option<&(City, Tz)> {
        let wanted = fold(name);
        let is_it = |city: &City| [&city.code, &city.name_ru, &city.name_en].iter().any(|known| fold(known) == wanted);
        self.cities.iter().find(|(city, _)| is_it(city))
    }

    /// The city in a column that must have one.
    pub fn city(&self, fields: &mut Fields<'_>) -> Option<&(City, Tz)> {
        let found = self.city_named(fields.required("city")?);
        if found.is_none() {
            let known: Vec<&str> = self.cities.iter().map(|(city, _)| city.name_ru.as_str()).collect();
            fields.problem("city", &format!("there is no such city; known: {}", known.join(", ")));
        }
        found
    }

    /// The code of the request type.
    pub fn request_type(&self, fields: &mut Fields<'_>) -> Option<String> {
        fields.required("type")?;
        item(&self.request_types, fields, "type")
    }

    /// The code of the field of work.
    pub fn direction(&self, fields: &mut Fields<'_>) -> Option<String> {
        item(&self.directions, fields, "direction")
    }

    /// The campaign, by its code or by its name in the city.
    pub fn campaign(&self, fields: &mut Fields<'_>, city: &City) -> Option<i64> {
        let wanted = fold(fields.get("campaign")?);
        let of_city = self.campaigns.iter().filter(|campaign| campaign.city_id == city.id);
        let mut found = of_city.filter(|campaign| fold(&campaign.code) == wanted || fold(&campaign.name) == wanted);
        let first = found.next();
        match (first, found.next()) {
            (Some(campaign), None) => Some(campaign.id),
            (Some(_), Some(_)) => {
                fields.problem("campaign", "two campaigns of the city have this name; write the code");
                None
            }
            (None, _) => {
                fields.problem("campaign", "the city has no such campaign; import campaigns first");
                None
            }
        }
    }

    /// The master, by the old system's number, login or name.
    pub fn master(&self, fields: &mut Fields<'_>) -> Option<&Master> {
        match self.masters_by_name.get(&fold(fields.get("master")?)).map(Vec::as_slice) {
            Some([index]) => self.masters.get(*index),
            Some(_) => {
                fields.problem("master", "several masters have this name; write the login");
                None
            }
            None => {
                fields.problem("master", "there is no such master; import masters first");
                None
            }
        }
    }
}

fn item(items: &[Item], fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    let wanted = fold(fields.get(name)?);
    let is_it = |item: &&Item| [&item.code, &item.name_ru, &item.name_en].iter().any(|known| fold(known) == wanted);
    let found = items.iter().find(is_it);
    if found.is_none() {
        let known: Vec<&str> = items.iter().map(|item| item.name_ru.as_str()).collect();
        fields.problem(name, &format!("is none of {}", known.join(", ")));
    }
    found.map(|item| item.code.clone())
}
