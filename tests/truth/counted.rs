//! What a client has counted is what the server has counted, request by request.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::task::JoinSet;

use super::{
    client::{Line, Question},
    counts::{self, Tally},
    questions::Book,
    support::{
        MOSCOW, PASSWORD,
        actor::Actor,
        eventually,
        metrics::Scrape,
        process::Server,
        site::{Site, base, phone, scrape, stop},
    },
};

const SENT: usize = 100_000;
const CANCELLED: usize = 1_000;
/// As many hang up together; each needs a connection to the database for as long as it waits.
const WAVE: usize = 50;
/// Who ask at a time, beside those who hang up.
const ASKING: usize = 8;
/// From here on the database is away for a moment.
const OUTAGE: usize = 80_000;
/// Longer than anybody waits for a connection.
const OUTAGE_LASTS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_counts_are_the_servers() {
    let started = Instant::now();
    let mut site = Site::open().await;
    let settings = [
        ("SWITCHBOARD_LIMITS_IP", "3000/min"),
        ("SWITCHBOARD_LIMITS_LOGIN_IP", "10/min"),
        ("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "60"),
        // Who is to hang up must have come as far as the row, on a busy machine too.
        ("SWITCHBOARD_DATABASE_ACQUIRE_TIMEOUT_MS", "5000"),
        // Who waits for a row is to wait until its client goes, and not be answered before.
        ("SWITCHBOARD_DATABASE_QUERY_TIMEOUT_MS", "60000"),
        ("SWITCHBOARD_HTTP_REQUEST_TIMEOUT_MS", "120000"),
    ];
    let servers = [site.server(&settings).await, site.server(&settings).await];
    let boss = site.boss(&servers[0]).await;
    let (book, held) = prepare(&servers[0], &boss).await;
    let book = Arc::new(book);
    let before = [at_rest(&servers[0]).await, at_rest(&servers[1]).await];
    let lines_before = [0, 1].map(|n: usize| servers[n].log().len());

    let next = Arc::new(AtomicUsize::new(0));
    let addresses = [servers[0].public, servers[1].public];
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        asking.spawn(ask(addresses, book.clone(), next.clone()));
    }
    let mut tallies = hang_up(&site, &servers, &book.tokens[0], &held).await;
    println!("{CANCELLED} hung up while they waited for a row, {:.0} s", started.elapsed().as_secs_f64());
    while next.load(Ordering::Relaxed) < OUTAGE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.postgres.cut().await;
    tokio::time::sleep(OUTAGE_LASTS).await;
    site.postgres.mend().await;
    while let Some(asked) = asking.join_next().await {
        for (all, one) in tallies.iter_mut().zip(asked.unwrap()) {
            all.merge(one);
        }
    }

    let seen = [at_rest(&servers[0]).await, at_rest(&servers[1]).await];
    let [one, other] = servers;
    let logs = [stop(one).await, stop(other).await];
    let mut sum = Tally::default();
    for (replica, tally) in tallies.into_iter().enumerate() {
        let counted = counts::of_metrics(&before[replica], &seen[replica]);
        let (log, code) = &logs[replica];
        let logged = counts::of_log(&log[lines_before[replica]..]);
        let who = format!("replica {replica}: the client has, and the server");
        assert_eq!(counts::differences(&tally.counts, &counted.counts), "", "{who}");
        assert_eq!(counts::differences(&tally.counts, &logged), "", "{who}'s log");
        assert_eq!(counts::differences(&tally.bodies, &counted.bodies), "", "{who}, of bodies");
        assert_eq!(*code, Some(0));
        sum.merge(tally);
    }
    report(&sum, started.elapsed());
    let hung_up = by_status(&sum).get(&499).copied().unwrap_or_default();
    assert_eq!((sum.total(), hung_up), (SENT as u64, CANCELLED as u64), "completed and 499 are what was sent");
}

/// Service requests to ask about and those that will be held, and who asks.
async fn prepare(server: &Server, boss: &Actor) -> (Book, Vec<i64>) {
    let mut tokens = vec![boss.token.clone().unwrap()];
    for (path, role) in [("employees", "operator"), ("masters", "master")] {
        let mut body = json!({ "login": format!("a.{role}"), "password": PASSWORD, "name": role, "cities": [MOSCOW] });
        match role {
            "master" => body["share"] = json!("0.5"),
            _ => body["role"] = json!(role),
        }
        let id = boss.post(&format!("/api/v1/users/{path}"), body).await.expect(201)["id"].as_i64().unwrap();
        tokens.push(Actor::sign_in(&base(server), id, &format!("a.{role}")).await.token.unwrap());
    }
    let mut requests = Vec::new();
    for _ in 0..300 + CANCELLED {
        requests.push(boss.create_request(MOSCOW, &phone()).await["id"].as_i64().unwrap());
    }
    let held = requests.split_off(300);
    (Book::new(tokens.try_into().unwrap(), requests), held)
}

/// Takes numbers until none are left, and asks the two replicas in turn.
async fn ask(addresses: [SocketAddr; 2], book: Arc<Book>, next: Arc<AtomicUsize>) -> [Tally; 2] {
    let (mut lines, mut tallies) = (addresses.map(Line::to), [Tally::default(), Tally::default()]);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= SENT - CANCELLED {
            return tallies;
        }
        let question = book.question(number);
        let replica = number / 25 % 2;
        let answer = lines[replica].ask(&question).await;
        let answer = answer.unwrap_or_else(|error| panic!("{number}: {error}: {question:?}"));
        tallies[replica].add(&question, answer);
    }
}

/// Lets clients go that wait for a row which somebody else has locked: each is seen waiting in PostgreSQL first.
async fn hang_up(site: &Site, servers: &[Server; 2], token: &str, held: &[i64]) -> [Tally; 2] {
    let (mut holder, mut watcher) = (site.database.connect().await, site.database.connect().await);
    let holding: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    // Else PostgreSQL would end it as one that has been forgotten.
    holder.execute("SET idle_in_transaction_session_timeout = 0").await.unwrap();
    let mut tallies = [Tally::default(), Tally::default()];
    assert_eq!(held.len(), CANCELLED);
    for wave in held.chunks(WAVE) {
        let lock = format!("BEGIN; SELECT FROM requests WHERE id = ANY('{{{}}}') FOR UPDATE", list(wave));
        holder.execute(AssertSqlSafe(lock)).await.unwrap();
        let gone = [hung_up(&servers[0]).await, hung_up(&servers[1]).await];
        let mut waiting = JoinSet::new();
        for (turn, id) in wave.iter().enumerate() {
            let question = Question::new(
                Method::POST,
                "/api/v1/requests/{id}/transitions",
                &format!("/api/v1/requests/{id}/transitions"),
            );
            let question = question.by(Some(token)).json(&json!({ "to": "refused", "reason": "duplicate" }));
            let question = question.with("x-forwarded-for", format!("10.2.0.{turn}"));
            tallies[turn % 2].hang_up(&question);
            let mut line = Line::to(servers[turn % 2].public);
            waiting.spawn(async move { line.ask(&question).await });
        }
        let all = async || (blocked_by(&mut watcher, holding).await == wave.len() as i64).then_some(());
        eventually("each of them waits for its row", all).await;
        let answered = waiting.try_join_next();
        assert!(answered.is_none(), "nobody has an answer: {answered:?}");
        waiting.abort_all();
        for (server, before) in servers.iter().zip(gone) {
            let here = wave.len() as f64 / 2.0;
            let all = async || (hung_up(server).await == before + here).then_some(());
            eventually("every hang-up is counted", all).await;
        }
        // What they had asked for goes on without them as far as the row, and is taken back there.
        holder.execute("ROLLBACK").await.unwrap();
    }
    let moved = format!("SELECT count(*) FROM requests WHERE id = ANY('{{{}}}') AND status <> 'new'", list(held));
    assert_eq!(site.database.count(&moved).await, 0, "what was abandoned did not happen");
    tallies
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Sessions that wait for what this one holds.
async fn blocked_by(watcher: &mut PgConnection, holder: i32) -> i64 {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND $1 = ANY(pg_blocking_pids(pid))";
    sqlx::query_scalar(sql).bind(holder).fetch_one(watcher).await.unwrap()
}

async fn hung_up(server: &Server) -> f64 {
    scrape(server).await.answered(499)
}

/// What a replica has counted, once it serves nobody and has written down what it did.
async fn at_rest(server: &Server) -> Scrape {
    let rest = async || {
        let seen = scrape(server).await;
        let logged = server.log().iter().filter(|line| counts::is_request(line)).count();
        let all = seen.sum("http_server_request_duration_seconds_count");
        (seen.sum("http_server_active_requests") == 0.0 && all == logged as f64).then_some(seen)
    };
    eventually("it is at rest", rest).await
}

fn by_status(tally: &Tally) -> BTreeMap<u16, u64> {
    let mut statuses = BTreeMap::new();
    for ((_, _, status), count) in &tally.counts {
        *statuses.entry(*status).or_default() += count;
    }
    statuses
}

fn report(sum: &Tally, took: Duration) {
    let statuses = by_status(sum);
    println!("sent {}, hung up {}, {:.0} s", sum.total(), statuses.get(&499).unwrap_or(&0), took.as_secs_f64());
    for (status, count) in &statuses {
        println!("  {status}: {count}");
    }
    let (answers, bytes) = sum.bodies.values().fold((0, 0), |sum, route| (sum.0 + route.0, sum.1 + route.1));
    let routes = sum.counts.keys().map(|(route, ..)| route).collect::<std::collections::BTreeSet<_>>().len();
    println!(
        "{} counters of route, method and status over {routes} routes, the log's lines, and {answers} bodies of {bytes} \
         bytes: the same on both sides",
        sum.counts.len()
    );
}
