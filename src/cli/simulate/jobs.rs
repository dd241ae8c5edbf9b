//! Service requests and how far their stories are told: who may take what on, and whose hands are on
//! it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::plan::story::{Desk, Step, Story};
use crate::requests::state::Status;

/// All service requests of the run, by number.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<HashMap<i64, Arc<Job>>>);

/// A service request with its story.
#[derive(Debug)]
pub struct Job {
    /// Number of the client.
    pub client: usize,
    /// What becomes of it.
    pub story: Story,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    next: usize,
    due: f64,
    hands: u8,
    stuck: bool,
    status: Status,
}

/// A step that somebody took on.
#[derive(Debug)]
pub struct Picked {
    /// Of which service request.
    pub job: Arc<Job>,
    /// Which step of its story.
    pub index: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Keeps a service request that was just made.
    pub fn begin(&self, id: i64, client: usize, story: Story, now: f64) {
        let due = now + story.steps.first().map_or(0.0, |step| f64::from(step.after));
        let progress = Progress { next: 0, due, hands: 0, stuck: false, status: Status::New };
        lock(&self.0).insert(id, Arc::new(Job { client, story, progress: Mutex::new(progress) }));
    }

    /// Takes on the next step of a service request, if it is due, in this state and for these desks,
    /// and nobody else has it in hand. Contested ones two operators may take.
    #[must_use]
    pub fn pick(&self, id: i64, status: Status, desks: &[Desk], now: f64) -> Option<Picked> {
        let job = lock(&self.0).get(&id)?.clone();
        let mut progress = lock(&job.progress);
        let step = job.story.steps.get(progress.next)?;
        let hands = if job.story.contested && step.desk == Desk::Operator { 2 } else { 1 };
        if progress.stuck
            || progress.hands >= hands
            || progress.due > now
            || step.from != status
            || !desks.contains(&step.desk)
        {
            return None;
        }
        progress.hands += 1;
        let index = progress.next;
        drop(progress);
        Some(Picked { job, index })
    }

    /// How many have steps left.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        lock(&self.0).values().filter(|job| job.has_next()).count()
    }

    /// How many are in such a state now.
    #[must_use]
    pub fn count(&self, is: impl Fn(Status) -> bool) -> usize {
        lock(&self.0).values().filter(|job| is(lock(&job.progress).status)).count()
    }
}

impl Job {
    fn has_next(&self) -> bool {
        let progress = lock(&self.progress);
        !progress.stuck && progress.next < self.story.steps.len()
    }
}

impl Picked {
    /// The step.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.job.story.steps.get(self.index)
    }

    /// It was made; when the next one is due.
    pub fn done(&self, to: Status, now: f64) -> f64 {
        let mut progress = lock(&self.job.progress);
        progress.next = self.index + 1;
        progress.status = to;
        progress.due = now + self.job.story.steps.get(self.index + 1).map_or(0.0, |step| f64::from(step.after));
        progress.due
    }

    /// It cannot be made; nobody should try again, and nothing comes of it.
    #[must_use]
    pub fn failed<T>(&self) -> Option<T> {
        lock(&self.job.progress).stuck = true;
        None
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let mut progress = lock(&self.job.progress);
        progress.hands = progress.hands.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::story::With, *};

    fn story(contested: bool) -> Story {
        let step = |desk, from, to| Step { desk, from, to, after: 60, thinks: 1, with: With::Nothing, comment: None };
        let steps = vec![
            step(Desk::Operator, Status::New, Status::Waiting),
            step(Desk::Planner, Status::Waiting, Status::Refused),
        ];
        Story { steps, name: "", problem: "", contested }
    }

    #[test]
    fn a_step_is_taken_on_once_by_the_right_desk_when_it_is_due() {
        let jobs = Jobs::default();
        jobs.begin(1, 0, story(false), 0.0);
        assert!(jobs.pick(2, Status::New, &[Desk::Operator], 60.0).is_none());
        assert!(jobs.pick(1, Status::New, &[Desk::Operator], 59.0).is_none());
        assert!(jobs.pick(1, Status::New, &[Desk::Planner], 60.0).is_none());
        assert!(jobs.pick(1, Status::Waiting, &[Desk::Operator], 60.0).is_none());
        let picked = jobs.pick(1, Status::New, &[Desk::Operator], 60.0).unwrap();
        assert!(jobs.pick(1, Status::New, &[Desk::Operator], 60.0).is_none());
        assert!((picked.done(Status::Waiting, 70.0) - 130.0).abs() < 1e-9);
        drop(picked);
        let picked = jobs.pick(1, Status::Waiting, &[Desk::Planner], 130.0).unwrap();
        assert_eq!((jobs.unfinished(), jobs.count(Status::is_finished)), (1, 0));
        picked.done(Status::Refused, 140.0);
        assert_eq!((jobs.unfinished(), jobs.count(Status::is_finished)), (0, 1));
    }

    #[test]
    fn a_contested_step_two_operators_may_take_and_a_failed_one_nobody() {
        let jobs = Jobs::default();
        jobs.begin(1, 0, story(true), 0.0);
        let pick = || jobs.pick(1, Status::New, &[Desk::Operator], 60.0);
        let (first, second) = (pick().unwrap(), pick());
        assert!(second.is_some() && pick().is_none());
        drop(second);
        assert!(pick().is_some());
        assert!(first.failed::<()>().is_none());
        assert!(pick().is_none());
    }
}
