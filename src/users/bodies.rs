//! What the API takes for people. Each kind has its own bodies, so that a field which means nothing
//! for it is unknown to it; behind them are [`Newcomer`] and [`Changes`], which have all.

use rust_decimal::Decimal;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    model::{EmployeeRole, UserStatus},
    passport::Passport,
};
use crate::{
    auth::Role,
    config::Secret,
    http::extract::{discreet, present},
};

/// A master to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"login": "ivan", "name": "Ivan Petrov", "phone": "8 913 000-00-01", "cities": ["novosibirsk"],
    "share": "0.5", "password": "a long sentence is best"}))]
pub struct NewMaster {
    /// 2 to 64 of a-z, 0-9, dot, dash, underscore; never changes and is never given again.
    pub login: String,
    /// For display.
    pub name: String,
    /// In any usual form.
    #[serde(default)]
    pub phone: Option<String>,
    /// Where to write.
    #[serde(default)]
    pub email: Option<String>,
    /// Codes of their cities.
    pub cities: Vec<String>,
    /// The part of a net that they hand over, 0 to 1.
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String, example = "0.5")]
    pub share: Decimal,
    /// Kept encrypted.
    #[serde(default)]
    pub passport: Option<Passport>,
    /// 8 to 128 characters.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    pub password: Secret,
}

/// An employee to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"login": "olga", "name": "Olga Ivanova", "role": "operator", "cities": ["novosibirsk"],
    "password": "a long sentence is best"}))]
pub struct NewEmployee {
    /// 2 to 64 of a-z, 0-9, dot, dash, underscore; never changes and is never given again.
    pub login: String,
    /// For display.
    pub name: String,
    /// In any usual form.
    #[serde(default)]
    pub phone: Option<String>,
    /// Where to write.
    #[serde(default)]
    pub email: Option<String>,
    /// Below the caller's own.
    pub role: EmployeeRole,
    /// Codes of their cities.
    pub cities: Vec<String>,
    /// 8 to 128 characters.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    pub password: Secret,
}

/// An administrator to be created.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"login": "anna", "name": "Anna Orlova", "password": "a long sentence is best"}))]
pub struct NewAdministrator {
    /// 2 to 64 of a-z, 0-9, dot, dash, underscore; never changes and is never given again.
    pub login: String,
    /// For display.
    pub name: String,
    /// In any usual form.
    #[serde(default)]
    pub phone: Option<String>,
    /// Where to write.
    #[serde(default)]
    pub email: Option<String>,
    /// 8 to 128 characters.
    #[serde(deserialize_with = "discreet")]
    #[schema(value_type = String)]
    pub password: Secret,
}

/// Somebody to be created, of any kind.
#[derive(Clone, Debug)]
pub struct Newcomer {
    pub login: String,
    pub name: String,
    pub phone: Option<String>,
    pub email: Option<String>,
    pub role: Role,
    pub cities: Vec<String>,
    pub share: Option<Decimal>,
    pub passport: Option<Passport>,
    pub password: Secret,
}

impl From<NewMaster> for Newcomer {
    fn from(body: NewMaster) -> Self {
        let NewMaster { login, name, phone, email, cities, share, passport, password } = body;
        Self { login, name, phone, email, role: Role::Master, cities, share: Some(share), passport, password }
    }
}

impl From<NewEmployee> for Newcomer {
    fn from(body: NewEmployee) -> Self {
        let NewEmployee { login, name, phone, email, role, cities, password } = body;
        Self { login, name, phone, email, role: role.into(), cities, share: None, passport: None, password }
    }
}

impl From<NewAdministrator> for Newcomer {
    fn from(body: NewAdministrator) -> Self {
        let NewAdministrator { login, name, phone, email, password } = body;
        let (role, cities) = (Role::Admin, Vec::new());
        Self { login, name, phone, email, role, cities, share: None, passport: None, password }
    }
}

/// Changes to a master. A missing field stays; null clears where there may be nothing. Masters change
/// their own phone and email, and nothing else.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"phone": "8 913 000-00-09", "email": "ivan@example.com"}))]
pub struct PatchMaster {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// In any usual form.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub phone: Option<Option<String>>,
    /// Where to write.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// Codes of all their cities, instead of those they have.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub cities: Option<Vec<String>>,
    /// Disabling ends their sessions; not while they hold service requests.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub status: Option<UserStatus>,
    /// The part of a net that they hand over, 0 to 1.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, nullable = false, example = "0.5")]
    pub share: Option<Decimal>,
    /// Kept encrypted.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Passport>)]
    pub passport: Option<Option<Passport>>,
    /// 8 to 128 characters; ends their sessions.
    #[serde(default, deserialize_with = "discreet_present")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub password: Option<Secret>,
}

/// Changes to an employee. A missing field stays; null clears where there may be nothing.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Olga Petrova", "phone": "8 913 000-00-08"}))]
pub struct PatchEmployee {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// In any usual form.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub phone: Option<Option<String>>,
    /// Where to write.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// Below the caller's own; ends their sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub role: Option<EmployeeRole>,
    /// Codes of all their cities, instead of those they have; ends their sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub cities: Option<Vec<String>>,
    /// Disabling ends their sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub status: Option<UserStatus>,
    /// 8 to 128 characters; ends their sessions.
    #[serde(default, deserialize_with = "discreet_present")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub password: Option<Secret>,
}

/// Changes to an administrator. A missing field stays; null clears where there may be nothing.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Anna Petrova"}))]
pub struct PatchAdministrator {
    /// For display.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// In any usual form.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub phone: Option<Option<String>>,
    /// Where to write.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
    /// Disabling ends their sessions; not the last one.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub status: Option<UserStatus>,
    /// 8 to 128 characters; ends their sessions.
    #[serde(default, deserialize_with = "discreet_present")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub password: Option<Secret>,
}

fn discreet_present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    discreet(deserializer).map(Some)
}

/// Changes to somebody, of any kind.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub name: Option<String>,
    pub phone: Option<Option<String>>,
    pub email: Option<Option<String>>,
    pub role: Option<Role>,
    pub cities: Option<Vec<String>>,
    pub status: Option<UserStatus>,
    pub share: Option<Decimal>,
    pub passport: Option<Option<Passport>>,
    pub password: Option<Secret>,
}

impl From<PatchMaster> for Changes {
    fn from(body: PatchMaster) -> Self {
        let PatchMaster { name, phone, email, cities, status, share, passport, password } = body;
        Self { name, phone, email, role: None, cities, status, share, passport, password }
    }
}

impl From<PatchEmployee> for Changes {
    fn from(body: PatchEmployee) -> Self {
        let PatchEmployee { name, phone, email, role, cities, status, password } = body;
        let role = role.map(Role::from);
        Self { name, phone, email, role, cities, status, password, ..Self::default() }
    }
}

impl From<PatchAdministrator> for Changes {
    fn from(body: PatchAdministrator) -> Self {
        let PatchAdministrator { name, phone, email, status, password } = body;
        Self { name, phone, email, status, password, ..Self::default() }
    }
}
