//! The policy matrix, pure: which role may take which action on whose data. Everything that is not
//! listed is denied. The types that handlers take ([`super::caller`]) are its only users.

use crate::wire_enum;

wire_enum! {
    /// What a user is in the company.
    pub enum Role {
        /// Runs the installation; sees all cities.
        Admin = "admin",
        /// Runs the company in some cities.
        Director = "director",
        /// Assigns masters and watches the work.
        Manager = "manager",
        /// Runs advertising.
        Marketer = "marketer",
        /// Takes calls.
        Operator = "operator",
        /// Goes and repairs.
        Master = "master",
    }
}

/// Something a caller may or may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read service requests and their history.
    ReadRequests,
    /// Create service requests and edit what a client said.
    EditIntake,
    /// Move a service request; which moves, the state machine says.
    MoveRequests,
    /// Offer a service request to a master.
    AssignMaster,
    /// Delete a service request.
    DeleteRequests,
    /// Write a comment.
    Comment,
    /// Read calls and triage, and link a call to a service request.
    Calls,
    /// Read dictionaries and who one is.
    ReadDictionaries,
}

impl Action {
    /// Every action, for tests that walk the matrix.
    pub const ALL: &'static [Self] = &[
        Self::ReadRequests,
        Self::EditIntake,
        Self::MoveRequests,
        Self::AssignMaster,
        Self::DeleteRequests,
        Self::Comment,
        Self::Calls,
        Self::ReadDictionaries,
    ];
}

/// On whose data an action may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// That of the user's cities.
    Cities,
    /// Service requests assigned to the user.
    Own,
}

/// The matrix. `None` is "may not".
#[must_use]
pub const fn scope(role: Role, action: Action) -> Option<Scope> {
    use Action::{
        AssignMaster, Calls, Comment, DeleteRequests, EditIntake, MoveRequests, ReadDictionaries, ReadRequests,
    };
    use Role::{Admin, Director, Manager, Marketer, Master, Operator};
    match (role, action) {
        (Admin, _) => Some(Scope::All),
        (
            Director | Manager | Marketer | Operator,
            ReadRequests | EditIntake | MoveRequests | Comment | Calls | ReadDictionaries,
        )
        | (Director | Manager | Marketer, AssignMaster) => Some(Scope::Cities),
        (Master, ReadRequests | MoveRequests | Comment | ReadDictionaries) => Some(Scope::Own),
        (Operator, AssignMaster) | (Master, EditIntake | AssignMaster | Calls) | (_, DeleteRequests) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix once more, written the other way round: a row a role, a letter an action, in the
    /// order of [`Action::ALL`] (A all, C own cities, O own, – none).
    #[test]
    fn the_matrix_is_the_one_we_promise() {
        let promised = [
            (Role::Admin, "AAAAAAAA"),
            (Role::Director, "CCCC-CCC"),
            (Role::Manager, "CCCC-CCC"),
            (Role::Marketer, "CCCC-CCC"),
            (Role::Operator, "CCC--CCC"),
            (Role::Master, "O-O--O-O"),
        ];
        for (role, row) in promised {
            let actual: String = Action::ALL
                .iter()
                .map(|action| match scope(role, *action) {
                    Some(Scope::All) => 'A',
                    Some(Scope::Cities) => 'C',
                    Some(Scope::Own) => 'O',
                    None => '-',
                })
                .collect();
            assert_eq!(actual, row, "{role:?}");
        }
    }
}
