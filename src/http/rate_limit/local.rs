//! Buckets in this process, for as many addresses as there may be, in memory that never grows.
//!
//! Each bucket lies in one cell of each of four tables, drawn by keyed hashes, and what holds is the
//! fullest of the four; strangers share a cell here and there, hardly ever all four. So a bucket may be
//! emptier than it should be when very many are in use, and never fuller: nothing is evicted, and no flood
//! of fresh addresses gives anybody their actions back. (A count-min sketch with conservative update.)

use std::{
    array,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::quota::{Quota, Verdict};

const TABLES: usize = 4;
/// Half a mebibyte for all four.
const CELLS: usize = 1 << 14;

/// The buckets of one limit.
pub struct Local {
    quota: Quota,
    started: Instant,
    /// Unlike for each process, so that nobody can look for addresses that share cells.
    hashers: [RandomState; TABLES],
    /// When each is full again, in microseconds since `started`.
    full_at: Mutex<Vec<u64>>,
    /// Until when any of them may be emptier than the one that replicas share.
    ahead_until: AtomicU64,
}

type Cells = [usize; TABLES];

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl Local {
    /// Buckets that are all full.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            started: Instant::now(),
            hashers: array::from_fn(|_| RandomState::new()),
            full_at: Mutex::new(vec![0; TABLES * CELLS]),
            ahead_until: AtomicU64::new(0),
        }
    }

    /// What each of them grants.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Takes one action from a bucket.
    pub fn take(&self, bucket: &str) -> Verdict {
        self.take_at(bucket, self.now())
    }

    fn take_at(&self, bucket: &str, now: u64) -> Verdict {
        let cells = self.cells(bucket);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, next) = self.quota.take(fullest(&full_at, cells), now);
        raise(&mut full_at, cells, next);
        if verdict.wait == 0 {
            self.ahead_until.fetch_max(next, Ordering::Relaxed);
        }
        verdict
    }

    /// Learns how empty the bucket is that replicas share, in microseconds until it is full: should that be
    /// lost sight of, nobody gets a second helping. Each part takes as long to fill as the whole.
    pub fn follow(&self, bucket: &str, reset: u64) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        raise(&mut full_at, self.cells(bucket), self.now() + reset);
    }

    /// How empty the shared bucket must be at least, after what was granted here; in microseconds. 0 when
    /// nothing was lately: where strangers share cells here, they must not there.
    pub fn ahead(&self, bucket: &str) -> u64 {
        let now = self.now();
        if self.ahead_until.load(Ordering::Relaxed) <= now {
            return 0;
        }
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        fullest(&full_at, self.cells(bucket)).saturating_sub(now)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a cell is drawn by any bits of the hash")]
    fn cells(&self, bucket: &str) -> Cells {
        array::from_fn(|table| table * CELLS + self.hashers[table].hash_one(bucket) as usize % CELLS)
    }
}

fn fullest(full_at: &[u64], cells: Cells) -> u64 {
    cells.iter().map(|cell| full_at[*cell]).min().unwrap_or_default()
}

fn raise(full_at: &mut [u64], cells: Cells, to: u64) {
    for cell in cells {
        full_at[cell] = full_at[cell].max(to);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn local(rate: &str) -> Local {
        Local::new(Quota::part(rate.parse().unwrap(), 1))
    }

    #[test]
    fn a_flood_of_fresh_addresses_gives_nobody_their_actions_back() {
        let local = local("10/h");
        let granted = |bucket: &str| (0..20).filter(|_| local.take_at(bucket, 0).wait == 0).count();
        assert_eq!(granted("attacker"), 10);
        let memory = local.full_at.lock().unwrap().capacity();
        for fresh in 0..200_000 {
            local.take_at(&fresh.to_string(), 0);
        }
        assert_eq!(granted("attacker"), 0);
        assert_eq!(local.full_at.lock().unwrap().capacity(), memory);
    }

    #[test]
    fn a_thousand_busy_addresses_are_in_nobodys_way() {
        let local = local("10/h");
        for busy in 0..1_000 {
            for _ in 0..10 {
                local.take_at(&format!("busy {busy}"), 0);
            }
        }
        let robbed = (0..1_000).filter(|newcomer| local.take_at(&format!("new {newcomer}"), 0).remaining != 9).count();
        // One in 80,000 is expected to be.
        assert!(robbed <= 1, "{robbed} of 1,000");
    }

    #[test]
    fn what_is_seen_of_the_shared_bucket_is_not_granted_again_and_what_was_granted_is_told() {
        let local = local("10/h");
        let interval = local.quota.interval;
        assert_eq!(local.ahead("one"), 0);
        local.follow("one", 7 * interval);
        assert_eq!(local.ahead("one"), 0, "that is known there");
        assert_eq!(local.take("one").remaining, 2);
        let ahead = local.ahead("one");
        assert!(ahead > 7 * interval && ahead <= 8 * interval, "{ahead}");
        assert_eq!(local.ahead("other"), 0);
        local.follow("one", 10 * interval);
        assert!(local.take("one").wait > 0);
    }

    proptest! {
        #[test]
        fn nobody_is_granted_more_than_by_a_bucket_of_their_own(actions in vec((0..40_u8, 0..2_000_000_u64), 0..400)) {
            let local = local("5/min");
            let (mut own, mut now) = (HashMap::new(), 0);
            for (bucket, pause) in actions {
                now += pause;
                let full_at: &mut u64 = own.entry(bucket).or_default();
                let (alone, next) = local.quota.take(*full_at, now);
                let verdict = local.take_at(&bucket.to_string(), now);
                // What was refused in company did not happen.
                if verdict.wait == 0 {
                    prop_assert_eq!(alone.wait, 0);
                    *full_at = next;
                }
                prop_assert!(verdict.remaining <= alone.remaining);
            }
        }
    }
}
