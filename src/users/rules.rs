//! Who may change what about whom, pure. That the action is the caller's at all, the policy has said;
//! here is what depends on the person it is done to.

use super::{bodies::Changes, model::Person};
use crate::{
    auth::{Caller, Role, Scope},
    error::{self, AppError},
    http::extract::FieldErrors,
};

/// How high a role stands: one appoints and changes only those below.
const fn rank(role: Role) -> u8 {
    match role {
        Role::Admin => 3,
        Role::Director => 2,
        Role::Manager => 1,
        Role::Marketer | Role::Operator | Role::Master => 0,
    }
}

/// Whether the caller may give somebody this role, or change somebody who has it.
#[must_use]
pub const fn stands_above(caller: Role, role: Role) -> bool {
    matches!(caller, Role::Admin) || rank(role) < rank(caller)
}

/// What people may change about themselves is how to reach them; with `name` for those who manage
/// others anyway. A master, whose scope is their own data, is not asked for more.
///
/// # Errors
/// 422 naming every other field.
pub fn check_own(caller: &Caller, id: i64, changes: &Changes) -> Result<(), AppError> {
    let own = caller.scope == Scope::Own;
    if !own && id != caller.principal.user_id {
        return Ok(());
    }
    let mut errors = FieldErrors::default();
    for (given, pointer) in [
        (own && changes.name.is_some(), "/name"),
        (changes.role.is_some(), "/role"),
        (changes.cities.is_some(), "/cities"),
        (changes.status.is_some(), "/status"),
        (changes.share.is_some(), "/share"),
        (changes.passport.is_some(), "/passport"),
    ] {
        errors.check(!given, pointer, "is not for oneself to change");
    }
    errors.check(changes.password.is_none(), "/password", "is changed by POST /api/v1/auth/password");
    errors.into_result()
}

/// The caller stands above the person, or is the person.
///
/// # Errors
/// 403.
pub fn check_rank(caller: &Caller, person: &Person) -> Result<(), AppError> {
    if stands_above(caller.principal.role, person.role) || person.id == caller.principal.user_id {
        return Ok(());
    }
    Err(error::FORBIDDEN.because("Only somebody of a higher role may change this user."))
}

/// What concerns all cities of a person is for those who have all of them: who could reset the password
/// of a user of two cities would have both.
///
/// # Errors
/// 409.
pub fn check_reach(caller: &Caller, person: &Person) -> Result<(), AppError> {
    if person.city_ids.iter().all(|city| caller.sees_city(*city)) {
        return Ok(());
    }
    Err(error::CONFLICT.because("This user also works in cities that are not yours; ask somebody who has them all."))
}

/// The cities that a person gets instead of theirs, from what was found for each code of the body:
/// those added and those taken away must be the caller's.
///
/// # Errors
/// 422. A city of somebody else is as unknown as one that does not exist.
pub fn check_cities(caller: &Caller, before: &[i64], found: &[Option<i64>]) -> Result<Vec<i64>, AppError> {
    let mut errors = FieldErrors::default();
    let mut after = Vec::new();
    for (index, city) in found.iter().enumerate() {
        let theirs = city.filter(|city| before.contains(city) || caller.sees_city(*city));
        errors.check(theirs.is_some(), &format!("/cities/{index}"), "is no city of yours");
        after.extend(theirs);
    }
    let kept = before.iter().all(|city| after.contains(city) || caller.sees_city(*city));
    errors.check(kept, "/cities", "must keep the cities that are not yours");
    errors.into_result()?;
    after.sort_unstable();
    after.dedup();
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Principal;

    fn caller(role: Role, scope: Scope, cities: &[i64]) -> Caller {
        let principal = Principal {
            user_id: 1,
            role,
            cities: cities.to_vec(),
            session_id: String::new(),
            address: [127, 0, 0, 1].into(),
        };
        Caller { principal, scope }
    }

    #[test]
    fn one_appoints_those_below() {
        let below = |role: Role| -> Vec<&str> {
            Role::ALL.iter().filter(|other| stands_above(role, **other)).map(|other| other.as_str()).collect()
        };
        assert_eq!(below(Role::Admin), ["admin", "director", "manager", "marketer", "operator", "master"]);
        assert_eq!(below(Role::Director), ["manager", "marketer", "operator", "master"]);
        assert_eq!(below(Role::Manager), ["marketer", "operator", "master"]);
        for role in [Role::Marketer, Role::Operator, Role::Master] {
            assert!(below(role).is_empty(), "{role:?}");
        }
    }

    #[test]
    fn nobody_gives_or_takes_a_city_that_is_not_theirs() {
        let director = caller(Role::Director, Scope::Cities, &[1, 2]);
        let check = |before: &[i64], found: &[Option<i64>]| check_cities(&director, before, found).ok();
        assert_eq!(check(&[], &[Some(2), Some(1), Some(2)]), Some(vec![1, 2]));
        assert_eq!(check(&[1, 3], &[Some(3), Some(2)]), Some(vec![2, 3]), "the foreign one stays");
        assert_eq!(check(&[1, 3], &[Some(2)]), None, "the foreign one is taken");
        assert_eq!(check(&[1], &[Some(1), Some(3)]), None, "a foreign one is given");
        assert_eq!(check(&[1], &[Some(1), None]), None, "no city");
        let admin = caller(Role::Admin, Scope::All, &[]);
        assert_eq!(check_cities(&admin, &[1, 3], &[Some(9)]).ok(), Some(vec![9]));
    }
}
