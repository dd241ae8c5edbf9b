//! What the API gives for people; what it takes is in [`super::bodies`].

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::passport::Passport;
use crate::{
    auth::Role,
    http::extract::{FieldErrors, Validate},
    wire_enum,
};

wire_enum! {
    /// Whether a user may sign in and be given work.
    pub enum UserStatus {
        /// May.
        Active = "active",
        /// May not.
        Disabled = "disabled",
    }
}

wire_enum! {
    /// What an employee is.
    pub enum EmployeeRole {
        /// Runs the company in some cities.
        Director = "director",
        /// Assigns masters and watches the work.
        Manager = "manager",
        /// Runs advertising.
        Marketer = "marketer",
        /// Takes calls.
        Operator = "operator",
    }
}

impl From<EmployeeRole> for Role {
    fn from(role: EmployeeRole) -> Self {
        match role {
            EmployeeRole::Director => Self::Director,
            EmployeeRole::Manager => Self::Manager,
            EmployeeRole::Marketer => Self::Marketer,
            EmployeeRole::Operator => Self::Operator,
        }
    }
}

/// Which people an endpoint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Master,
    Employee,
    Administrator,
}

impl Kind {
    /// Their roles, as the database spells them.
    #[must_use]
    pub fn roles(self) -> Vec<String> {
        let roles: &[Role] = match self {
            Self::Master => &[Role::Master],
            Self::Employee => &[Role::Director, Role::Manager, Role::Marketer, Role::Operator],
            Self::Administrator => &[Role::Admin],
        };
        roles.iter().map(|role| role.as_str().to_owned()).collect()
    }

    /// Where they are.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Master => "/api/v1/users/masters",
            Self::Employee => "/api/v1/users/employees",
            Self::Administrator => "/api/v1/users/administrators",
        }
    }
}

/// A user, all of it. Never sent as it is.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: i64,
    pub version: i32,
    pub login: String,
    pub name: String,
    pub phone: Option<String>,
    pub email: Option<String>,
    pub role: Role,
    pub status: UserStatus,
    pub created_at: DateTime<Utc>,
    /// Codes, in the order of the alphabet.
    pub cities: Vec<String>,
    pub city_ids: Vec<i64>,
    /// Of masters.
    pub share: Option<Decimal>,
    /// Of masters; sealed.
    pub passport: Option<String>,
}

/// A master. Those who only look for somebody to send see name, cities, status and phone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Master {
    /// User id.
    #[schema(example = 12)]
    pub id: i64,
    /// Raised by every change; the ETag.
    #[schema(example = 3)]
    pub version: i32,
    /// For display.
    #[schema(example = "Ivan Petrov")]
    pub name: String,
    /// E.164.
    #[schema(example = "+79130000001")]
    pub phone: Option<String>,
    /// Codes of their cities.
    #[schema(example = json!(["novosibirsk"]))]
    pub cities: Vec<String>,
    /// Whether they may sign in and be given work.
    pub status: UserStatus,
    /// What only those who manage masters see, and the master.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = MasterDetails)]
    pub details: Option<MasterDetails>,
}

/// The rest of a master: all of it, or nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MasterDetails {
    /// What they sign in with.
    #[schema(required = false, example = "ivan")]
    pub login: String,
    /// Where to write.
    #[schema(example = "ivan@example.com")]
    pub email: Option<String>,
    /// The part of a net that they hand over, 0 to 1.
    #[schema(required = false, value_type = String, example = "0.5")]
    pub share: Decimal,
    /// When they were created.
    #[schema(required = false)]
    pub created_at: DateTime<Utc>,
    /// Whether a passport is stored.
    #[schema(required = false)]
    pub has_passport: bool,
    /// Only for those who manage masters, only when one master is read, and only if it can be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passport: Option<Passport>,
}

impl Master {
    /// What somebody sees who may see the details, or may not.
    #[must_use]
    pub fn new(person: Person, detailed: bool) -> Self {
        let details = detailed.then(|| MasterDetails {
            login: person.login,
            email: person.email,
            share: person.share.unwrap_or_default().normalize(),
            created_at: person.created_at,
            has_passport: person.passport.is_some(),
            passport: None,
        });
        let Person { id, version, name, phone, cities, status, .. } = person;
        Self { id, version, name, phone, cities, status, details }
    }
}

/// An employee.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Employee {
    /// User id.
    #[schema(example = 7)]
    pub id: i64,
    /// Raised by every change; the ETag.
    #[schema(example = 3)]
    pub version: i32,
    /// What they sign in with.
    #[schema(example = "olga")]
    pub login: String,
    /// For display.
    #[schema(example = "Olga Ivanova")]
    pub name: String,
    /// E.164.
    #[schema(example = "+79130000002")]
    pub phone: Option<String>,
    /// Where to write.
    #[schema(example = "olga@example.com")]
    pub email: Option<String>,
    /// What they are.
    pub role: Role,
    /// Codes of their cities.
    #[schema(example = json!(["novosibirsk"]))]
    pub cities: Vec<String>,
    /// Whether they may sign in.
    pub status: UserStatus,
    /// When they were created.
    pub created_at: DateTime<Utc>,
}

impl From<Person> for Employee {
    fn from(person: Person) -> Self {
        let Person { id, version, login, name, phone, email, role, cities, status, created_at, .. } = person;
        Self { id, version, login, name, phone, email, role, cities, status, created_at }
    }
}

/// An administrator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Administrator {
    /// User id.
    #[schema(example = 1)]
    pub id: i64,
    /// Raised by every change; the ETag.
    #[schema(example = 1)]
    pub version: i32,
    /// What they sign in with.
    #[schema(example = "root")]
    pub login: String,
    /// For display.
    #[schema(example = "Anna Orlova")]
    pub name: String,
    /// E.164.
    #[schema(example = "+79130000003")]
    pub phone: Option<String>,
    /// Where to write.
    #[schema(example = "anna@example.com")]
    pub email: Option<String>,
    /// Whether they may sign in.
    pub status: UserStatus,
    /// When they were created.
    pub created_at: DateTime<Utc>,
}

impl From<Person> for Administrator {
    fn from(person: Person) -> Self {
        let Person { id, version, login, name, phone, email, status, created_at, .. } = person;
        Self { id, version, login, name, phone, email, status, created_at }
    }
}

/// Filters of the lists.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Code of a city.
    #[param(example = "novosibirsk")]
    pub city: Option<String>,
    /// Whether they may sign in.
    pub status: Option<UserStatus>,
    /// Part of the name, the phone or, for those who see it, the login.
    pub text: Option<String>,
    /// From the previous page.
    pub cursor: Option<String>,
    /// 1 to 200, 50 unless given.
    pub limit: Option<i64>,
}

impl Validate for ListParams {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.city.as_deref(), 1..=40, "city");
        errors.optional_text(self.text.as_deref(), 1..=100, "text");
    }
}
