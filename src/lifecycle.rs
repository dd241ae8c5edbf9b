//! Starting and stopping: one place that knows whether the server is on its way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by everything that must know when to stop; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
    workers: TaskTracker,
}

impl Lifecycle {
    /// Whether readiness must say no.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// From here on readiness says no; requests are still served.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Completes when workers must stop after the item they are at.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a worker that [`Lifecycle::stop_workers`] waits for.
    pub fn spawn(&self, worker: impl Future<Output = ()> + Send + 'static) {
        self.workers.spawn(worker);
    }

    /// Tells the workers to stop and waits for them, for at most `limit`.
    pub async fn stop_workers(&self, limit: Duration) {
        self.stop.cancel();
        self.workers.close();
        if tokio::time::timeout(limit, self.workers.wait()).await.is_err() {
            tracing::warn!("a worker did not stop in time; its item will be taken up again at the next start");
        }
    }
}

/// Completes at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn shutdown_signal() -> std::io::Result<&'static str> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
