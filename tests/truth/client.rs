//! A client that sends each request exactly once: one connection at a time, no pool, no retries, no redirects.
//! A library that sends again behind our back would make the server's count the true one.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::{Body, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use tokio::{net::TcpStream, task::JoinHandle};

/// What is asked, and the route template that the server must count it under.
#[derive(Clone, Debug)]
pub struct Question {
    pub route: String,
    pub method: Method,
    /// With the query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Question {
    pub fn new(method: Method, route: &str, path: &str) -> Self {
        let (route, path) = (route.to_owned(), path.to_owned());
        Self { route, method, path, headers: Vec::new(), body: Bytes::new() }
    }

    /// Of a path that is its own template.
    pub fn plain(method: Method, path: &str) -> Self {
        let route = path.split('?').next().unwrap_or_default().to_owned();
        Self::new(method, &route, path)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As this user; nobody when there is no token.
    pub fn by(self, token: Option<&str>) -> Self {
        match token {
            Some(token) => self.with("authorization", format!("Bearer {token}")),
            None => self,
        }
    }

    pub fn json(self, body: &serde_json::Value) -> Self {
        self.sending("application/json", body.to_string())
    }

    pub fn sending(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.with("content-type", media_type)
    }

    fn request(&self, host: &str) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&self.method).uri(&self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", host);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(self.body.clone())).unwrap()
    }
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    /// Of the body; of HEAD, that which GET would have had. None of what is streamed: whoever measures it on the way
    /// out does not know how long it will be.
    pub bytes: Option<u64>,
}

impl Answer {
    fn of(question: &Question, response: &hyper::Response<Incoming>) -> Self {
        let status = response.status().as_u16();
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = match question.method {
            Method::HEAD => length.or(Some(0)),
            Method::GET if question.route == "/api/v1/files/{id}" && response.status().is_success() => None,
            _ => response.body().size_hint().exact(),
        };
        Self { status, bytes }
    }
}

/// One connection.
pub struct Line {
    server: SocketAddr,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // With it goes the socket.
        self.driver.abort();
    }
}

impl Line {
    pub fn to(server: SocketAddr) -> Self {
        Self { server, open: None }
    }

    /// Asks, and reads the answer to its end; of a stream, which has none, only the head.
    pub async fn ask(&mut self, question: &Question) -> Result<Answer, String> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        // One that the server has closed meanwhile is noticed before anything is sent.
        if open.sender.ready().await.is_err() {
            open = self.connect().await?;
        }
        let request = question.request(&self.server.to_string());
        let response = open.sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let answer = Answer::of(question, &response);
        if !is_stream(&response) {
            response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
            self.open = Some(open);
        }
        Ok(answer)
    }

    async fn connect(&self) -> Result<Open, String> {
        let socket = TcpStream::connect(self.server).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
        Ok(Open { sender, driver: tokio::spawn(async move { drop(connection.await) }) })
    }
}

fn is_stream(response: &hyper::Response<Incoming>) -> bool {
    response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
