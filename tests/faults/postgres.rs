//! The database away, dark, slow, restarted, and all its connections in use.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use switchboard::db::{
    embedded::{Cluster, Durability, Options},
    migrate,
};
use tokio::time::sleep;

use crate::{
    support::{
        MOSCOW, MOSCOW_LINE, PASSWORD,
        actor::{Actor, Answer, number},
        files::TempDir,
        found_company_over,
        load::{self, Load},
        process::{self, Server},
        proxy::Weather,
        site::{Site, base, phone, scrape, stop, timed},
        telephony::Call,
    },
    table::{Row, ms, within},
};

const DOWN: Row = Row {
    number: 1,
    fault: "PostgreSQL is down",
    promise: "503 + Retry-After in ≤ 1.1 s; liveness 200, readiness 503; well again in ≤ 5 s",
    seen_in: "dependency_up{dependency=\"postgresql\"}, db_client_errors_total{sqlstate_class=\"08\"}",
};
const DARK: Row = Row {
    number: 2,
    fault: "PostgreSQL goes dark: connections stay, nothing comes through",
    promise: "503 or 504 in ≤ 4 s; the pool is usable again in ≤ 5 s",
    seen_in: "dependency_up{dependency=\"postgresql\"}, db_client_errors_total{sqlstate_class=\"timeout\"}",
};
const SLOW: Row = Row {
    number: 3,
    fault: "PostgreSQL is slow: two seconds on the way in each direction",
    promise: "503 or 504 in ≤ 4 s; the pool is usable again in ≤ 5 s",
    seen_in: "db_client_errors_total{sqlstate_class=\"timeout\"}",
};
const RESTART: Row = Row {
    number: 4,
    fault: "PostgreSQL restarts under load",
    promise: "only what is in flight fails; no acknowledged write is lost; well again in ≤ 5 s",
    seen_in: "db_client_errors_total",
};
const POOL: Row = Row {
    number: 5,
    fault: "The pool is exhausted",
    promise: "503 in ≤ 1.1 s; probes and calls that come in unaffected",
    seen_in: "db_pool_acquire_timeouts_total, db_pool_connections{state=\"used\"}",
};

const STANDBY: Row = Row {
    number: 18,
    fault: "PostgreSQL takes no writes: the server is a standby now",
    promise: "503 + Retry-After, readiness 503; well again in ≤ 5 s after another one takes them",
    seen_in: "dependency_up{dependency=\"postgresql\"}, db_client_errors_total{sqlstate_class=\"25\"}",
};

/// One of everything that needs the database, at once: each answer and how long it took.
async fn try_everything(server: &Server, boss: &Actor) -> Vec<(Answer, Duration)> {
    let stranger = Actor::stranger(&base(server));
    let call = Call::new(&format!("entry{}", number()), "79161234567", MOSCOW_LINE);
    let login = json!({ "login": boss.login, "password": PASSWORD, "session": "token" });
    let appeared = call.appeared();
    let delivery = stranger.deliver(&appeared);
    let (list, me, create, login, delivery) = tokio::join!(
        timed(boss.get("/api/v1/requests")),
        timed(boss.get("/api/v1/auth/me")),
        timed(boss.post("/api/v1/requests", json!({ "city": MOSCOW, "phone": "+79161234567" }))),
        timed(stranger.post("/api/v1/auth/login", login)),
        timed(delivery),
    );
    vec![list, me, create, login, delivery]
}

/// That the probes say so, and go on saying so quickly.
async fn probes(server: &Server, ready: u16) {
    let prober = Actor::stranger(&format!("http://{}", server.ops));
    let says = async || (prober.get("/health/ready").await.status == ready).then_some(());
    within("readiness", Duration::from_secs(3), says).await;
    let (live, took) = timed(prober.get("/health/live")).await;
    assert_eq!(live.status, 200);
    assert!(took < Duration::from_millis(200), "{took:?}");
}

/// How soon everything works again.
async fn recovery(server: &Server, boss: &Actor) -> Duration {
    let works = async || {
        let answers = try_everything(server, boss).await;
        answers.iter().all(|(answer, _)| answer.status.is_success()).then_some(())
    };
    within("everything works", Duration::from_secs(5), works).await.1
}

async fn wait_until_pool_is_free(server: &Server) {
    let free = async || (scrape(server).await.value("db_pool_connections{state=\"used\"}") == 0.0).then_some(());
    within("no connection is in use", Duration::from_secs(5), free).await;
}

/// The same, of which each must be refused in time.
async fn all_refused(server: &Server, boss: &Actor, statuses: &[u16], limit: Duration) -> Duration {
    let mut slowest = Duration::ZERO;
    // The connections that broke show themselves at their first use, the others refuse to open.
    for _ in 0..3 {
        for (answer, took) in try_everything(server, boss).await {
            assert!(statuses.contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
            assert!(!answer.header("retry-after").is_empty(), "{}", answer.text);
            assert_eq!(answer.header("content-type"), "application/problem+json");
            slowest = slowest.max(took);
        }
    }
    assert!(slowest <= limit, "{slowest:?}");
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_down_the_api_says_so_at_once() {
    let mut site = Site::open().await;
    let server = site.server(&[]).await;
    let boss = site.boss(&server).await;
    assert!(try_everything(&server, &boss).await.iter().all(|(answer, _)| answer.status.is_success()));
    site.postgres.cut().await;
    let slowest = all_refused(&server, &boss, &[503], Duration::from_millis(1_100)).await;
    probes(&server, 503).await;
    let seen = scrape(&server).await;
    assert_eq!(seen.value("dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert!(seen.value("db_client_errors_total{sqlstate_class=\"08\"}") > 0.0);
    assert_eq!(seen.answered(500), 0.0);
    site.postgres.mend().await;
    let recovered = recovery(&server, &boss).await;
    probes(&server, 200).await;
    wait_until_pool_is_free(&server).await;
    assert_eq!(scrape(&server).await.value("dependency_up{dependency=\"postgresql\"}"), 1.0);
    DOWN.measured(format_args!("503 in {}, well again in {}", ms(slowest), ms(recovered)));
    assert_eq!(stop(server).await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_went_dark_is_given_up_on() {
    let mut site = Site::open().await;
    let server = site.server(&[]).await;
    let boss = site.boss(&server).await;
    site.postgres.freeze();
    let slowest = all_refused(&server, &boss, &[503, 504], Duration::from_secs(4)).await;
    probes(&server, 503).await;
    let seen = scrape(&server).await;
    assert_eq!(seen.value("dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert!(seen.value("db_client_errors_total{sqlstate_class=\"timeout\"}") > 0.0);
    site.postgres.mend().await;
    let recovered = recovery(&server, &boss).await;
    wait_until_pool_is_free(&server).await;
    DARK.measured(format_args!("given up on in {}, well again in {}", ms(slowest), ms(recovered)));
    assert_eq!(stop(server).await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_slow_is_given_up_on() {
    let mut site = Site::open().await;
    let server = site.server(&[]).await;
    let boss = site.boss(&server).await;
    site.postgres.turn(Weather::Slow(Duration::from_secs(2)));
    let slowest = all_refused(&server, &boss, &[503, 504], Duration::from_secs(4)).await;
    let seen = scrape(&server).await;
    assert!(seen.value("db_client_errors_total{sqlstate_class=\"timeout\"}") > 0.0);
    site.postgres.mend().await;
    let recovered = recovery(&server, &boss).await;
    wait_until_pool_is_free(&server).await;
    SLOW.measured(format_args!("given up on in {}, well again in {}", ms(slowest), ms(recovered)));
    assert_eq!(stop(server).await.1, Some(0));
}

/// A cluster of the test's own, which can be restarted and loses nothing.
async fn cluster(dir: &TempDir) -> Cluster {
    let options = Options { dir: dir.path().to_owned(), durability: Durability::Full, max_connections: 50 };
    Cluster::start(options, &|_| ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_costs_only_what_is_in_flight() {
    let dir = TempDir::reserve();
    let running = cluster(&dir).await;
    let url = format!("postgres:///switchboard?host={}&user=switchboard", running.socket_dir().display());
    migrate::run(&url.parse().unwrap()).await.unwrap();
    found_company_over(&mut PgConnection::connect(&url).await.unwrap()).await;
    let mut environment = vec![
        ("DATABASE_URL", url.clone()),
        ("SWITCHBOARD_LIMITS_IP", "1000000/min".to_owned()),
        ("SWITCHBOARD_LIMITS_USER", "1000000/min".to_owned()),
    ];
    environment.extend(process::secrets());
    let (server, boss) = {
        let settings = environment.clone();
        let create = move || {
            let arguments = ["user", "create", "--login", "boss", "--name", "Boss", "--role", "admin"];
            process::run(&arguments, &settings, format!("{PASSWORD}\n").as_bytes()).success()
        };
        tokio::task::spawn_blocking(create).await.unwrap();
        let server = tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap();
        let boss = Actor::sign_in(&base(&server), 0, "boss").await;
        (server, boss)
    };

    // Each writes one request; those that were acknowledged are remembered by their telephone numbers.
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let load = {
        let acknowledged = acknowledged.clone();
        Load::start(50, move |_| {
            let phone = phone();
            let request =
                boss.request(Method::POST, "/api/v1/requests").json(&json!({ "city": MOSCOW, "phone": phone }));
            let acknowledged = acknowledged.clone();
            async move {
                let outcome = load::send(request).await;
                if outcome == Ok(201) {
                    acknowledged.lock().unwrap().push(phone);
                }
                outcome
            }
        })
    };
    sleep(Duration::from_secs(3)).await;
    let went = load.elapsed();
    running.stop().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let running = cluster(&dir).await;
    let back = load.elapsed();
    sleep(Duration::from_secs(6)).await;
    let shots = load.stop().await;

    let (slack, settled) = (Duration::from_millis(1_200), Duration::from_secs(5));
    assert!(shots.between(Duration::ZERO, went.saturating_sub(slack)).failed().is_empty(), "{:?}", shots.outcomes());
    let failed = shots.failed();
    assert!(!failed.is_empty());
    assert!(failed.iter().all(|shot| shot.outcome == Ok(503)), "{:?}", shots.outcomes());
    let last = failed.iter().map(|shot| shot.at).max().unwrap();
    let recovered = last.saturating_sub(back);
    assert!(recovered <= settled, "{recovered:?}");
    assert!(shots.slowest() <= Duration::from_secs(4), "{:?}", shots.slowest());
    let acknowledged = acknowledged.lock().unwrap().clone();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT phone_e164 FROM requests JOIN clients ON clients.id = client_id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let lost = acknowledged.iter().filter(|phone| !kept.contains(phone)).count();
    assert_eq!(lost, 0, "of {} acknowledged", acknowledged.len());
    let seen = scrape(&server).await;
    assert!(seen.sum("db_client_errors_total") > 0.0);
    assert_eq!(seen.answered(500), 0.0);
    RESTART.measured(format_args!(
        "down for {}: {} of {} requests got 503, all of them before {} after it was back; {} acknowledged writes, 0 lost",
        ms(back.saturating_sub(went)),
        failed.len(),
        shots.len(),
        ms(recovered),
        acknowledged.len(),
    ));
    assert_eq!(stop(server).await.1, Some(0));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_exhausted_is_said_at_once() {
    let site = Site::open().await;
    // Who waits for a lock does so for a third of the limit of a query: for longer than who waits for a connection.
    let settings = [("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "4"), ("SWITCHBOARD_DATABASE_QUERY_TIMEOUT_MS", "6000")];
    let server = site.server(&settings).await;
    let boss = site.boss(&server).await;
    let prober = Actor::stranger(&format!("http://{}", server.ops));
    // Whoever looks at requests waits for this lock, with a connection in hand.
    let mut lock = site.database.connect().await;
    lock.execute("BEGIN; LOCK TABLE requests").await.unwrap();
    let mut waited = Duration::ZERO;
    let stranger = Actor::stranger(&base(&server));
    let (mut probe, mut delivery) = (Duration::ZERO, Duration::ZERO);
    let mut refused = 0;
    for _ in 0..3 {
        let asking = join_all((0..20).map(|_| timed(boss.get("/api/v1/requests"))));
        let probing = async {
            sleep(Duration::from_millis(300)).await;
            let ready = timed(prober.get("/health/ready")).await;
            let live = timed(prober.get("/health/live")).await;
            assert_eq!((ready.0.status.as_u16(), live.0.status.as_u16()), (200, 200));
            let used = scrape(&server).await.value("db_pool_connections{state=\"used\"}");
            assert_eq!(used, 4.0);
            let call = Call::new(&format!("entry{}", number()), "79161234567", MOSCOW_LINE);
            let (taken, took) = timed(stranger.deliver(&call.appeared())).await;
            taken.expect(200);
            delivery = delivery.max(took);
            ready.1.max(live.1)
        };
        let (answers, probed) = tokio::join!(asking, probing);
        probe = probe.max(probed);
        let mut times = Vec::new();
        for (answer, took) in answers {
            assert!(!answer.header("retry-after").is_empty());
            answer.problem(503, "overloaded");
            times.push(took);
        }
        times.sort();
        // All but those who have a connection, and wait for the lock.
        let waiting = &times[..times.len() - 4];
        (waited, refused) = (waited.max(waiting[waiting.len() - 1]), refused + waiting.len());
        assert!(times[times.len() - 1] <= Duration::from_secs(4), "{times:?}");
    }
    assert!(waited <= Duration::from_millis(1_100), "{waited:?}");
    assert!(probe <= Duration::from_millis(200), "{probe:?}");
    assert!(delivery <= Duration::from_millis(200), "{delivery:?}");
    let seen = scrape(&server).await;
    assert!(seen.value("db_pool_acquire_timeouts_total") > 0.0);
    assert_eq!(seen.answered(500), 0.0);
    lock.close().await.unwrap();
    let works = async || (boss.get("/api/v1/requests").await.status == 200).then_some(());
    let ((), recovered) = within("requests are served", Duration::from_secs(5), works).await;
    wait_until_pool_is_free(&server).await;
    POOL.measured(format_args!(
        "{refused} refused in {} at most, slowest probe {}, slowest delivery of a call {}, well again in {}",
        ms(waited),
        ms(probe),
        ms(delivery),
        ms(recovered)
    ));
    assert_eq!(stop(server).await.1, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_left() {
    let site = Site::open().await;
    let server = site.server(&[]).await;
    let boss = site.boss(&server).await;
    assert!(try_everything(&server, &boss).await.iter().all(|(answer, _)| answer.status.is_success()));
    // For connections to come, and all have to: as when a name points to a standby.
    let mut admin = site.database.connect().await;
    let name = site.database.options().get_database().unwrap().to_owned();
    let told = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    admin.execute(AssertSqlSafe(told)).await.unwrap();
    let leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    admin.execute(leave).await.unwrap();
    probes(&server, 503).await;
    let mut slowest = Duration::ZERO;
    // The first find connections that were ended, the others new ones.
    for _ in 0..30 {
        let body = json!({ "city": MOSCOW, "phone": phone() });
        let (answer, took) = timed(boss.post("/api/v1/requests", body)).await;
        assert!(!answer.header("retry-after").is_empty(), "{}", answer.text);
        answer.problem(503, "database_unavailable");
        slowest = slowest.max(took);
    }
    assert!(slowest <= Duration::from_millis(1_100), "{slowest:?}");
    let seen = scrape(&server).await;
    assert_eq!(seen.value("dependency_up{dependency=\"postgresql\"}"), 0.0);
    assert!(seen.value("db_client_errors_total{sqlstate_class=\"25\"}") > 0.0);
    assert_eq!(seen.answered(500), 0.0);
    // Nobody ends connections now: the server leaves them by itself.
    let told = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    admin.execute(AssertSqlSafe(told)).await.unwrap();
    let recovered = recovery(&server, &boss).await;
    probes(&server, 200).await;
    STANDBY.measured(format_args!("503 in {}, well again in {}", ms(slowest), ms(recovered)));
    assert_eq!(stop(server).await.1, Some(0));
}
