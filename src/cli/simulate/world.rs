//! What everybody shares while the day is played: the plan, the clock, and what is known of each
//! client. A client is locked while something of theirs is decided, so that it is known beforehand
//! whether a call joins an open service request or makes a new one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    api::Api,
    jobs::{Jobs, Picked},
    pace::Pace,
    people::Person,
    plan::{
        Plan, Typed,
        story::{Desk, Story},
    },
    tally::Tally,
};
use crate::{calls::providers::mango::Credentials, requests::state::Status};

/// Calls are kept away by this much from the moment at which joining ends: the two clocks differ.
const GUARD: Duration = Duration::from_secs(5);

/// Deliveries at once.
const TURNS: usize = 8;

/// Everything shared.
pub struct World {
    /// What will happen.
    pub plan: Plan,
    /// The simulated clock.
    pub pace: Pace,
    /// What was seen to succeed.
    pub tally: Arc<Tally>,
    /// Where HTTP requests go.
    pub api: Arc<Api>,
    /// Signs the provider's events.
    pub mango: Credentials,
    /// Sees everything.
    pub admin: Person,
    /// User ids of masters, by city.
    pub masters: Vec<Vec<i64>>,
    /// Codes of the fields of work.
    pub fields: Vec<String>,
    /// When the run began; makes names and phones of this run its own.
    pub began: DateTime<Utc>,
    /// How long calls join an open service request.
    pub window: Duration,
    /// Set when staff go home.
    pub closed: CancellationToken,
    /// Clients by number.
    pub clients: Vec<Arc<Client>>,
    turns: Semaphore,
    /// Service requests with their stories.
    pub jobs: Jobs,
    desk: Mutex<InTray>,
    busy: AtomicUsize,
    all_called: AtomicBool,
}

/// What waits for an operator besides service requests.
#[derive(Debug, Default)]
pub struct InTray {
    /// To be typed in, by city: who wrote or came by.
    pub walk_ins: Vec<VecDeque<Typed>>,
    /// To be typed in for a call in triage, by the caller's phone.
    pub by_phone: HashMap<String, Typed>,
    /// To be typed in for an anonymous call, by city.
    pub anonymous: Vec<Vec<Typed>>,
    /// Calls in triage that somebody is dealing with.
    pub taken: HashSet<i64>,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// E.164.
    pub phone: String,
    /// What is known of them. Held while something is decided.
    pub file: tokio::sync::Mutex<File>,
}

/// What is known of a client.
#[derive(Debug, Default)]
pub struct File {
    /// Calls that the server has from them.
    pub calls: usize,
    /// Their service requests.
    pub requests: Vec<Known>,
}

/// A service request of a client.
#[derive(Debug)]
pub struct Known {
    /// Its number.
    pub id: i64,
    /// When it was made, nearly.
    pub made: Instant,
    /// Whether work on it has not ended.
    pub open: bool,
}

/// What a [`World`] is made of.
pub struct Parts {
    pub plan: Plan,
    pub tally: Arc<Tally>,
    pub api: Arc<Api>,
    pub mango: Credentials,
    pub admin: Person,
    pub masters: Vec<Vec<i64>>,
    pub fields: Vec<String>,
    pub began: DateTime<Utc>,
    pub window: Duration,
    pub speed: f64,
}

impl World {
    /// A world whose day begins now.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let plan = parts.plan;
        let mut walk_ins = vec![VecDeque::new(); plan.cities.len()];
        for typed in &plan.typed {
            walk_ins[typed.city].push_back(typed.clone());
        }
        let client =
            |number| Arc::new(Client { phone: phone(parts.began, number), file: tokio::sync::Mutex::default() });
        Self {
            pace: Pace::start(plan.opens, plan.closes, parts.speed),
            tally: parts.tally,
            api: parts.api,
            mango: parts.mango,
            admin: parts.admin,
            masters: parts.masters,
            fields: parts.fields,
            began: parts.began,
            window: parts.window,
            closed: CancellationToken::new(),
            clients: (0..plan.clients).map(client).collect(),
            turns: Semaphore::new(TURNS),
            jobs: Jobs::default(),
            desk: Mutex::new(InTray { walk_ins, anonymous: vec![Vec::new(); plan.cities.len()], ..InTray::default() }),
            busy: AtomicUsize::new(0),
            all_called: AtomicBool::new(false),
            plan,
        }
    }

    /// The operators' in-tray; never held across an await.
    pub fn in_tray(&self) -> MutexGuard<'_, InTray> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a service request that was just made, so that staff know its story.
    pub fn begin_job(&self, id: i64, client: usize, story: Story) {
        self.jobs.begin(id, client, story, self.pace.now());
    }

    /// Takes on the next step of a service request; see [`Jobs::pick`].
    #[must_use]
    pub fn pick(&self, id: i64, status: Status, desks: &[Desk]) -> Option<Picked> {
        self.jobs.pick(id, status, desks, self.pace.now())
    }

    /// Whether everything that can be done is done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.all_called.load(Ordering::SeqCst) && self.busy.load(Ordering::SeqCst) == 0 && self.left() == 0
    }

    /// Steps of stories and papers in the in-tray that nobody has dealt with.
    #[must_use]
    pub fn left(&self) -> usize {
        let tray = self.in_tray();
        let papers = tray.walk_ins.iter().map(VecDeque::len).sum::<usize>()
            + tray.by_phone.len()
            + tray.anonymous.iter().map(Vec::len).sum::<usize>();
        drop(tray);
        papers + self.jobs.unfinished()
    }

    /// Marks something as going on until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
    }

    /// A turn to deliver something; it ends when dropped. `None` is as good: turns are never withdrawn.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// No more calls will begin.
    pub fn stop_calling(&self) {
        self.all_called.store(true, Ordering::SeqCst);
    }
}

impl File {
    /// Whether a call of this client joins a service request now, when calls join those younger than
    /// `window`: waits until the answer is certain.
    pub async fn joins(&self, window: Duration) -> bool {
        loop {
            let ages: Vec<Duration> =
                self.requests.iter().filter(|known| known.open).map(|known| known.made.elapsed()).collect();
            let uncertain = |age: &&Duration| **age + GUARD > window && **age < window + GUARD;
            let Some(age) = ages.iter().find(uncertain) else {
                return ages.iter().any(|age| *age < window);
            };
            tokio::time::sleep((window + GUARD).saturating_sub(*age)).await;
        }
    }
}

/// Something that is going on.
pub struct Busy(Arc<World>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The phone of a client of this run: a mobile number, from a range that begins elsewhere every second,
/// so that a run meets no clients of the last ones.
#[must_use]
pub fn phone(began: DateTime<Utc>, number: usize) -> String {
    const SPACE: u64 = 1_000_000_000;
    // Coprime to the space: neighbours do not look like neighbours, and no two are the same.
    const STRIDE: u64 = 618_033_989;
    let second = began.timestamp().unsigned_abs() % SPACE;
    let number = u64::try_from(number).unwrap_or(0);
    format!("+79{:09}", ((second * 1_000 + number) % SPACE) * STRIDE % SPACE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn phones_are_valid_and_each_client_has_one() {
        let began = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let phones: BTreeSet<String> = (0..2_000).map(|number| phone(began, number)).collect();
        assert_eq!(phones.len(), 2_000);
        for phone in &phones {
            assert_eq!(crate::phone::normalise(&phone[1..], "RU").as_ref(), Some(phone));
        }
        let later = DateTime::from_timestamp(1_790_000_060, 0).unwrap();
        assert!((0..2_000).all(|number| !phones.contains(&phone(later, number))));
    }

    #[tokio::test]
    async fn a_call_joins_what_is_open_and_young() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let file = |open, seconds| File { calls: 1, requests: vec![Known { id: 1, made: ago(seconds), open }] };
        let window = Duration::from_secs(30);
        assert!(file(true, 10).joins(window).await);
        assert!(!file(false, 10).joins(window).await);
        assert!(!file(true, 36).joins(window).await);
        // So near to the end of the window that it has to be waited for.
        assert!(!file(true, 34).joins(window).await);
        assert!(!File::default().joins(window).await);
    }
}
