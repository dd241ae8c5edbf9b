//! `switchboard serve --demo` with its embedded database: the first start, stopping, crashing and
//! starting again.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::{
    actor::Actor,
    eventually,
    files::TempDir,
    process::{self, Server},
};

/// Processes of PostgreSQL that name a file below `dir`.
fn postgres_of(dir: &Path) -> Vec<i32> {
    let dir = dir.to_str().unwrap();
    let listing = std::process::Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output();
    let listing = listing.expect("ps is missing: install the package procps");
    let lines = String::from_utf8_lossy(&listing.stdout).into_owned();
    let of_dir = lines.lines().filter(|line| line.contains("postgres") && line.contains(dir));
    of_dir.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

async fn start(data: &TempDir) -> Server {
    let environment = vec![("SWITCHBOARD_DATA_DIR", data.text())];
    tokio::task::spawn_blocking(move || Server::start(&["--demo"], &environment)).await.unwrap()
}

async fn stop(server: Server, signal: Signal) -> (Vec<Value>, Option<i32>) {
    tokio::task::spawn_blocking(move || server.stop_with(signal)).await.unwrap()
}

async fn sign_in(server: &Server, login: &str, password: &str) -> Actor {
    let mut actor = Actor::stranger(&format!("http://{}", server.public));
    let body = json!({ "login": login, "password": password, "session": "token" });
    actor.token = actor.post("/api/v1/auth/login", body).await.expect(200)["access_token"].as_str().map(str::to_owned);
    actor
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_survives_being_stopped_and_being_killed() {
    let data = TempDir::reserve();
    let server = start(&data).await;
    let file = data.path().join("demo.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "logins are for their owner only");
    let demo = fs::read_to_string(&file).unwrap();
    let credentials: Value = serde_json::from_str(&demo).unwrap();
    let user = |role: &str| {
        let users = credentials["users"].as_array().unwrap();
        let user = users.iter().find(|user| user["role"] == role).unwrap();
        (user["login"].as_str().unwrap().to_owned(), user["password"].as_str().unwrap().to_owned())
    };
    let ready = Actor::stranger(&format!("http://{}", server.ops)).get("/health/ready").await;
    assert_eq!(ready.expect(200), json!({ "status": "ok" }));
    let (login, password) = user("operator");
    let operator = sign_in(&server, &login, &password).await;
    let city = operator.get("/api/v1/dictionaries/cities").await.expect(200)[0]["code"].as_str().unwrap().to_owned();
    let request = operator.create_request(&city, "+79161234567").await;
    let path = format!("/api/v1/requests/{}", request["id"]);
    let (admin, password_of_admin) = user("admin");
    let admin = sign_in(&server, &admin, &password_of_admin).await;
    let told = admin.all("/api/v1/security/audit-log?action=user_created").await;
    assert_eq!(told.len(), credentials["users"].as_array().unwrap().len());
    let welcome = server.errors();
    assert!(welcome.contains(&format!("http://{}/docs", server.public)), "{welcome}");
    assert!(!welcome.contains(&password), "a password is on a standard error that is no terminal");

    // A second one on the same directory is turned away, and `user create` joins the first.
    let environment = vec![
        ("SWITCHBOARD_DATA_DIR", data.text()),
        ("SWITCHBOARD_HTTP_ADDR", "127.0.0.1:0".to_owned()),
        ("SWITCHBOARD_OPS_ADDR", "127.0.0.2:0".to_owned()),
    ];
    let second = tokio::task::spawn_blocking({
        let environment = environment.clone();
        move || process::run(&["serve", "--demo"], &environment, b"")
    });
    let second = second.await.unwrap();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&format!("another switchboard (process {})", server.id())), "{second:?}");
    let created = tokio::task::spawn_blocking(move || {
        let arguments = ["user", "create", "--login", "boss", "--name", "Boss", "--role", "admin"];
        process::run(&arguments, &environment, b"boss' password")
    });
    created.await.unwrap().success();
    sign_in(&server, "boss", "boss' password").await;

    let (log, code) = stop(server, Signal::SIGINT).await;
    assert_eq!(code, Some(0));
    assert_eq!(log.last().unwrap()["message"], "stopped", "{log:#?}");
    assert_eq!(postgres_of(data.path()), [0; 0], "PostgreSQL is gone before the program is");

    // The same data, the same logins, and the sessions go on.
    let kept = async |server: &Server| {
        assert_eq!(fs::read_to_string(&file).unwrap(), demo);
        let mut old_session = Actor::stranger(&format!("http://{}", server.public));
        old_session.token.clone_from(&operator.token);
        assert_eq!(old_session.get(&path).await.expect(200), request);
        assert_eq!(old_session.all("/api/v1/requests").await.len(), 1);
    };
    let server = start(&data).await;
    kept(&server).await;
    sign_in(&server, &login, &password).await;
    assert_eq!(stop(server, Signal::SIGKILL).await.1, None);

    // At once: the database may still be shutting down.
    let server = start(&data).await;
    kept(&server).await;

    // Now the database is killed with it, and has to recover from its log.
    let postgres = postgres_of(data.path());
    assert!(!postgres.is_empty());
    stop(server, Signal::SIGKILL).await;
    for process in postgres {
        // Some go by themselves.
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    let server = start(&data).await;
    kept(&server).await;
    assert_eq!(stop(server, Signal::SIGTERM).await.1, Some(0));
    let gone = async || postgres_of(data.path()).is_empty().then_some(());
    eventually("no PostgreSQL is left", gone).await;

    // Without its secrets the company is of no use, and new ones would only hide that.
    fs::rename(&file, data.path().join("elsewhere.json")).unwrap();
    let environment = vec![
        ("SWITCHBOARD_DATA_DIR", data.text()),
        ("SWITCHBOARD_HTTP_ADDR", "127.0.0.1:0".to_owned()),
        ("SWITCHBOARD_OPS_ADDR", "127.0.0.2:0".to_owned()),
    ];
    let robbed =
        tokio::task::spawn_blocking(move || process::run(&["serve", "--demo"], &environment, b"")).await.unwrap();
    assert_eq!(robbed.code, Some(1), "{robbed:?}");
    assert!(robbed.stderr.contains("demo.json is missing"), "{robbed:?}");
    assert!(!file.exists());
}
