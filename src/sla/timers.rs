//! What a move does to the timers of a service request. Pure.

use super::model::Policy;
use crate::requests::state::Status::{self, Callback, Deferred, Done, New, NoAnswer, NotOrder, Offered, Refused};

/// What a move does to the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// To those that have not stopped.
    Running {
        /// This one is met.
        meets: Option<Policy>,
        /// All others are cancelled: the request ended otherwise.
        cancels: bool,
        /// All others stand still: it is the client's turn.
        pauses: bool,
    },
    /// An ended request is opened again: the promise to complete it, and those that were cancelled, are
    /// made anew.
    Restart,
}

impl Change {
    /// What a deletion does.
    pub const CANCEL: Self = Self::Running { meets: None, cancels: true, pauses: false };
}

/// What the move does; `None` is nothing.
#[must_use]
pub fn change(from: Status, to: Status) -> Option<Change> {
    if from.is_finished() {
        return Some(Change::Restart);
    }
    let meets = match (from, to) {
        (New, _) => Some(Policy::FirstResponse),
        (_, Offered) => Some(Policy::Assignment),
        (_, Done) => Some(Policy::Completion),
        _ => None,
    };
    let (cancels, pauses) = (matches!(to, Refused | NotOrder), is_the_clients_turn(to));
    let changes = meets.is_some() || cancels || pauses != is_the_clients_turn(from);
    changes.then_some(Change::Running { meets, cancels, pauses })
}

/// Whether nobody here can do anything but wait.
const fn is_the_clients_turn(status: Status) -> bool {
    matches!(status, Callback | NoAnswer | Deferred)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::state::{Status::InProgress, Status::Waiting, TABLE};

    #[test]
    fn work_that_goes_on_changes_no_timer() {
        let idle: Vec<_> = TABLE.iter().filter(|rule| change(rule.from, rule.to).is_none()).collect();
        let moves: Vec<String> =
            idle.iter().map(|rule| format!("{} {}", rule.from.as_str(), rule.to.as_str())).collect();
        let expected = [
            "callback callback",
            "callback no_answer",
            "no_answer callback",
            "no_answer no_answer",
            "offered accepted",
            "offered waiting",
            "accepted en_route",
            "accepted waiting",
            "en_route in_progress",
        ];
        assert_eq!(moves, expected);
    }

    #[test]
    fn every_other_move_does_what_it_should() {
        let running = |meets, cancels, pauses| Some(Change::Running { meets, cancels, pauses });
        let first = Some(Policy::FirstResponse);
        assert_eq!(change(New, Callback), running(first, false, true));
        assert_eq!(change(New, Refused), running(first, true, false));
        assert_eq!(change(New, Waiting), running(first, false, false));
        assert_eq!(change(NoAnswer, Waiting), running(None, false, false), "it runs again");
        assert_eq!(change(Waiting, Offered), running(Some(Policy::Assignment), false, false));
        assert_eq!(change(InProgress, Deferred), running(None, false, true));
        assert_eq!(change(Deferred, Done), running(Some(Policy::Completion), false, false));
        for rule in TABLE.iter().filter(|rule| rule.from.is_finished()) {
            assert_eq!(change(rule.from, rule.to), Some(Change::Restart));
        }
    }
}
