//! Where Alertmanager's messages arrive: pages, tickets, and the dead man's switch.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use serde_json::Value;

/// One alert of a message.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `pages`, `tickets` or `watchdog`.
    pub path: String,
    pub at: Instant,
    /// The alert as Alertmanager tells of it.
    pub alert: Value,
}

impl Notice {
    pub fn name(&self) -> &str {
        self.alert["labels"]["alertname"].as_str().unwrap()
    }

    pub fn is_firing(&self) -> bool {
        self.alert["status"] == "firing"
    }

    pub fn label(&self, name: &str) -> &str {
        self.alert["labels"][name].as_str().unwrap_or_default()
    }

    pub fn annotation(&self, name: &str) -> &str {
        self.alert["annotations"][name].as_str().unwrap_or_default()
    }

    /// Tells alerts of a name apart.
    pub fn fingerprint(&self) -> &str {
        self.alert["fingerprint"].as_str().unwrap()
    }
}

#[derive(Debug, Default)]
struct Inside {
    notices: Vec<Notice>,
    failing: BTreeSet<String>,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

impl Sink {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), inside: Arc::default() };
        let router = Router::new().route("/{path}", post(take)).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        sink
    }

    /// Whether messages to this path are answered 500.
    pub fn fail(&self, path: &str, fails: bool) {
        let failing = &mut self.inside.lock().unwrap().failing;
        if fails {
            failing.insert(path.to_owned())
        } else {
            failing.remove(path)
        };
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.inside.lock().unwrap().notices.clone()
    }

    /// The first of which this holds.
    pub fn find(&self, wanted: impl Fn(&Notice) -> bool) -> Option<Notice> {
        self.inside.lock().unwrap().notices.iter().find(|notice| wanted(notice)).cloned()
    }
}

async fn take(State(sink): State<Sink>, Path(path): Path<String>, Json(message): Json<Value>) -> StatusCode {
    let mut inside = sink.inside.lock().unwrap();
    if inside.failing.contains(&path) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let at = Instant::now();
    let alerts = message["alerts"].as_array().unwrap().iter();
    inside.notices.extend(alerts.map(|alert| Notice { path: path.clone(), at, alert: alert.clone() }));
    StatusCode::OK
}
