//! What the simulator itself saw succeed: the one side of the comparison.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rust_decimal::Decimal;
use tokio_util::sync::CancellationToken;

use super::plan::call::Kind;
use crate::{
    calls::facts::{CallResult, Direction},
    requests::{model::Source, state::Status},
};

/// Errors that are printed; the rest is only counted.
const SHOWN: usize = 8;
/// So many failed connections, and the server is gone.
const HOPELESS: u32 = 25;

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Counts {
    pub signed_in: u32,
    pub refreshed: u32,
    pub calls_by_kind: BTreeMap<Kind, u32>,
    /// Deliveries of an event for the first time.
    pub accepted: u32,
    pub duplicates: u32,
    pub rejected: u32,
    /// Of those accepted: events that change nothing.
    pub ignored: u32,
    pub calls: BTreeMap<(CallResult, Direction), u32>,
    pub joined: u32,
    pub unknown_line: u32,
    pub unknown_caller: u32,
    pub created: BTreeMap<Source, u32>,
    pub moves: BTreeMap<(Status, Status), u32>,
    pub first_responses: u32,
    pub first_offers: u32,
    pub completions: u32,
    pub revenue: Decimal,
    pub bookings: u32,
    pub refunds: Decimal,
    pub reversals: u32,
    pub edits: u32,
    pub comments: u32,
    /// Call and service request of each link that was made.
    pub links: Vec<(i64, i64)>,
    /// Moves that were refused because somebody was quicker: 412 and 409.
    pub stale_moves: u32,
    pub impossible_moves: u32,
    /// Refused for the same reason, but no moves.
    pub other_conflicts: u32,
    /// HTTP requests that were not answered, or with "not now", and sent again.
    pub sent_again: u32,
    pub api: Vec<Duration>,
    pub webhooks: Vec<Duration>,
    pub errors: u32,
    pub first_errors: Vec<String>,
    disconnections: u32,
}

/// The counts, shared by all actors.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// Set when there is no point in going on.
    pub hopeless: CancellationToken,
}

impl Tally {
    /// The counts, to be read or raised; never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something that should not have happened.
    pub fn error(&self, what: impl Into<String>) {
        let mut counts = self.lock();
        counts.errors += 1;
        if counts.first_errors.len() < SHOWN {
            counts.first_errors.push(what.into());
        }
    }

    /// Counts an HTTP request that got no answer.
    pub fn disconnected(&self, what: impl Into<String>) {
        self.error(what);
        let mut counts = self.lock();
        counts.disconnections += 1;
        if counts.disconnections >= HOPELESS {
            self.hopeless.cancel();
        }
    }
}

impl Counts {
    /// Counts one more under a key.
    pub fn add<K: Ord>(map: &mut BTreeMap<K, u32>, key: K) {
        *map.entry(key).or_default() += 1;
    }
}
