//! Limits on what is sent, and what servers disagree about: byte by byte, as no HTTP client would send it.

use std::time::Duration;

use reqwest::{Body, Method};
use serde_json::{Value, json};
use switchboard::auth::Role;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{MOSCOW, TestApp, config};

/// Everything that is said to these bytes, until the server closes.
async fn said(app: &TestApp, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(app.public).await.unwrap();
    // It may close before it has read all.
    let _ = client.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), client.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Checks that the only answer is this problem; on a connection that is closed then.
#[track_caller]
fn assert_problem(said: &str, status: u16, code: &str, what: &str) {
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{what}: {said}");
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {said}");
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{what}: {said}");
    assert!(head.contains("x-content-type-options: nosniff"), "{what}: {said}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], code, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_or_read_in_two_ways_are_refused() {
    let app = TestApp::start().await;
    let live = |headers: &str| format!("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let many = |count: usize| "X-A: b\r\n".repeat(count);
    assert!(said(&app, live(&many(62)).as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_problem(&said(&app, live(&many(63)).as_bytes()).await, 431, "head_too_large", "65 headers");
    let padded = |bytes: usize| live(&format!("X-A: {}\r\n", "x".repeat(bytes)));
    assert!(said(&app, padded(32_000).as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert_problem(&said(&app, padded(32_768).as_bytes()).await, 431, "head_too_large", "32 KiB");
    // Beyond twice that nothing is read any more, so hyper answers for us.
    for head in [live(&many(127)), padded(200_000)] {
        assert!(said(&app, head.as_bytes()).await.starts_with("HTTP/1.1 431 "), "{}", head.len());
    }
    let path =
        |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(bytes - 1));
    assert_problem(&said(&app, path(8_192).as_bytes()).await, 404, "not_found", "8 KiB");
    assert_problem(&said(&app, path(8_193).as_bytes()).await, 414, "uri_too_long", "more than 8 KiB");

    // A second request hides behind the first: only who takes the other length sees it.
    let hidden = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let post = |headers: &str| {
        format!("POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n")
    };
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\nCONTENT-LENGTH: 0\r\n",
    ] {
        let smuggling = format!("{}0\r\n\r\n{hidden}", post(lengths));
        let refused = said(&app, smuggling.as_bytes()).await;
        assert_problem(&refused, 400, "malformed", lengths);
        assert!(refused.contains("not both"), "{refused}");
        // Nor does it help to send it behind one that is right.
        let behind = format!("{hidden}{smuggling}");
        let answers = said(&app, behind.as_bytes()).await;
        assert_eq!((answers.matches("HTTP/1.1 200 ").count(), answers.matches("HTTP/1.1 400 ").count()), (1, 1));
        assert!(answers.contains("not both") && answers.matches("HTTP/1.1 ").count() == 2, "{answers}");
    }
    // Nothing is served behind a chunked body: if a proxy dropped a length, it may be meant for nobody.
    let chunked = format!("{}2\r\n{{}}\r\n0\r\n\r\n{hidden}", post("Transfer-Encoding: chunked\r\n"));
    let answer = said(&app, chunked.as_bytes()).await;
    assert_problem(&answer, 422, "invalid", "chunked");
    assert!(answer.contains("connection: close"), "{answer}");
    // What hyper refuses by itself, and closes.
    for (what, bytes) in [
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("a list of lengths", post("Content-Length: 5, 5\r\n")),
        ("a signed length", post("Content-Length: +5\r\n")),
        ("another coding", post("Transfer-Encoding: gzip\r\n")),
        ("chunked, and then another", post("Transfer-Encoding: chunked, gzip\r\n")),
        ("chunked in HTTP/1.0", post("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ("a folded header", live("X-A: b\r\n c\r\n")),
        ("a space before the colon", live("Content-Length : 5\r\n")),
        ("a NUL", live("X-A: b\0c\r\n")),
        ("a lone CR", live("X-A: b\rX-B: c\r\n")),
        ("a name with a space", live("X A: b\r\n")),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no HTTP", "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n".to_owned()),
    ] {
        let answer = said(&app, format!("{bytes}{hidden}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
    // RFC 9112 §3.2: one Host.
    for (hosts, what) in [("", "none"), ("Host: x\r\nHost: y\r\n", "two")] {
        let head = format!("GET /health/live HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let refused = said(&app, head.as_bytes()).await;
        assert_problem(&refused, 400, "malformed", what);
        // What asks for a page's permission is a request like any other.
        assert_problem(&said(&app, head.replace("GET", "OPTIONS").as_bytes()).await, 400, "malformed", what);
    }
    let preflight = live(&many(63)).replace("GET", "OPTIONS");
    assert_problem(&said(&app, preflight.as_bytes()).await, 431, "head_too_large", "65 headers");
    let chunked =
        format!("OPTIONS / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{hidden}");
    let answer = said(&app, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_too_deep_or_no_json_are_refused() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let send = async |body: Body| {
        let request = operator.request(Method::POST, "/api/v1/requests").header("content-type", "application/json");
        operator.send(request.body(body)).await
    };
    let chunked = |text: String| {
        let chunks: Vec<_> = text.into_bytes().chunks(10_000).map(<[u8]>::to_vec).collect();
        Body::wrap_stream(futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    };
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" }).to_string();
    let padded = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    send(padded(262_144).into()).await.expect(201);
    send(chunked(padded(262_144))).await.expect(201);
    send(padded(262_145).into()).await.problem(413, "too_large");
    send(chunked(padded(262_145))).await.problem(413, "too_large");
    let field = |value: &str| format!("{{\"city\":\"{MOSCOW}\",\"phone\":\"+79161234567\",\"description\":{value}}}");
    for (what, body, code) in [
        ("deep arrays", "[".repeat(100_000).into_bytes(), "invalid"),
        ("deep objects", "{\"a\":".repeat(50_000).into_bytes(), "invalid"),
        ("a deep field", field(&"[".repeat(100_000)).into_bytes(), "invalid"),
        ("a huge number", field("1e999999").into_bytes(), "malformed"),
        ("a long number", field(&"9".repeat(100_000)).into_bytes(), "malformed"),
        ("no UTF-8", b"{\"city\":\"\xff\xfe\"}".to_vec(), "malformed"),
        ("half a surrogate", field("\"\\ud800\"").into_bytes(), "malformed"),
        ("a key twice", format!("{{\"city\":\"{MOSCOW}\",\"city\":\"{MOSCOW}\"}}").into_bytes(), "invalid"),
        ("nothing", Vec::new(), "malformed"),
    ] {
        println!("{what}");
        send(body.into()).await.problem(if code == "invalid" { 422 } else { 400 }, code);
    }
    assert_eq!(app.database.count("SELECT count(*) FROM requests").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let mut config = config();
    config.http.stall_timeout_ms = 300;
    let app = TestApp::start_with(config).await;
    for drips in [false, true] {
        let mut client = TcpStream::connect(app.public).await.unwrap();
        let started = Instant::now();
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        client.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = client.split();
        let drip = async {
            while drips && writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = drip => {}
            read = timeout(Duration::from_secs(5), reader.read_to_end(&mut answer)) => { let _ = read.expect("it is closed"); }
        }
        assert!((300..1_500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        assert_problem(&String::from_utf8_lossy(&answer), 408, "body_too_slow", "half a body");
    }
    assert_eq!(app.scrape().await.served("POST", "/api/v1/auth/login", 408), 2.0);
}
