//! Who listens on this replica, and the channel that the tailer tells them through.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::model::LiveEvent;
use crate::{
    app::App,
    auth::{Principal, store::SessionUser},
    error::{self, AppError},
};

/// How long a new listener waits for the tailer to begin.
const START_LIMIT: Duration = Duration::from_secs(2);

/// Streams of one session: the tabs of a person. More would only be those that a broken network has left
/// behind, or somebody who wants to use up this replica's sockets.
const MOST_PER_SESSION: usize = 16;

/// The meeting point of the tailer and the listeners.
#[derive(Debug)]
pub struct Hub {
    channel: broadcast::Sender<Arc<LiveEvent>>,
    listeners: Mutex<HashMap<u64, Listener>>,
    next_number: AtomicU64,
    /// Whether the tailer follows the table; changed only under the lock on the listeners.
    following: watch::Sender<bool>,
    somebody: Notify,
    /// Up to which event everything was told.
    mark: AtomicI64,
}

/// Somebody who listens, with the rights they came with.
#[derive(Debug)]
struct Listener {
    principal: Principal,
    cut: CancellationToken,
}

impl Hub {
    /// A hub through which a listener may lag by `buffer` events.
    #[must_use]
    pub fn new(buffer: usize) -> Self {
        Self {
            channel: broadcast::channel(buffer).0,
            listeners: Mutex::default(),
            next_number: AtomicU64::new(0),
            following: watch::channel(false).0,
            somebody: Notify::new(),
            mark: AtomicI64::new(0),
        }
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<u64, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which event everything was told.
    #[must_use]
    pub fn mark(&self) -> i64 {
        self.mark.load(Ordering::SeqCst)
    }

    /// Completes when somebody has come since the tailer last stopped.
    pub async fn somebody(&self) {
        self.somebody.notified().await;
    }

    /// The tailer follows from here on.
    pub fn follow(&self, mark: i64) {
        self.settle(mark);
        self.following.send_replace(true);
    }

    /// Whether nobody listens, so that the tailer may stop.
    pub fn rest(&self) -> bool {
        let listeners = self.listeners();
        let nobody = listeners.is_empty();
        if nobody {
            self.following.send_replace(false);
        }
        nobody
    }

    /// The tailer has lost its place: everybody must come again, from where they were.
    pub fn start_over(&self) {
        let listeners = self.listeners();
        self.following.send_replace(false);
        for listener in listeners.values() {
            listener.cut.cancel();
        }
        if !listeners.is_empty() {
            self.somebody.notify_one();
        }
    }

    /// Tells everybody. A mark is moved on after the event that allows it was told.
    pub fn tell(&self, event: LiveEvent) {
        let mark = event.mark;
        // Nobody listening is no error.
        let _ = self.channel.send(Arc::new(event));
        self.settle(mark);
    }

    /// Notes that everything up to `mark` was told.
    pub fn settle(&self, mark: i64) {
        self.mark.store(mark, Ordering::SeqCst);
    }

    /// The sessions that listen.
    #[must_use]
    pub fn sessions(&self) -> Vec<String> {
        let mut sessions: Vec<String> =
            self.listeners().values().map(|listener| listener.principal.session_id.clone()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }

    /// Cuts off everybody whose session is over, or whose rights are not those they came with.
    /// `asked` are the sessions that were asked about: who came later is not judged.
    pub fn keep_only(&self, asked: &[String], alive: &HashMap<String, SessionUser>) {
        let sorted = |cities: &[i64]| {
            let mut cities = cities.to_vec();
            cities.sort_unstable();
            cities
        };
        for Listener { principal, cut } in self.listeners().values() {
            let same = alive.get(&principal.session_id).is_some_and(|user| {
                user.id == principal.user_id
                    && user.role == principal.role
                    && sorted(&user.cities) == sorted(&principal.cities)
            });
            if !same && asked.binary_search(&principal.session_id).is_ok() {
                cut.cancel();
            }
        }
    }
}

/// A place among the listeners; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    app: App,
    number: u64,
    /// Cancelled when the listener must go.
    pub cut: CancellationToken,
    /// Everything that is told from here on.
    pub events: broadcast::Receiver<Arc<LiveEvent>>,
    /// Up to which event everything was told before.
    pub mark: i64,
}

impl Seat {
    /// Takes a place, once the tailer follows.
    ///
    /// # Errors
    /// 503 when it cannot, because the database is away.
    pub async fn take(app: &App, principal: &Principal) -> Result<Self, AppError> {
        let hub = &app.events;
        let cut = CancellationToken::new();
        let mut seat = {
            let mut listeners = hub.listeners();
            // A session is no name: a person has several tabs.
            let number = hub.next_number.fetch_add(1, Ordering::Relaxed);
            listeners.insert(number, Listener { principal: principal.clone(), cut: cut.clone() });
            cut_the_oldest(&listeners, &principal.session_id);
            app.metrics.event_streams().set(i64::try_from(listeners.len()).unwrap_or(i64::MAX));
            Self { app: app.clone(), number, cut, events: hub.channel.subscribe(), mark: 0 }
        };
        hub.somebody.notify_one();
        let mut following = hub.following.subscribe();
        let started = tokio::time::timeout(START_LIMIT, following.wait_for(|following| *following)).await;
        if !matches!(started, Ok(Ok(_))) {
            return Err(AppError::from(error::DATABASE_UNAVAILABLE).retry_after(1));
        }
        // The mark before the place in the channel: what is told between the two comes twice, not never.
        seat.mark = hub.mark();
        seat.events = hub.channel.subscribe();
        Ok(seat)
    }

    /// Whether the channel has overtaken this listener.
    #[must_use]
    pub fn lags(&self) -> bool {
        self.events.len() > self.app.config.events.buffer.next_power_of_two()
    }
}

/// Ends the oldest stream of a session that has too many.
fn cut_the_oldest(listeners: &HashMap<u64, Listener>, session_id: &str) {
    let theirs = |listener: &Listener| listener.principal.session_id == session_id && !listener.cut.is_cancelled();
    let theirs = listeners.iter().filter(|(_, listener)| theirs(listener));
    if theirs.clone().count() > MOST_PER_SESSION
        && let Some((_, oldest)) = theirs.min_by_key(|(number, _)| **number)
    {
        oldest.cut.cancel();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut listeners = self.app.events.listeners();
        listeners.remove(&self.number);
        self.app.metrics.event_streams().set(i64::try_from(listeners.len()).unwrap_or(i64::MAX));
    }
}
