//! A connection takes its requests in turn, and its client has so long for each part: for the whole head
//! of one, and for the first byte of the next.
//!
//! Bytes go on to hyper as they are due: a head up to its end, then as much as is its body, and what was
//! sent ahead only after the answer. So every head is seen here as it came, which matters for one that
//! states the length of its body twice: hyper believes the Transfer-Encoding and drops the Content-Length,
//! but a proxy in front may have believed the other, and taken for a body what is served here as a
//! request (RFC 9112 §11.2). For the same reason nothing is served behind a body with a transfer coding.

use std::{
    io,
    mem::take,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Request, header},
    response::Response,
};
use axum_server::accept::Accept;
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tower::Service;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a whole head: of the first request from when the connection was opened, a TLS handshake
    /// included; of others from their first byte.
    pub head: Duration,
    /// Until the next request begins.
    pub idle: Duration,
    /// Without taking a byte of an answer.
    pub stall: Duration,
}

/// Left in each request: what hyper does not tell about its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadFacts {
    /// Its size, the request line included.
    pub bytes: usize,
    /// Whether it gives its body a length and a transfer coding.
    pub two_lengths: bool,
}

/// Accepts connections, with or without TLS as the inner acceptor does, that take turns.
#[derive(Clone, Copy, Debug)]
pub struct TakingTurns<A> {
    pub inner: A,
    pub patience: Patience,
}

impl<A, S> Accept<TcpStream, S> for TakingTurns<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = Paced<A::Stream>;
    type Service = Turns<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (patience, opened) = (self.patience, Instant::now());
        let accepted = self.inner.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let turn = Arc::default();
            let paced = Paced {
                stream,
                patience,
                turn: Arc::clone(&turn),
                number: 0,
                head: Head::default(),
                ahead: BytesMut::new(),
                deadline: Box::pin(sleep_until(opened + patience.head)),
            };
            Ok((paced, Turns { inner: service, turn }))
        })
    }
}

/// What a connection and its service tell each other.
#[derive(Debug, Default)]
struct Turn {
    /// Requests that were answered.
    number: u64,
    /// While one is being answered: how many bytes of its body may still come.
    body: Option<u64>,
    /// Bytes of the body before that nobody read: they may be on their way, and are no head.
    unread: u64,
    /// About the head that came last.
    head: HeadFacts,
    /// Waits for more to be due.
    reader: Option<Waker>,
}

impl Turn {
    /// Lets that many bytes of a body be read, or else the next head.
    fn allow(&mut self, body: Option<u64>) {
        self.body = body;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// How many of these bytes belong to what is left of a body, which they are taken from.
fn due_of(left: &mut u64, fresh: &[u8]) -> usize {
    let due = usize::try_from(*left).map_or(fresh.len(), |left| left.min(fresh.len()));
    *left -= due as u64;
    due
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection of which is read what is due.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    patience: Patience,
    turn: Arc<Mutex<Turn>>,
    /// Which turn `head` and `deadline` are of.
    number: u64,
    head: Head,
    /// What was read and is not due yet.
    ahead: BytesMut,
    /// Of what is waited for while no request is being answered.
    deadline: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut turn = lock(&this.turn);
        if this.number != turn.number {
            (this.number, this.head) = (turn.number, Head::default());
            this.deadline.as_mut().reset(Instant::now() + this.patience.idle);
        }
        let start = out.filled().len();
        let waits = turn.body == Some(0) || turn.body.is_none() && this.head.complete;
        let read = if !this.ahead.is_empty() && waits {
            Poll::Pending
        } else if !this.ahead.is_empty() {
            out.put_slice(&this.ahead.split_to(this.ahead.len().min(out.remaining())));
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut this.stream).poll_read(context, out)
        };
        if let Poll::Ready(read) = read {
            let fresh = &out.filled()[start..];
            if read.is_err() || fresh.is_empty() {
                return Poll::Ready(read);
            }
            let due = if let Some(left) = &mut turn.body {
                due_of(left, fresh)
            } else if turn.unread > 0 {
                due_of(&mut turn.unread, fresh)
            } else {
                if this.number > 0 && this.head.bytes == 0 {
                    this.deadline.as_mut().reset(Instant::now() + this.patience.head);
                }
                let due = this.head.take(fresh);
                let two_lengths = this.head.has_length && this.head.has_coding;
                turn.head = HeadFacts { bytes: this.head.bytes, two_lengths };
                due
            };
            if due < fresh.len() {
                let mut rest = BytesMut::from(&fresh[due..]);
                rest.unsplit(take(&mut this.ahead));
                this.ahead = rest;
                out.set_filled(start + due);
            }
            if due > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        // What is due may change without a byte from the client.
        turn.reader = Some(context.waker().clone());
        // A request that is being answered has other limits.
        if turn.body.is_none() {
            ready!(this.deadline.as_mut().poll(context));
            // As if the client had closed it.
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// As much of a head as matters: where it ends, and what it says of the body.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    /// Lines that are not empty: empty ones before the first are passed over (RFC 9112 §2.2).
    lines: usize,
    complete: bool,
    has_length: bool,
    has_coding: bool,
    /// How the line at hand begins.
    line: Vec<u8>,
}

impl Head {
    const LENGTH: &[u8] = b"content-length:";
    const CODING: &[u8] = b"transfer-encoding:";

    /// Reads on; how many of the bytes belong to the head.
    fn take(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            self.bytes += 1;
            if *byte != b'\n' {
                if self.line.len() < Self::CODING.len() {
                    self.line.push(*byte);
                }
                continue;
            }
            if !matches!(&*self.line, b"" | b"\r") {
                self.lines += 1;
            } else if self.lines > 0 {
                self.complete = true;
                return at + 1;
            }
            let is = |name: &[u8]| self.line.get(..name.len()).is_some_and(|line| line.eq_ignore_ascii_case(name));
            (self.has_length, self.has_coding) =
                (self.has_length || is(Self::LENGTH), self.has_coding || is(Self::CODING));
            self.line.clear();
        }
        bytes.len()
    }
}

/// A service that tells its connection when a request begins and when its answer ends.
#[derive(Clone, Debug)]
pub struct Turns<S> {
    inner: S,
    turn: Arc<Mutex<Turn>>,
}

impl<S, B> Service<Request<B>> for Turns<S>
where
    S: Service<Request<B>, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut turn = lock(&self.turn);
        turn.allow(Some(body_length(request.headers())));
        request.extensions_mut().insert(take(&mut turn.head));
        drop(turn);
        // A proxy may have taken another length for it: what follows is nobody's request (RFC 9112 §6.1).
        let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
        let ends = Ends(Arc::clone(&self.turn));
        let answer = self.inner.call(request);
        // Nothing is done to errors: the closure is what lasts as long as the body.
        let hold = move |error| {
            let _ = &ends;
            error
        };
        Box::pin(async move {
            let mut answer = answer.await?.map(|body| Body::new(body.map_err(hold)));
            if is_last {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        })
    }
}

/// As many bytes as may come when nobody knows how many: no body has half of them.
const CHUNKED: u64 = u64::MAX;

/// What may follow a head.
fn body_length(headers: &HeaderMap) -> u64 {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return CHUNKED;
    }
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Ends the turn when it is dropped.
struct Ends(Arc<Mutex<Turn>>);

impl Drop for Ends {
    fn drop(&mut self) {
        let mut turn = lock(&self.0);
        turn.number += 1;
        // Of a chunked body nobody knows; the connection is closed behind it.
        turn.unread = turn.body.filter(|left| *left < CHUNKED / 2).unwrap_or(0);
        turn.allow(None);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{
        Extension, Router,
        routing::{get, post},
    };
    use axum_server::Handle;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{sleep, timeout},
    };

    use super::*;
    use crate::http::listen;

    const PATIENCE: Patience = Patience {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        stall: Duration::from_millis(300),
    };

    /// A client of a server that tells back what it was sent, and what it makes of the head.
    async fn client() -> TcpStream {
        let router = Router::new()
            .route("/echo", post(async |body: String| format!("<{body}>")))
            .route("/head", post(async |Extension(head): Extension<HeadFacts>, _: String| format!("<{head:?}>")))
            .route("/", get(async || "<at once>"))
            .route("/unread", post(async || "<unread>"))
            .route("/slow", get(async || sleep(2 * PATIENCE.idle).await));
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(listen::serve(listener, router, Handle::new(), PATIENCE, None));
        TcpStream::connect(address).await.unwrap()
    }

    /// Everything that comes until the server closes, and how long that took.
    async fn rest(client: &mut TcpStream) -> (String, Duration) {
        let (started, mut rest) = (Instant::now(), Vec::new());
        // A reset after the last byte is a close too.
        let _ = timeout(4 * PATIENCE.idle, client.read_to_end(&mut rest)).await.expect("it is closed");
        (String::from_utf8(rest).unwrap(), started.elapsed())
    }

    fn echo(body: &str) -> String {
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn requests_sent_at_once_are_answered_in_turn() {
        let mut client = client().await;
        let long = "x".repeat(200_000);
        // An empty line before a request is passed over.
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let all = [get, &echo("one"), get, get, &echo(&long), "\r\n", &echo(""), &echo("four")].concat();
        client.write_all(all.as_bytes()).await.unwrap();
        let (answers, took) = rest(&mut client).await;
        let at = |what: &str| answers.find(what).unwrap_or_else(|| panic!("{what} is missing"));
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 7);
        assert!(
            at("<one>") < at(&format!("<{long}>")) && at(&format!("<{long}>")) < at("<>") && at("<>") < at("<four>")
        );
        assert!((PATIENCE.idle..2 * PATIENCE.idle).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn two_lengths_are_seen_wherever_the_head_stands() {
        let head = |lengths: &str| format!("POST /head HTTP/1.1\r\nConnection: close\r\n{lengths}\r\n0\r\n\r\n");
        let cases = [
            (head("content-LENGTH: 4\r\nTransfer-Encoding: chunked\r\n"), true),
            (head("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), true),
            (head("Transfer-Encoding: chunked\r\n"), false),
        ];
        // The body names both too, which means nothing.
        let before = echo("\r\n\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n");
        for (head, expected) in cases {
            for all in [head.clone(), format!("{before}{head}"), format!("{before}{before}{head}")] {
                let mut client = client().await;
                client.write_all(all.as_bytes()).await.unwrap();
                let (answers, _) = rest(&mut client).await;
                let size = head.len() - "0\r\n\r\n".len();
                assert!(answers.contains(&format!("bytes: {size}, two_lengths: {expected}")), "{all:?}: {answers}");
            }
        }
    }

    #[tokio::test]
    async fn who_sends_nothing_or_a_part_of_a_head_is_closed() {
        let limits = PATIENCE.head..PATIENCE.head * 2;
        for start in ["", "G", "GET /slow HTTP/1.1\r\nHost: x\r\n"] {
            let mut client = client().await;
            client.write_all(start.as_bytes()).await.unwrap();
            let (answer, took) = rest(&mut client).await;
            assert!(limits.contains(&took), "{start:?}: {took:?}");
            assert_eq!(answer, "");
        }
        // Nor does it help to drip it, or to have been served before.
        for before in ["", &echo("")] {
            let mut client = client().await;
            client.write_all(before.as_bytes()).await.unwrap();
            if !before.is_empty() {
                client.read_exact(&mut [0; 10]).await.unwrap();
                sleep(PATIENCE.idle / 2).await;
            }
            let started = Instant::now();
            let (mut reader, mut writer) = client.split();
            let drip = async {
                for byte in b"GET /slow HTTP/1.1\r\nHost: x\r\nX-Padding: xxxxxxxxxxxxxxxxxxxxx".iter().cycle() {
                    if writer.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(PATIENCE.head / 10).await;
                }
            };
            let mut rest = Vec::new();
            tokio::select! {
                () = drip => {}
                _ = reader.read_to_end(&mut rest) => {}
            }
            assert!(limits.contains(&started.elapsed()), "{:?}", started.elapsed());
        }
    }

    #[tokio::test]
    async fn a_request_that_waited_for_an_answer_is_next() {
        for next in [String::new(), echo("next")] {
            let mut client = client().await;
            client.write_all(format!("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n{next}").as_bytes()).await.unwrap();
            let (answers, took) = rest(&mut client).await;
            assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), if next.is_empty() { 1 } else { 2 }, "{answers}");
            assert!((3 * PATIENCE.idle..4 * PATIENCE.idle).contains(&took), "{took:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_read_is_not_taken_for_the_next_head() {
        let mut client = client().await;
        let unread = echo("\r\n\r\nGET").replace("/echo", "/unread");
        client.write_all(unread.as_bytes()).await.unwrap();
        client.read_exact(&mut [0; 15]).await.unwrap();
        // Longer than a head may take: what was left of the body has not begun one.
        sleep(2 * PATIENCE.head).await;
        let head = "POST /head HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let (answers, _) = rest(&mut client).await;
        assert!(answers.contains("<unread>") && answers.contains(&format!("bytes: {}", head.len())), "{answers}");
    }

    #[tokio::test]
    async fn nothing_is_served_behind_a_chunked_body() {
        let chunked = "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for (what, said) in [("POST /echo", "<hi>"), ("POST /unread", "<unread>"), ("OPTIONS /", "405")] {
            let mut client = client().await;
            client.write_all(format!("{what} HTTP/1.1\r\n{chunked}").as_bytes()).await.unwrap();
            let (answer, took) = rest(&mut client).await;
            assert!(answer.contains(said) && answer.contains("connection: close"), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
            assert!(took < PATIENCE.head, "{what}: {took:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_and_then_the_next_request_too() {
        let mut client = client().await;
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 15];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        sleep(PATIENCE.idle / 2).await;
        client.write_all(echo("still here").as_bytes()).await.unwrap();
        let (answer, took) = rest(&mut client).await;
        assert!(answer.contains("<still here>"), "{answer}");
        assert!((PATIENCE.idle..PATIENCE.idle * 2).contains(&took), "{took:?}");
    }

    proptest! {
        #[test]
        fn a_head_ends_where_it_ends_however_it_arrives(
            head in "(\r?\n){0,2}[A-Z]{1,20} /[a-z:]{0,30}\r?\n([A-Za-z-]{1,30}:[ -~]{0,30}\r?\n){0,5}\r?\n",
            rest in prop::collection::vec(any::<u8>(), 0..40),
            cut in 1_usize..200,
        ) {
            let bytes = [head.as_bytes(), &rest].concat();
            let (mut seen, mut taken) = (Head::default(), 0);
            for piece in bytes.chunks(cut) {
                if !seen.complete {
                    taken += seen.take(piece);
                }
            }
            prop_assert!(seen.complete);
            prop_assert_eq!(taken, head.len());
            prop_assert!(!seen.has_length && !seen.has_coding);
        }
    }
}
