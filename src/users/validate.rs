//! What the fields of people's bodies must satisfy.

use rust_decimal::Decimal;

use super::bodies::{
    Changes, NewAdministrator, NewEmployee, NewMaster, PatchAdministrator, PatchEmployee, PatchMaster,
};
use crate::{
    auth::passwords,
    config::Secret,
    http::extract::{FieldErrors, Validate},
};

impl Validate for NewMaster {
    fn validate(&self, errors: &mut FieldErrors) {
        newcomer(errors, &self.login, &self.name, &self.password);
        contact(errors, self.phone.as_deref(), self.email.as_deref());
        cities(errors, &self.cities);
        share(errors, self.share);
        if let Some(passport) = &self.passport {
            passport.validate(errors);
        }
    }
}

impl Validate for NewEmployee {
    fn validate(&self, errors: &mut FieldErrors) {
        newcomer(errors, &self.login, &self.name, &self.password);
        contact(errors, self.phone.as_deref(), self.email.as_deref());
        cities(errors, &self.cities);
    }
}

impl Validate for NewAdministrator {
    fn validate(&self, errors: &mut FieldErrors) {
        newcomer(errors, &self.login, &self.name, &self.password);
        contact(errors, self.phone.as_deref(), self.email.as_deref());
    }
}

macro_rules! validate_patch {
    ($($body:ty),*) => {$(
        impl Validate for $body {
            fn validate(&self, errors: &mut FieldErrors) {
                Changes::from(self.clone()).validate(errors);
            }
        }
    )*};
}

validate_patch!(PatchMaster, PatchEmployee, PatchAdministrator);

impl Changes {
    fn validate(&self, errors: &mut FieldErrors) {
        errors.optional_text(self.name.as_deref(), 1..=100, "/name");
        contact(errors, self.phone.as_ref().and_then(Option::as_deref), self.email.as_ref().and_then(Option::as_deref));
        if let Some(codes) = &self.cities {
            cities(errors, codes);
        }
        if let Some(part) = self.share {
            share(errors, part);
        }
        if let Some(Some(passport)) = &self.passport {
            passport.validate(errors);
        }
        if let Some(password) = &self.password {
            new_password(errors, password);
        }
    }
}

fn newcomer(errors: &mut FieldErrors, login: &str, name: &str, password: &Secret) {
    let known = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    let valid = (2..=64).contains(&login.len())
        && login.chars().all(known)
        && login.starts_with(|first: char| first.is_ascii_alphanumeric());
    errors.check(valid, "/login", "must be 2 to 64 of a-z 0-9 . _ - and begin with a letter or a digit");
    errors.text(name, 1..=100, "/name");
    new_password(errors, password);
}

fn new_password(errors: &mut FieldErrors, password: &Secret) {
    if let Some(objection) = passwords::objection(password.expose()) {
        errors.check(false, "/password", objection);
    }
}

fn contact(errors: &mut FieldErrors, phone: Option<&str>, email: Option<&str>) {
    errors.optional_text(phone, 1..=40, "/phone");
    errors.check(email.is_none_or(is_email), "/email", "is no e-mail address");
}

/// Whether something can be an address: in ASCII, with a name and a host.
#[must_use]
pub fn is_email(text: &str) -> bool {
    text.len() <= 254
        && text.chars().all(|character| character.is_ascii_graphic())
        && text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

fn cities(errors: &mut FieldErrors, codes: &[String]) {
    errors.check((1..=100).contains(&codes.len()), "/cities", "must name 1 to 100 cities");
    for (index, code) in codes.iter().enumerate().take(100) {
        errors.text(code, 1..=40, &format!("/cities/{index}"));
    }
}

fn share(errors: &mut FieldErrors, share: Decimal) {
    errors.check((Decimal::ZERO..=Decimal::ONE).contains(&share), "/share", "must be between 0 and 1");
    errors.check(share.normalize().scale() <= 4, "/share", "must have at most four decimals");
}
