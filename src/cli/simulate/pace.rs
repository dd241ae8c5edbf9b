//! The simulated clock: how real seconds become seconds of the played day. Speed shortens waiting
//! and nothing else. After hours, when no more calls come, what is left is played faster still.

use std::time::{Duration, Instant};

/// Simulated seconds in a real one after hours, unless the day was faster.
const AFTER_HOURS: f64 = 360_000.0;

/// A running simulated clock.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    opens: f64,
    closes: f64,
    speed: f64,
    after_hours: f64,
}

impl Pace {
    /// A clock that starts now at second `opens` of the day and closes at `closes`.
    #[must_use]
    pub fn start(opens: u32, closes: u32, speed: f64) -> Self {
        Self {
            started: Instant::now(),
            opens: opens.into(),
            closes: closes.into(),
            speed,
            after_hours: speed.max(AFTER_HOURS),
        }
    }

    /// The second of the simulated day.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.simulated(self.started.elapsed().as_secs_f64())
    }

    fn simulated(&self, real: f64) -> f64 {
        let day = (self.closes - self.opens) / self.speed;
        if real <= day { self.opens + real * self.speed } else { self.closes + (real - day) * self.after_hours }
    }

    fn real(&self, simulated: f64) -> f64 {
        if simulated <= self.closes {
            (simulated - self.opens) / self.speed
        } else {
            (self.closes - self.opens) / self.speed + (simulated - self.closes) / self.after_hours
        }
    }

    /// Waits until that second of the day.
    pub async fn until(&self, simulated: f64) {
        let since_start = Duration::try_from_secs_f64(self.real(simulated)).unwrap_or_default();
        tokio::time::sleep_until((self.started + since_start).into()).await;
    }

    /// Whether that second of the day comes within a real time.
    #[must_use]
    pub fn is_within(&self, simulated: f64, real: Duration) -> bool {
        self.real(simulated) <= (self.started.elapsed() + real).as_secs_f64()
    }

    /// Waits for so many simulated seconds, but at least for a real time.
    pub async fn pause(&self, seconds: u32, at_least: Duration) {
        let wake = self.real(self.now() + f64::from(seconds));
        let wake = Duration::try_from_secs_f64(wake).unwrap_or_default().max(self.started.elapsed() + at_least);
        tokio::time::sleep_until((self.started + wake).into()).await;
    }

    /// The time of day, for people; after hours it stands still.
    #[must_use]
    pub fn shown(&self) -> String {
        show(self.now().min(self.closes))
    }

    /// How long the day takes in real time.
    #[must_use]
    pub fn day(&self) -> Duration {
        Duration::try_from_secs_f64((self.closes - self.opens) / self.speed).unwrap_or(Duration::MAX)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a second of a day or two")]
fn show(second: f64) -> String {
    let minutes = second.max(0.0) as u32 / 60;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_runs_at_its_speed_and_what_is_left_faster() {
        let pace = Pace::start(21_600, 108_000, 600.0);
        assert!((pace.real(21_600.0 + 600.0) - 1.0).abs() < 1e-9);
        assert!((pace.real(108_000.0) - 144.0).abs() < 1e-9);
        assert!((pace.real(108_000.0 + 360_000.0) - 145.0).abs() < 1e-9);
        for real in [0.0, 1.5, 144.0, 150.0] {
            assert!((pace.real(pace.simulated(real)) - real).abs() < 1e-9);
        }
        assert_eq!(show(86_400.0 + 3_660.0), "01:01");
    }
}
