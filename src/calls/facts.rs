//! What the events of one call amount to.
//!
//! [`fold`] is a pure function of the *set* of events: deliveries are repeated and out of order,
//! so facts are recomputed from everything known each time something new arrives, and two workers
//! that saw the same events agree. How events are received and stored, who the caller is and what
//! the business does about a call belong elsewhere.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

pub use super::providers::Direction;
use super::providers::{CallEvent, LegEvent, LegState, Location, Summary};
use crate::wire_enum;

wire_enum! {
    /// How a finished call ended.
    pub enum CallResult {
        /// Somebody answered.
        Answered = "answered",
        /// Nobody did.
        Missed = "missed",
    }
}

/// Everything known about a call. Numbers are as the provider wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFacts {
    pub direction: Direction,
    /// The number of the caller.
    pub from: Option<String>,
    /// Our number the call came to or went out from.
    pub line: Option<String>,
    /// The number of the called side.
    pub to: Option<String>,
    /// The employee on our side: who answered or, for a missed call, who missed it first. For an
    /// outgoing call, who dialled.
    pub operator_extension: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub answered_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// From the answer to the end; `None` while the conversation lasts or when there was none.
    pub talk_seconds: Option<i64>,
    /// How long the caller waited for an answer: from the start to the answer or, for a missed
    /// call, to the end, when they gave up. `None` while they still wait.
    pub wait_seconds: Option<i64>,
    /// `None` until the provider has summed the call up: only then is it known to be over.
    pub result: Option<CallResult>,
    /// The provider's code for why the call ended.
    pub cause: Option<i64>,
}

/// Derives the facts from the events of one call, in any order and with any repetition.
///
/// The summary is the provider's final word: legs only fill in what it leaves open. Without one
/// the facts are provisional, and an end in particular may be revised when another leg appears.
#[must_use]
pub fn fold(events: &[CallEvent]) -> CallFacts {
    let legs = Legs::of(events);
    let summary = latest_summary(events);
    let answering = legs.answering();
    let closing = legs.closing();

    let result = summary.map(|summary| if summary.answered { CallResult::Answered } else { CallResult::Missed });
    let direction = summary
        .map(|summary| summary.direction)
        .filter(|&direction| direction != Direction::Unknown)
        .unwrap_or_else(|| legs.direction());

    let started_at = summary.and_then(|summary| summary.created_at).or_else(|| legs.started_at());
    let answered_at = match result {
        // A leg may have been connected for all that, to a voice mailbox for instance.
        Some(CallResult::Missed) => None,
        _ => summary.and_then(|summary| summary.talk_at).or(answering.map(|leg| leg.at)),
    };
    let ended_at = summary.and_then(|summary| summary.ended_at).or(closing.map(|event| event.at));
    let waited_until = match result {
        Some(CallResult::Missed) => ended_at,
        _ => answered_at,
    };

    CallFacts {
        direction,
        from: summary
            .and_then(|summary| summary.from.number.clone())
            .or_else(|| legs.first(|leg| leg.from.number.clone())),
        line: summary.and_then(|summary| summary.line.clone()).or_else(|| legs.first(|leg| leg.line.clone())),
        to: summary
            .and_then(|summary| summary.to.number.clone())
            .or_else(|| answering.and_then(|leg| leg.to.number.clone()))
            .or_else(|| legs.first(|leg| leg.to.number.clone())),
        operator_extension: operator_extension(direction, &legs, summary),
        started_at,
        answered_at,
        ended_at,
        talk_seconds: seconds_between(answered_at, ended_at),
        wait_seconds: seconds_between(started_at, waited_until),
        result,
        cause: summary
            .and_then(|summary| summary.disconnect_reason)
            .or(closing.and_then(|event| event.disconnect_reason)),
    }
}

/// The answering leg goes before the summary, which may name the group that was called instead.
fn operator_extension(direction: Direction, legs: &Legs<'_>, summary: Option<&Summary>) -> Option<String> {
    if direction == Direction::Outgoing {
        // The called side is a customer; ours is the caller.
        return summary
            .and_then(|summary| summary.from.extension.clone())
            .or_else(|| legs.first(|leg| leg.from.extension.clone()));
    }
    legs.answering()
        .and_then(|leg| leg.to.extension.clone())
        .or_else(|| summary.and_then(|summary| summary.to.extension.clone()))
}

/// A call has one summary. Should corrections ever come, the one that ends last is the latest.
fn latest_summary(events: &[CallEvent]) -> Option<&Summary> {
    events
        .iter()
        .filter_map(|event| match event {
            CallEvent::Summary(summary) => Some(summary),
            _ => None,
        })
        .max_by_key(|summary| (summary.ended_at, *summary))
}

/// The provider stamps events on several machines whose clocks may disagree; a span that comes out
/// negative was too short to measure.
fn seconds_between(from: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Option<i64> {
    Some((until? - from?).num_seconds().max(0))
}

/// The leg events in the order they happened, each once.
///
/// That is by time: a sequence number counts within its leg, so it only decides between events of
/// the same second. The rest of the key makes the order total, which is what makes [`fold`]
/// independent of the order of delivery.
struct Legs<'a>(Vec<&'a LegEvent>);

impl<'a> Legs<'a> {
    fn of(events: &'a [CallEvent]) -> Self {
        let mut legs: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                CallEvent::Leg(leg) => Some(leg),
                _ => None,
            })
            .collect();
        legs.sort_unstable_by_key(|&leg| (leg.at, leg.seq, leg));
        legs.dedup();
        Self(legs)
    }

    fn first<T>(&self, read: impl FnMut(&&'a LegEvent) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(read)
    }

    /// The event by which a person picked up. Connecting to a menu or a queue is no answer.
    fn answering(&self) -> Option<&'a LegEvent> {
        let mut legs = self.0.iter().copied();
        legs.find(|leg| leg.state == LegState::Connected && leg.location == Location::Abonent)
    }

    fn started_at(&self) -> Option<DateTime<Utc>> {
        self.first(|leg| (leg.state == LegState::Appeared).then_some(leg.at))
    }

    /// The event that ended the call: the last hang-up, provided that every leg had one. An
    /// operator who does not pick up ends their leg while the call rings on with the next.
    fn closing(&self) -> Option<&'a LegEvent> {
        let events = self.0.iter().copied();
        let mut hang_ups = events.filter(|event| event.state == LegState::Disconnected);
        let over: BTreeSet<_> = hang_ups.clone().map(|event| &event.leg).collect();
        let all_over = self.0.iter().all(|event| over.contains(&event.leg));
        hang_ups.next_back().filter(|_| all_over)
    }

    /// Incoming goes first: a call from outside has an internal look once it is transferred.
    fn direction(&self) -> Direction {
        let seen: Vec<_> = self.0.iter().map(|leg| leg_direction(leg)).collect();
        [Direction::Incoming, Direction::Outgoing, Direction::Internal]
            .into_iter()
            .find(|direction| seen.contains(direction))
            .unwrap_or(Direction::Unknown)
    }
}

/// An extension marks an end as one of ours; a line is what the outside world dials.
fn leg_direction(leg: &LegEvent) -> Direction {
    match (&leg.from.extension, &leg.to.extension, &leg.line) {
        (None, _, Some(_)) => Direction::Incoming,
        (Some(_), None, _) => Direction::Outgoing,
        (Some(_), Some(_), _) => Direction::Internal,
        (None, _, None) => Direction::Unknown,
    }
}
