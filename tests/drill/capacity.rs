//! What there is too little of: connections of the pool, cores, file descriptors, memory that helps.

use std::{process::Command, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Executor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, sleep},
};

use crate::{
    drill::{Drill, Proof, TICKET},
    faults::{Hold, Ongoing, answered, stutter},
    lab::{Lab, Setup},
    support::{
        MOSCOW,
        actor::{Actor, number},
    },
};

const TIMEOUTS: Proof = Proof {
    alert: "DbPoolTimeouts",
    fault: "ten requests wait for a table that somebody holds, and six more for their connections",
    summary: "Requests wait in vain for a database connection",
    says: "waits for a pooled connection were given up within 5 minutes",
    value: (5.0, 20.0),
    ..TICKET
};
const SATURATED: Proof = Proof {
    alert: "DbPoolSaturated",
    fault: "nine requests at a time wait for a table that is held again and again",
    says: "of the connections of 127.",
    value: (0.8, 1.0),
    ..TICKET
};

pub const POOL: Drill =
    Drill { test: "capacity::pool", minutes: 13, proves: &[TIMEOUTS, SATURATED], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn pool() {
    // Who waits for a lock does so for a third of this, longer than who waits for a connection.
    let settings = vec![("SWITCHBOARD_DATABASE_QUERY_TIMEOUT_MS", "12000".to_owned())];
    let lab = Lab::with(Setup { settings, ..Setup::default() }).await;
    let boss = lab.boss().await;
    let id = boss.create_request(MOSCOW, "+79161234567").await["id"].as_i64().unwrap();
    // Files are not what the objective of latency counts.
    let files = format!("/api/v1/requests/{id}/files");
    let one = boss.at(&lab.replicas[0].base());
    let mut run = POOL.begin(&lab).await;
    run.breaks(&[TIMEOUTS.alert]);
    let held = Hold::take(&lab.site.database, "LOCK TABLE requests").await;
    let holders = join_all((0..10).map(|_| one.get(&files)));
    let others = async {
        sleep(Duration::from_millis(300)).await;
        for answer in join_all((0..6).map(|_| one.get(&files))).await {
            answer.problem(503, "overloaded");
        }
        held.release().await;
    };
    for answer in tokio::join!(holders, others).0 {
        answer.expect(200);
    }
    run.mends(&[TIMEOUTS.alert]);

    run.breaks(&[SATURATED.alert]);
    let mut session = lab.site.database.connect().await;
    let holding = Ongoing::start(async move {
        loop {
            session.execute("BEGIN; LOCK TABLE requests").await.unwrap();
            sleep(Duration::from_millis(1_200)).await;
            session.execute("COMMIT").await.unwrap();
        }
    });
    let asking: Vec<Ongoing> = (0..9)
        .map(|_| {
            let (client, files) = (one.at(&lab.replicas[0].base()), files.clone());
            Ongoing::start(async move {
                loop {
                    client.get(&files).await.expect(200);
                }
            })
        })
        .collect();
    run.all_notified().await;
    run.mends(&[SATURATED.alert]);
    drop((asking, holding));
    run.all_resolved().await;
    run.done();
}

pub const SIGN_INS: Drill = Drill {
    test: "capacity::sign_ins",
    minutes: 11,
    proves: &[Proof {
        alert: "PasswordHashQueueHigh",
        fault: "nine people sign in in the same moment, twice within five minutes",
        summary: "no core is free to hash",
        says: "waited 200 ms for a core and were answered 503",
        value: (5.0, 30.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins() {
    let lab = Lab::open().await;
    let mut run = SIGN_INS.begin(&lab).await;
    run.breaks(&[]);
    let base = lab.replicas[0].base();
    let rush = async || {
        let mut shed = 0;
        while shed < 6 {
            let people = (0..9).map(async |_| {
                let body =
                    json!({ "login": format!("nobody{}", number()), "password": "wrong horse", "session": "token" });
                Actor::stranger(&base).post("/api/v1/auth/login", body).await.status
            });
            shed += join_all(people).await.iter().filter(|status| **status == 503).count();
        }
    };
    rush().await;
    // Most requests are well: a few people who were turned away are no page.
    let healthy = base.clone();
    answered(401, 1_500, move |client, _| client.get(format!("{healthy}/api/v1/requests"))).await;
    sleep(Duration::from_mins(3)).await;
    rush().await;
    run.mends(&[]);
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}

pub const LAG: Drill = Drill {
    test: "capacity::lag",
    minutes: 12,
    proves: &[Proof {
        alert: "EventLoopLag",
        fault: "one replica is stopped for a quarter of a second, every three seconds",
        says: "late or later over the last 5 minutes",
        value: (0.1, 1.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn lag() {
    let lab = Lab::open().await;
    let mut run = LAG.begin(&lab).await;
    run.breaks(&[]);
    let rhythm = stutter(lab.replicas[1].server().id(), Duration::from_millis(250), Duration::from_millis(2_750));
    let ticket = run.notified("EventLoopLag").await;
    assert_eq!(ticket.label("instance"), lab.replicas[1].instance());
    run.mends(&[]);
    drop(rhythm);
    run.all_resolved().await;
    run.done();
}

pub const DESCRIPTORS: Drill = Drill {
    test: "capacity::descriptors",
    minutes: 7,
    proves: &[Proof {
        alert: "FdUsageHigh",
        fault: "one replica may have 256 descriptors (prlimit), and clients keep connections open",
        says: "of its file descriptors open",
        value: (0.8, 1.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn descriptors() {
    const LIMIT: u32 = 256;
    let lab = Lab::open().await;
    let mut run = DESCRIPTORS.begin(&lab).await;
    run.breaks(&[]);
    let replica = &lab.replicas[1];
    let process = replica.server().id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &process, &format!("--nofile={LIMIT}:")]).status().unwrap();
    assert!(limited.success());
    let open = replica.scrape().await.value("process_open_fds");
    let mut clients = Vec::new();
    for _ in 0..f64::from(LIMIT) as usize * 9 / 10 - open as usize {
        clients.push(TcpStream::connect(replica.addresses[0]).await.unwrap());
    }
    let clients = Ongoing::start(async move {
        // Connections that are idle for longer than a minute are closed.
        let mut turns = interval(Duration::from_secs(30));
        loop {
            turns.tick().await;
            for client in &mut clients {
                client.write_all(b"GET /health/live HTTP/1.1\r\nHost: switchboard\r\n\r\n").await.unwrap();
                let mut answer = vec![0; 4_096];
                assert!(client.read(&mut answer).await.unwrap() > 0);
            }
        }
    });
    let ticket = run.notified("FdUsageHigh").await;
    assert_eq!(ticket.label("instance"), replica.instance());
    run.mends(&[]);
    drop(clients);
    run.all_resolved().await;
    run.done();
}

pub const CACHE: Drill = Drill {
    test: "capacity::cache",
    minutes: 10,
    proves: &[Proof {
        alert: "CacheHitRatioLow",
        fault: "somebody changes a city five times a second",
        labels: &[("slo", "none"), ("cache", "dictionaries")],
        summary: "The cache of dictionaries hardly helps",
        says: "of the look-ups of dictionaries in the last 15 minutes were hits",
        value: (0.0, 0.5),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn cache() {
    const CITIES: &str = "/api/v1/dictionaries/cities";
    let lab = Lab::open().await;
    let boss = lab.boss().await;
    let one = boss.at(&lab.replicas[0].base());
    let mut run = CACHE.begin(&lab).await;
    run.breaks(&[]);
    let mut session = lab.site.database.connect().await;
    let changing = Ongoing::start(async move {
        let mut turns = interval(Duration::from_millis(200));
        loop {
            turns.tick().await;
            session.execute("UPDATE cities SET name_en = 'Moscow ' || md5(random()::text)").await.unwrap();
        }
    });
    let asker = one.at(&lab.replicas[0].base());
    let asking = Ongoing::start(async move {
        let mut turns = interval(Duration::from_millis(400));
        loop {
            turns.tick().await;
            asker.get(CITIES).await.expect(200);
        }
    });
    run.all_notified().await;
    run.mends(&[]);
    drop((changing, asking));
    let asking = Ongoing::start(async move {
        let mut turns = interval(Duration::from_millis(50));
        loop {
            turns.tick().await;
            one.get(CITIES).await.expect(200);
        }
    });
    run.all_resolved().await;
    drop(asking);
    run.done();
}
