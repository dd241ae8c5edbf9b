//! Clients of live events.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use switchboard::events::tailer;
use tokio::time::timeout;

use super::{TestApp, actor::Actor};

/// Longest wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl Event {
    /// Its name, its request and what happened.
    pub fn gist(&self) -> (&str, i64, &str) {
        (&self.name, self.data["request_id"].as_i64().unwrap_or(0), self.data["kind"].as_str().unwrap_or(""))
    }
}

/// An open stream.
pub struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    /// Opens a stream; the greeting comes first.
    pub async fn open(request: RequestBuilder) -> (Event, Self) {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = Self { response, text: String::new() };
        (stream.next().await.unwrap(), stream)
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.wait()).await.expect("an event was to come")
    }

    /// As [`Stream::next`], without end.
    pub async fn wait(&mut self) -> Option<Event> {
        loop {
            if let Some(at) = self.text.find("\n\n") {
                let block = self.text.drain(..at + 2).collect::<String>();
                if let Some(event) = parse(&block) {
                    return Some(event);
                }
                continue;
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Events up to the one whose data say that `kind` happened to `request`, which comes last.
    pub async fn until(&mut self, request: i64, kind: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("ended after {events:?}"));
            let last = event.gist().1 == request && event.gist().2 == kind;
            events.push(event);
            if last {
                return events;
            }
        }
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.wait()).await.is_err()
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = serde_json::from_str(field("data")?).unwrap();
    Some(Event { name: field("event")?.to_owned(), id: field("id").unwrap_or_default().to_owned(), data })
}

impl TestApp {
    /// Starts what tells listeners, as the server does.
    pub fn tail(&self) {
        self.app.lifecycle.spawn(tailer::run(self.app.clone()));
    }
}

impl Actor {
    /// Listens from now on; the greeting is read.
    pub async fn listen(&self) -> Stream {
        self.listen_since(None).await.1
    }

    /// Listens, after the event with an `id:`; the greeting comes first.
    pub async fn listen_since(&self, last: Option<&str>) -> (Event, Stream) {
        let request = self.request(Method::GET, "/api/v1/events");
        let request = if let Some(last) = last { request.header("last-event-id", last) } else { request };
        Stream::open(request).await
    }
}
