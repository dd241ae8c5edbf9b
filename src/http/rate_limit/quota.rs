//! The arithmetic of the generic cell rate algorithm (GCRA). A bucket is one number: when it will be
//! full again. Each action moves that by the interval at which actions are refilled, and is refused if
//! it would move it further away than a whole bucket takes to fill.

use crate::{config::Rate, telemetry::labels::RateLimitScope};

/// What one bucket grants; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Between two refilled actions.
    pub interval: u64,
    /// Actions that a full bucket holds.
    pub burst: u32,
    /// Until an empty bucket is full, in whole seconds.
    window: u64,
}

/// What became of an action; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Until it would be granted; 0 when it was.
    pub wait: u64,
    /// How many more would be granted now.
    pub remaining: u32,
    /// Until the bucket is full.
    pub reset: u64,
}

impl Quota {
    /// The part of `rate` that one of so many replicas grants by itself, rounded down. The settings are refused
    /// when that is none.
    #[must_use]
    pub fn part(rate: Rate, replicas: u32) -> Self {
        let (replicas, count) = (u64::from(replicas.max(1)), u64::from(rate.count.get()));
        let burst = rate.burst.get() / u32::try_from(replicas).unwrap_or(u32::MAX);
        let burst = burst.max(1);
        let period = u64::try_from(rate.period.as_micros()).unwrap_or(u64::MAX);
        let interval = (period * replicas / count).max(1);
        let window = (u64::from(burst) * rate.period.as_secs() * replicas).div_ceil(count);
        Self { interval, burst, window: window.max(1) }
    }

    /// Takes one action at `now` from a bucket that is full again at `full_at`; what became of it, and when
    /// the bucket is full now.
    #[must_use]
    pub fn take(&self, full_at: u64, now: u64) -> (Verdict, u64) {
        let whole = self.interval * u64::from(self.burst);
        let mut missing = full_at.saturating_sub(now).min(whole);
        let wait = (missing + self.interval).saturating_sub(whole);
        if wait == 0 {
            missing += self.interval;
        }
        let remaining = u32::try_from((whole - missing) / self.interval).unwrap_or(u32::MAX);
        (Verdict { wait, remaining, reset: missing }, now + missing)
    }

    /// As an item of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    #[must_use]
    pub fn policy(&self, scope: RateLimitScope) -> String {
        format!("\"{}\";q={};w={}", scope.as_str(), self.burst, self.window)
    }
}

impl Verdict {
    /// As an item of `RateLimit`.
    #[must_use]
    pub fn standing(&self, scope: RateLimitScope) -> String {
        format!("\"{}\";r={};t={}", scope.as_str(), self.remaining, seconds(self.reset))
    }

    /// Seconds to wait, for `Retry-After`; `None` when it was granted.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        (self.wait > 0).then(|| seconds(self.wait))
    }
}

/// Rounded up: whoever comes back then is not told to wait again.
fn seconds(micros: u64) -> u64 {
    micros.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn quota(rate: &str, replicas: u32) -> Quota {
        Quota::part(rate.parse().unwrap(), replicas)
    }

    #[test]
    fn a_burst_at_once_and_then_one_at_a_time() {
        let quota = quota("10/min", 1);
        let (mut full_at, start) = (0, 1_000 * SECOND);
        for taken in 1..=10 {
            let verdict;
            (verdict, full_at) = quota.take(full_at, start);
            assert_eq!(verdict, Verdict { wait: 0, remaining: 10 - taken, reset: u64::from(taken) * 6 * SECOND });
        }
        let (refused, unchanged) = quota.take(full_at, start);
        assert_eq!(refused, Verdict { wait: 6 * SECOND, remaining: 0, reset: 60 * SECOND });
        assert_eq!(unchanged, full_at, "what is refused costs nothing");
        assert_eq!(quota.take(full_at, start + 6 * SECOND - 1).0.wait, 1);
        let (granted, full_at) = quota.take(full_at, start + 6 * SECOND);
        assert_eq!(granted, Verdict { wait: 0, remaining: 0, reset: 60 * SECOND });
        assert_eq!(quota.take(full_at, start + 66 * SECOND).0.remaining, 9, "full again");
    }

    #[test]
    fn a_bucket_is_never_emptier_than_empty() {
        // A clock that went back must not lock anybody out for longer than a bucket takes to fill.
        let (verdict, full_at) = quota("10/min", 1).take(u64::MAX, 5 * SECOND);
        assert_eq!((verdict.wait, full_at), (6 * SECOND, 65 * SECOND));
    }

    #[test]
    fn replicas_grant_no_more_together_than_was_set() {
        for (rate, replicas, at_once, in_an_hour) in [
            ("10/min", 1, 10, 610),
            ("10/min", 3, 9, 609),
            ("10/min", 10, 10, 610),
            ("40/h burst 80", 2, 80, 120),
            ("5/h", 5, 5, 10),
            ("1/h burst 5", 5, 5, 6),
        ] {
            let quota = quota(rate, replicas);
            let mut buckets = vec![0; replicas as usize];
            let mut take_all = |now: u64| {
                let mut granted = 0;
                for full_at in &mut buckets {
                    while let (Verdict { wait: 0, .. }, next) = quota.take(*full_at, now) {
                        (*full_at, granted) = (next, granted + 1);
                    }
                }
                granted
            };
            let start = 1_000 * SECOND;
            assert_eq!(take_all(start), at_once, "{rate} of {replicas}");
            let later: u32 = (1..=3_600).map(|second| take_all(start + second * SECOND)).sum();
            assert!(at_once + later <= in_an_hour, "{rate} of {replicas}: {at_once} and {later}");
        }
    }

    #[test]
    fn headers_say_what_holds() {
        let scope = RateLimitScope::LoginIp;
        for (rate, replicas, policy) in [
            ("10/min", 1, "\"login_ip\";q=10;w=60"),
            ("7/min", 1, "\"login_ip\";q=7;w=60"),
            ("40/h burst 80", 1, "\"login_ip\";q=80;w=7200"),
            ("10/min", 3, "\"login_ip\";q=3;w=54"),
            ("1000/s burst 1", 1, "\"login_ip\";q=1;w=1"),
        ] {
            assert_eq!(quota(rate, replicas).policy(scope), policy);
        }
        let verdict = Verdict { wait: 5_000_001, remaining: 0, reset: 59_999_999 };
        assert_eq!((verdict.standing(scope).as_str(), verdict.retry_after()), ("\"login_ip\";r=0;t=60", Some(6)));
        assert_eq!(Verdict { wait: 0, ..verdict }.retry_after(), None);
    }
}
