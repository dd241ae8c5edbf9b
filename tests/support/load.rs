//! Requests at a constant rate, whatever becomes of those before. Who waits for each answer before the next
//! question asks a slow server less, and so does not see how slow it is.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Shot {
    pub number: usize,
    /// When it was due, after the first.
    pub at: Duration,
    /// Until its answer was read, since it was due.
    pub took: Duration,
    /// The status, or why there is none.
    pub outcome: Result<u16, String>,
}

/// Sends it and reads the answer.
pub async fn send(request: reqwest::RequestBuilder) -> Result<u16, String> {
    let words = |error: reqwest::Error| format!("{:?}", error.without_url());
    let response = request.send().await.map_err(words)?;
    let status = response.status().as_u16();
    response.bytes().await.map_err(words)?;
    Ok(status)
}

/// A load that goes on until it is stopped.
pub struct Load {
    stop: oneshot::Sender<()>,
    firing: JoinHandle<Vec<Shot>>,
    started: Instant,
}

impl Load {
    /// So many requests a second; `shoot` makes and sends each, by its number.
    pub fn start<F>(rate: u32, shoot: impl Fn(usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<u16, String>> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let started = Instant::now();
        let shoot = Arc::new(shoot);
        let firing = tokio::spawn(async move {
            let mut due = interval(Duration::from_secs(1) / rate);
            // Those that are late are made up for.
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut open, mut shots) = (JoinSet::new(), Vec::new());
            for number in 0.. {
                tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    at = due.tick() => {
                        let shot = shoot(number);
                        open.spawn(async move {
                            let outcome = shot.await;
                            Shot { number, at: at.into_std() - started, took: at.elapsed(), outcome }
                        });
                    }
                }
                while let Some(shot) = open.try_join_next() {
                    shots.push(shot.unwrap());
                }
            }
            while let Some(shot) = open.join_next().await {
                shots.push(shot.unwrap());
            }
            shots
        });
        Self { stop, firing, started }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Stops, and waits for the last answers.
    pub async fn stop(self) -> Shots {
        let _ = self.stop.send(());
        Shots(self.firing.await.unwrap())
    }
}

/// What became of all.
#[derive(Clone, Debug)]
pub struct Shots(pub Vec<Shot>);

impl Shots {
    /// Those that were due in this time.
    pub fn between(&self, from: Duration, until: Duration) -> Self {
        self.which(|shot| (from..until).contains(&shot.at))
    }

    /// Those that are like this.
    pub fn which(&self, wanted: impl Fn(&Shot) -> bool) -> Self {
        Self(self.0.iter().filter(|shot| wanted(shot)).cloned().collect())
    }

    /// So many of a hundred took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut times: Vec<Duration> = self.0.iter().map(|shot| shot.took).collect();
        times.sort_unstable();
        times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub fn slowest(&self) -> Duration {
        self.percentile(100)
    }

    /// How many had each status, or none.
    pub fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for shot in &self.0 {
            let outcome = shot.outcome.as_ref().map_or_else(|_| "no answer".to_owned(), ToString::to_string);
            *counts.entry(outcome).or_default() += 1;
        }
        counts
    }

    /// Those that were not answered, or with a server's error.
    pub fn failed(&self) -> Vec<&Shot> {
        self.0.iter().filter(|shot| shot.outcome.as_ref().map_or(true, |status| *status >= 500)).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
