//! What is worth a line in the log, and not a line for each request that it happens to.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_mins(1);

/// Lets one line be written a minute.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Nothing has been written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether to write one now; then none is due for a minute.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_whatever_happens_in_between() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let due: Vec<u64> = (0..180).filter(|second| seldom.is_due_at(start + Duration::from_secs(*second))).collect();
        assert_eq!(due, [0, 60, 120]);
    }
}
