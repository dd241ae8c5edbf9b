//! The table of docs/RELIABILITY.md: each test fills in its rows.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use serde_json::json;

/// One row: what breaks, what is promised then, and where that is seen.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its place in the table.
    pub number: u32,
    pub fault: &'static str,
    pub promise: &'static str,
    /// Names of metrics, or what else tells.
    pub seen_in: &'static str,
}

impl Row {
    /// Fills in what was measured, once it has been checked. `scripts/faults` says where to.
    pub fn measured(&self, figures: impl Display) {
        let Self { number, fault, promise, seen_in } = self;
        println!("{number}. {fault}: {figures} (promised: {promise})");
        if let Some(dir) = std::env::var_os("SWITCHBOARD_FAULTS_DIR") {
            let row = json!({
                "number": number, "fault": fault, "promise": promise, "measured": figures.to_string(), "seen_in": seen_in,
            });
            let path = std::path::Path::new(&dir).join(format!("{number:02}.json"));
            std::fs::write(path, row.to_string()).unwrap();
        }
    }
}

/// As people read it.
pub fn ms(time: Duration) -> String {
    if time < Duration::from_millis(100) {
        format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
    } else if time < Duration::from_secs(10) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{:.0} s", time.as_secs_f64())
    }
}

/// How long it took until `look` found something, which must be within `limit`.
pub async fn within<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> (T, Duration) {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            let took = started.elapsed();
            assert!(took <= limit, "{what}: only after {took:?}, not within {limit:?}");
            return (found, took);
        }
        assert!(started.elapsed() <= limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
