//! What the audit log says about people: rights and shares with their values, all else by name.

use rust_decimal::Decimal;

use super::model::Person;
use crate::{
    audit::{AuditAction, AuditSubject, Entry},
    auth::store::NewUser,
};

/// Somebody new.
#[must_use]
pub fn created(id: i64, user: &NewUser<'_>) -> Entry {
    Entry::new(AuditAction::UserCreated, AuditSubject::Users, id)
        .with("role", user.role.as_str())
        .with("cities", user.cities)
        .with("share", plain(user.share))
}

/// Somebody who was changed, and whether their password was.
#[must_use]
pub fn changed(before: &Person, after: &Person, password: bool) -> Entry {
    Entry::new(AuditAction::UserChanged, AuditSubject::Users, before.id)
        .change("role", before.role.as_str(), after.role.as_str())
        .change("status", before.status.as_str(), after.status.as_str())
        .change("cities", before.cities.as_slice(), after.cities.as_slice())
        .change("share", plain(before.share), plain(after.share))
        .field("password", password)
        .field("passport", before.passport != after.passport)
        .field("name", before.name != after.name)
        .field("phone", before.phone != after.phone)
        .field("email", before.email != after.email)
}

/// Somebody who is gone.
#[must_use]
pub fn deleted(person: &Person) -> Entry {
    Entry::new(AuditAction::UserDeleted, AuditSubject::Users, person.id)
        .with("role", person.role.as_str())
        .with("cities", person.cities.as_slice())
}

fn plain(share: Option<Decimal>) -> Option<String> {
    share.map(|share| share.normalize().to_string())
}
