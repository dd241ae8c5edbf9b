//! TLS: which versions, which certificate, and what becomes of new ones.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use reqwest::{Client, Method, tls::Version};
use serde_json::json;
use switchboard::{auth::Role, config::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{
    JWT_SECRET, MOSCOW, PASSWORD, PEPPER, TestApp, config,
    database::TestDatabase,
    eventually,
    metrics::Scrape,
    process::{self, Server},
    sse::Stream,
    tls::{Authority, Files, Pair, shown, url},
};

const POLL_MS: u64 = 50;

fn over_tls(files: &Files) -> Config {
    let mut config = config();
    (config.tls.cert_file, config.tls.key_file) = (files.cert_file.clone().into(), files.key_file.clone().into());
    config.tls.reload_interval_ms = POLL_MS;
    config
}

/// What the server says to these bytes until it closes, and how long that takes.
async fn raw(app: &TestApp, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let mut client = TcpStream::connect(app.public).await.unwrap();
    let (started, mut answer) = (Instant::now(), Vec::new());
    client.write_all(bytes).await.unwrap();
    // A reset is a close too.
    let _ = timeout(Duration::from_secs(5), client.read_to_end(&mut answer)).await.expect("it is closed");
    (answer, started.elapsed())
}

/// The opening of a TLS 1.1 handshake: version 3.2, one cipher suite of then, one kind of signature.
fn hello_1_1() -> Vec<u8> {
    let random = [7; 32];
    let extensions = [0, 13, 0, 4, 0, 2, 4, 3];
    [&[22, 3, 1, 0, 55, 1, 0, 0, 51, 3, 2][..], &random, &[0, 0, 2, 0, 47, 1, 0, 0, 8], &extensions].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_1_2_and_1_3_are_spoken_and_nothing_older_or_unencrypted() {
    let authority = Authority::new();
    let pair = authority.issue(2090);
    let files = Files::new(&pair);
    let mut config = over_tls(&files);
    config.http.header_timeout_ms = 400;
    let app = TestApp::start_with(config).await;
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = authority.client(app.public, version);
        let answer = client.get(url(app.public, "/health/live")).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), shown(&answer) == pair.der), (200, true));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        // Errors too; and the peer's address is known, or there would be no rate limit.
        let body = json!({ "login": "nobody", "password": PASSWORD, "session": "token" });
        let refused = client.post(url(app.public, "/api/v1/auth/login")).json(&body).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.headers()["strict-transport-security"], "max-age=31536000");
    }
    // A fatal alert: protocol_version.
    assert_eq!(raw(&app, &hello_1_1()).await.0, [21, 3, 3, 0, 2, 2, 70]);
    let (answer, _) = raw(&app, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // Who does not finish, or even start, the handshake is closed like one who dawdles over a head.
    // The server counts from its accept, which may be before our connect returns.
    for start in [&[][..], &hello_1_1()[..20]] {
        let (answer, took) = raw(&app, start).await;
        assert_eq!(answer, b"");
        assert!((Duration::from_millis(200)..Duration::from_secs(2)).contains(&took), "{took:?}");
    }
}

/// The certificate that a new connection is shown.
async fn now_shown(authority: &Authority, app: &TestApp) -> Vec<u8> {
    let client = authority.client(app.public, Version::TLS_1_3);
    shown(&client.get(url(app.public, "/health/live")).send().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_for_new_connections_and_bad_ones_change_nothing() {
    let authority = Authority::new();
    let (first, second, third) = (authority.issue(2090), authority.issue(2091), authority.issue(2092));
    let files = Files::new(&first);
    let plain = TestApp::start().await;
    let operator = plain.actor(Role::Operator, &[MOSCOW]).await.token.unwrap();
    let app = TestApp::over(over_tls(&files), plain.database.clone()).await;
    app.tail();
    let client = authority.client(app.public, Version::TLS_1_3);
    let asked = |client: &Client, path: &str| client.get(url(app.public, path)).bearer_auth(&operator);
    let still_first = async || shown(&asked(&client, "/api/v1/auth/me").send().await.unwrap()) == first.der;
    let (_, mut stream) = Stream::open(asked(&client, "/api/v1/events")).await;
    assert!(still_first().await);
    let reloads =
        async |result: &str| app.scrape().await.value(&format!("tls_certificate_reloads_total{{result=\"{result}\"}}"));
    let reaches = async |result: &str, count: f64| {
        eventually(result, async || (reloads(result).await == count).then_some(())).await;
    };
    let not_after = async || app.scrape().await.value("tls_certificate_not_after_timestamp_seconds");
    let before = not_after().await;

    // Half written is a pair that does not match; whole, it is good.
    std::fs::write(&files.cert_file, &second.chain).unwrap();
    reaches("failure", 1.0).await;
    assert!(now_shown(&authority, &app).await == first.der);
    std::fs::write(&files.key_file, &second.key).unwrap();
    reaches("success", 1.0).await;
    assert!(now_shown(&authority, &app).await == second.der && still_first().await);
    assert_eq!(not_after().await - before, 365.0 * 86_400.0);

    let expired = authority.issue(2021);
    let bad: [&dyn Fn(); 5] = [
        &|| std::fs::write(&files.cert_file, "garbage").unwrap(),
        &|| std::fs::write(&files.cert_file, "").unwrap(),
        &|| files.write(&Pair { chain: third.chain.clone(), ..first.clone() }),
        &|| files.write(&expired),
        &|| std::fs::remove_file(&files.key_file).unwrap(),
    ];
    for (failures, spoil) in (2_u32..).zip(bad) {
        // A look in between finds one file new and one old, which may count too.
        let at_least = f64::from(failures);
        spoil();
        eventually("a failure", async || (reloads("failure").await >= at_least).then_some(())).await;
        assert!(now_shown(&authority, &app).await == second.der);
    }
    // Once for what was found, not once for each look at it.
    let failures = reloads("failure").await;
    sleep(Duration::from_millis(4 * POLL_MS)).await;
    assert_eq!((reloads("failure").await, reloads("success").await), (failures, 1.0));

    // As certbot and Kubernetes do: links to another folder.
    let folder = Files::new(&third);
    for (name, file) in [(&files.cert_file, &folder.cert_file), (&files.key_file, &folder.key_file)] {
        let link = format!("{name}.new");
        std::os::unix::fs::symlink(file, &link).unwrap();
        std::fs::rename(&link, name).unwrap();
    }
    reaches("success", 2.0).await;
    assert!(now_shown(&authority, &app).await == third.der);
    // All the while the first connections were none the worse.
    assert!(still_first().await);
    let body = json!({ "city": MOSCOW, "phone": "+79161234567" });
    let created = client.request(Method::POST, url(app.public, "/api/v1/requests")).bearer_auth(&operator).json(&body);
    assert_eq!(created.send().await.unwrap().status(), 201);
    assert_eq!(stream.next().await.unwrap().name, "request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_reloads_at_sighup_and_never_tells_its_key() {
    let (authority, database) = (Authority::new(), TestDatabase::create().await);
    let (first, second) = (authority.issue(2090), authority.issue(2091));
    let files = Files::new(&first);
    let environment = [
        ("DATABASE_URL", database.url()),
        ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
        ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
        ("SWITCHBOARD_TLS_CERT_FILE", files.cert_file.clone()),
        ("SWITCHBOARD_TLS_KEY_FILE", files.key_file.clone()),
        ("SWITCHBOARD_TLS_RELOAD_INTERVAL_MS", "3600000".to_owned()),
        ("SWITCHBOARD_LOG_LEVEL", "debug".to_owned()),
    ];
    let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
    files.write(&second);
    server.signal(Signal::SIGHUP);
    let reloads = async || Scrape::fetch(server.ops).await.value("tls_certificate_reloads_total{result=\"success\"}");
    eventually("a reload", async || (reloads().await == 1.0).then_some(())).await;
    let client = authority.client(server.public, Version::TLS_1_3);
    let answer = client.get(url(server.public, "/health/ready")).send().await.unwrap();
    assert!(answer.status() == 200 && shown(&answer) == second.der);
    // A bad one is told of, by its name.
    files.dir.file("tls.key", &first.key);
    server.signal(Signal::SIGHUP);
    let told = eventually("a warning", async || server.log().into_iter().find(|line| line["level"] == "warn")).await;
    let said = told["error"].as_str().unwrap();
    assert!(said.contains("SWITCHBOARD_TLS_KEY_FILE") && said.contains(&files.key_file), "{told}");
    let (log, code) = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(code, Some(0));
    let all = serde_json::to_string(&log).unwrap();
    for pair in [&first, &second] {
        let secret = pair.key.lines().nth(1).unwrap();
        assert!(!all.contains(secret), "the key is in the log");
    }
}

#[test]
fn files_that_cannot_be_used_keep_a_server_from_starting() {
    let (authority, files) = (Authority::new(), Files::new(&Authority::new().issue(2090)));
    let (one, other) = (authority.issue(2090), authority.issue(2090));
    let missing = files.dir.path().join("missing.pem").to_str().unwrap().to_owned();
    let folder = files.dir.path().to_str().unwrap().to_owned();
    let at = |path: &str| path.to_owned();
    let write = |name: &str, text: &str| files.dir.file(name, text);
    let (chain, key) = (write("good.crt", &one.chain), write("good.key", &one.key));
    let cut = write("cut.key", &one.key[..60]);
    for (cert_file, key_file, setting, named, reason) in [
        (at(&missing), at(&key), "CERT", &missing, "No such file"),
        (at(&chain), at(&missing), "KEY", &missing, "No such file"),
        (at(&folder), at(&key), "CERT", &folder, "directory"),
        (at(&key), at(&key), "CERT", &key, "holds no certificate"),
        (at(&chain), at(&chain), "KEY", &chain, "holds no private key"),
        (at(&chain), at(&cut), "KEY", &cut, "holds no private key"),
        (at(&chain), write("other.key", &other.key), "KEY", &write("other.key", &other.key), "is not the key of"),
    ] {
        let environment = [
            ("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()),
            ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned()),
            ("SWITCHBOARD_TLS_CERT_FILE", cert_file),
            ("SWITCHBOARD_TLS_KEY_FILE", key_file),
            ("SWITCHBOARD_DATA_DIR", files.dir.path().join("nothing").to_str().unwrap().to_owned()),
        ];
        let said = process::run(&["serve"], &environment, b"").failure(2);
        assert!(said.starts_with(&format!("switchboard: SWITCHBOARD_TLS_{setting}_FILE: {named}: ")), "{said}");
        assert!(said.contains(reason), "{reason}: {said}");
    }
    assert!(!Path::new(&folder).join("nothing").exists(), "nothing was touched");
}
