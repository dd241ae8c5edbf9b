//! The state machine of a service request: one pure table and the function that reads it. Nothing
//! else in the program decides whether a move is allowed.

use Need::{Address, CallbackAt, Master, MeetingAt, Reason, ResultAndExpenses, ResumeAt};
use Status::{
    Accepted, Callback, Deferred, Done, EnRoute, InProgress, New, NoAnswer, NotOrder, Offered, Refused, Waiting,
};

use crate::{auth::Role, wire_enum};

wire_enum! {
    /// Where a service request is.
    pub enum Status {
        /// Nobody has answered yet.
        New = "new",
        /// To be called back at `callback_at`.
        Callback = "callback",
        /// Called, did not pick up.
        NoAnswer = "no_answer",
        /// Was never an order: a wrong number, an advertiser.
        NotOrder = "not_order",
        /// Place and time are agreed; a master is to be found.
        Waiting = "waiting",
        /// Offered to a master.
        Offered = "offered",
        /// The master will go.
        Accepted = "accepted",
        /// The master is on the way.
        EnRoute = "en_route",
        /// The master is working.
        InProgress = "in_progress",
        /// To be continued at `resume_at`.
        Deferred = "deferred",
        /// Repaired and paid.
        Done = "done",
        /// The client or the company said no.
        Refused = "refused",
    }
}

impl Status {
    /// Whether work on it has ended: done, refused and `not_order`.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Done | Refused | NotOrder)
    }

    /// Whether a visit is agreed, so that address and meeting time must stay known.
    #[must_use]
    pub const fn has_visit(self) -> bool {
        matches!(self, Waiting | Offered | Accepted | EnRoute | InProgress | Deferred | Done)
    }
}

/// Something that must be known for a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// When to call the client back.
    CallbackAt,
    /// Where to go.
    Address,
    /// When to be there.
    MeetingAt,
    /// Who goes.
    Master,
    /// When to continue.
    ResumeAt,
    /// What the client paid and what it cost.
    ResultAndExpenses,
    /// Why an ended request is opened again.
    Reason,
}

/// One allowed move.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// From this state
    pub from: Status,
    /// to this one,
    pub to: Status,
    /// by these roles (a master only on a request that is theirs, which the caller's scope sees to),
    pub roles: &'static [Role],
    /// when these are known.
    pub needs: &'static [Need],
}

/// Everybody who talks to clients.
const INTAKE: &[Role] = &[Role::Operator, Role::Marketer, Role::Manager, Role::Director, Role::Admin];
/// Who plans.
const PLANNERS: &[Role] = &[Role::Marketer, Role::Manager, Role::Director, Role::Admin];
/// Who works, and who may act for them.
const WORKERS: &[Role] = &[Role::Master, Role::Manager, Role::Director, Role::Admin];
const MANAGERS: &[Role] = &[Role::Manager, Role::Director, Role::Admin];
const DIRECTORS: &[Role] = &[Role::Director, Role::Admin];

macro_rules! table {
    ($($from:ident => $to:ident, $roles:ident $(, needs $need:ident $(+ $more:ident)*)?;)*) => {
        /// Every allowed move. What is not here is forbidden.
        pub const TABLE: &[Rule] = &[$(Rule {
            from: $from, to: $to, roles: $roles, needs: &[$($need $(, $more)*)?],
        }),*];
    };
}

table! {
    New => Callback, INTAKE, needs CallbackAt;
    New => NoAnswer, INTAKE;
    New => NotOrder, INTAKE;
    New => Refused, INTAKE;
    New => Waiting, INTAKE, needs Address + MeetingAt;
    // Calling again, in vain or to agree on yet another time, is a move too: it is history.
    Callback => Callback, INTAKE, needs CallbackAt;
    Callback => NoAnswer, INTAKE;
    Callback => NotOrder, INTAKE;
    Callback => Refused, INTAKE;
    Callback => Waiting, INTAKE, needs Address + MeetingAt;
    NoAnswer => Callback, INTAKE, needs CallbackAt;
    NoAnswer => NoAnswer, INTAKE;
    NoAnswer => NotOrder, INTAKE;
    NoAnswer => Refused, INTAKE;
    NoAnswer => Waiting, INTAKE, needs Address + MeetingAt;
    Waiting => Offered, PLANNERS, needs Master;
    Waiting => Callback, PLANNERS, needs CallbackAt;
    Waiting => Refused, PLANNERS;
    Offered => Accepted, WORKERS;
    Offered => Waiting, WORKERS;
    Accepted => EnRoute, WORKERS;
    Accepted => Waiting, WORKERS;
    EnRoute => InProgress, WORKERS;
    EnRoute => Refused, WORKERS;
    InProgress => Done, WORKERS, needs ResultAndExpenses;
    InProgress => Deferred, WORKERS, needs ResumeAt;
    InProgress => Refused, WORKERS;
    Deferred => InProgress, WORKERS;
    Deferred => Done, WORKERS, needs ResultAndExpenses;
    Deferred => Refused, WORKERS;
    Done => InProgress, DIRECTORS, needs Reason;
    Refused => New, MANAGERS, needs Reason;
    NotOrder => New, MANAGERS, needs Reason;
}

/// Why a move is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The table has no such move.
    NotAllowed,
    /// The table has it, for other roles.
    Forbidden(&'static [Role]),
}

/// The rule for a move, if the table allows it to `role`.
///
/// # Errors
/// Which way it is refused.
pub fn decide(from: Status, to: Status, role: Role) -> Result<&'static Rule, Refusal> {
    let rule = TABLE.iter().find(|rule| rule.from == from && rule.to == to).ok_or(Refusal::NotAllowed)?;
    if rule.roles.contains(&role) { Ok(rule) } else { Err(Refusal::Forbidden(rule.roles)) }
}

/// The states that `role` may move to from here.
#[must_use]
pub fn allowed(from: Status, role: Role) -> Vec<Status> {
    TABLE.iter().filter(|rule| rule.from == from && rule.roles.contains(&role)).map(|rule| rule.to).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_move_stands_in_the_table_once() {
        let moves: BTreeSet<_> = TABLE.iter().map(|rule| (rule.from, rule.to)).collect();
        assert_eq!(moves.len(), TABLE.len());
    }

    #[test]
    fn every_state_can_be_reached_and_only_ended_ones_need_a_reason_to_leave() {
        let mut reached = BTreeSet::from([New]);
        while let Some(rule) = TABLE.iter().find(|rule| reached.contains(&rule.from) && !reached.contains(&rule.to)) {
            reached.insert(rule.to);
        }
        assert_eq!(reached.len(), Status::ALL.len());
        for rule in TABLE {
            assert_eq!(rule.from.is_finished(), rule.needs.contains(&Reason), "{:?} → {:?}", rule.from, rule.to);
        }
    }

    #[test]
    fn each_state_brings_what_it_needs() {
        for rule in TABLE {
            let expected: &[Need] = match rule.to {
                Callback => &[CallbackAt],
                Waiting if matches!(rule.from, New | Callback | NoAnswer) => &[Address, MeetingAt],
                Offered => &[Master],
                Done => &[ResultAndExpenses],
                Deferred => &[ResumeAt],
                New => &[Reason],
                InProgress if rule.from == Done => &[Reason],
                _ => &[],
            };
            assert_eq!(rule.needs, expected, "{:?} → {:?}", rule.from, rule.to);
        }
    }

    #[test]
    fn a_visit_is_agreed_with_its_place_and_time() {
        for rule in TABLE {
            // Nobody gets there without saying where and when, and once there nobody has to say it again.
            let agreeing = rule.to.has_visit() && !rule.from.has_visit();
            let asked = rule.needs.contains(&Address) && rule.needs.contains(&MeetingAt);
            assert_eq!(agreeing, asked, "{:?} → {:?}", rule.from, rule.to);
        }
    }

    #[test]
    fn who_may_do_what() {
        assert!(decide(New, Waiting, Role::Operator).is_ok());
        assert!(matches!(decide(Waiting, Offered, Role::Operator), Err(Refusal::Forbidden(_))));
        assert!(decide(Waiting, Offered, Role::Marketer).is_ok());
        assert!(matches!(decide(Offered, Accepted, Role::Marketer), Err(Refusal::Forbidden(_))));
        assert!(decide(Offered, Accepted, Role::Master).is_ok());
        assert!(matches!(decide(New, Waiting, Role::Master), Err(Refusal::Forbidden(_))));
        assert!(matches!(decide(Done, InProgress, Role::Manager), Err(Refusal::Forbidden(_))));
        assert!(decide(Done, InProgress, Role::Director).is_ok());
        assert!(matches!(decide(Refused, New, Role::Operator), Err(Refusal::Forbidden(_))));
        assert_eq!(decide(New, Done, Role::Admin).unwrap_err(), Refusal::NotAllowed);
        for role in Role::ALL {
            assert!(allowed(New, *role).iter().all(|to| decide(New, *to, *role).is_ok()));
        }
        assert_eq!(allowed(Done, Role::Operator), []);
        assert_eq!(allowed(Accepted, Role::Master), [EnRoute, Waiting]);
    }
}
