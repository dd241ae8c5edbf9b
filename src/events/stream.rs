//! One listener: what they missed, page by page from the database, then what comes. Nothing is read
//! before the client's socket takes it, so a client that does not read costs no memory; the channel
//! overtakes it, and it is cut off.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::response::sse::Event;
use chrono::TimeDelta;
use futures_util::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;

use super::{hub::Seat, model::LiveEvent, store};
use crate::{app::App, auth::Caller, db::DbError, error::AppError};

/// A client that has missed more is told to start over.
pub const MOST_MISSED: i64 = 10_000;
/// As is one that has been away for longer, in hours.
pub const LONGEST_AWAY: i64 = 24;
/// Events read at once for a client that resumes.
const PAGE: i64 = 500;
/// After which time a client should try again.
const RETRY: Duration = Duration::from_secs(2);

/// Opens a stream that resumes after the event `last`, if there is one.
///
/// # Errors
/// As the database.
pub async fn open(
    app: App,
    caller: Caller,
    last: Option<i64>,
) -> Result<impl Stream<Item = Result<Event, Infallible>>, AppError> {
    let seat = Seat::take(&app, &caller.principal).await?;
    let resumes = match last {
        Some(last) => {
            let missed = store::missed(&mut app.db.acquire().await?, last, MOST_MISSED + 1).await?;
            let since = app.clock.now() - TimeDelta::hours(LONGEST_AWAY);
            // An id of the future is one of another life of this database.
            let far = missed.count > MOST_MISSED || missed.oldest.is_some_and(|at| at < since) || last > missed.newest;
            (!far).then_some(last)
        }
        None => None,
    };
    let greeting = if last == resumes { "ready" } else { "reset" };
    let greeting = Event::default()
        .event(greeting)
        .id(resumes.unwrap_or(seat.mark).min(seat.mark).to_string())
        .retry(RETRY)
        .data("{}");
    let listening = Listening {
        app,
        caller,
        seat,
        greeting: Some(greeting),
        missed_after: resumes,
        page: VecDeque::new(),
        told: HashSet::new(),
        ended: false,
    };
    Ok(stream::unfold(listening, async |mut listening| {
        let event = listening.next().await?;
        Some((Ok(event), listening))
    }))
}

struct Listening {
    app: App,
    caller: Caller,
    seat: Seat,
    /// What comes first.
    greeting: Option<Event>,
    /// The last event of the backlog that was read; `None` when it is read to its end.
    missed_after: Option<i64>,
    /// Of the backlog, not yet sent.
    page: VecDeque<LiveEvent>,
    /// From the backlog, and may come again from the channel.
    told: HashSet<i64>,
    ended: bool,
}

impl Listening {
    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        let (cut, stopped) = (self.seat.cut.clone(), self.app.lifecycle.stopped());
        tokio::select! {
            biased;
            () = cut.cancelled() => None,
            () = stopped.cancelled() => None,
            event = self.next_told() => event,
        }
    }

    async fn next_told(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.page.pop_front() {
                if let Some(event) = written(&event, &self.caller) {
                    return Some(event);
                }
            } else if let Some(after) = self.missed_after {
                // The client comes again, from the last event that it got.
                self.missed_after = self.turn_page(after).await.ok()?;
            } else {
                match self.seat.events.recv().await {
                    Ok(event) if self.told.remove(&event.row.id) => {}
                    Ok(event) => {
                        if let Some(event) = written(&event, &self.caller) {
                            return Some(event);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.ended = true;
                        self.app.metrics.event_streams_dropped().inc();
                        return Some(Event::default().event("lagged").data("{}"));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    }

    /// Reads the page of the backlog after `after`; where the next one begins.
    async fn turn_page(&mut self, after: i64) -> Result<Option<i64>, DbError> {
        let rows = store::backlog(&mut self.app.db.acquire().await?, &self.caller, after, PAGE).await?;
        let last = rows.last().map(|row| row.id);
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == PAGE);
        // What is below the mark was told before this listener came, and does not come again.
        let mark = self.seat.mark;
        self.told.extend(rows.iter().map(|row| row.id).filter(|id| *id > mark));
        self.page.extend(rows.into_iter().map(|row| {
            let resumable = row.id.min(mark);
            LiveEvent::new(row, resumable)
        }));
        Ok(last.filter(|_| full))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Its socket was closed because it took nothing.
        if !self.ended && self.seat.lags() {
            self.app.metrics.event_streams_dropped().inc();
        }
    }
}

fn written(event: &LiveEvent, caller: &Caller) -> Option<Event> {
    let (name, data) = event.told_to(caller)?;
    Some(Event::default().event(name).id(event.mark.to_string()).data(data))
}
