//! The command line: what it prints, and what it says to somebody who made a mistake. The server it
//! starts is in `demo` and `serve`.

use std::net::TcpListener;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    GENERIC_SECRET, JWT_SECRET, KAZAN, MOSCOW, PASSPORT_KEY, PEPPER, TestApp,
    database::TestDatabase,
    files::TempDir,
    process::{self, Outcome},
};

const SECRETS: [&str; 4] = [JWT_SECRET, PEPPER, GENERIC_SECRET, PASSPORT_KEY];

fn secrets() -> Vec<(&'static str, String)> {
    process::secrets().to_vec()
}

/// Off the asynchronous threads, which serve the database and the other side.
async fn run(arguments: Vec<String>, environment: Vec<(&'static str, String)>, input: Vec<u8>) -> Outcome {
    let work = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        process::run(&arguments, &environment, &input)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_readiness_says() {
    let app = TestApp::start().await;
    let ask = async |ops: String| run(vec!["health".to_owned()], vec![("SWITCHBOARD_OPS_ADDR", ops)], Vec::new()).await;
    // As a container has it: on all of its addresses.
    let everywhere = format!("0.0.0.0:{}", app.ops.port());
    assert_eq!(ask(everywhere.clone()).await.success(), "ok\n");
    app.app.lifecycle.begin_draining();
    let draining = ask(everywhere).await;
    assert_eq!((draining.code, draining.stdout.as_str()), (Some(1), "shutting_down\n"), "{draining:#?}");
    let silence = ask("127.0.0.1:9".to_owned()).await.failure(1);
    assert!(silence.contains("no Switchboard answers at 127.0.0.1:9"), "{silence}");
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "serve", "health", "migrate", "user", "import", "backup", "restore", "simulate", "openapi", "metrics", "config",
    ];
    let overview = process::run(&["--help"], &[], b"").success();
    for command in commands {
        assert!(overview.lines().any(|line| line.trim().starts_with(command)), "{command}: {overview}");
        let help = process::run(&[command, "--help"], &[], b"").success();
        assert!(help.contains(&format!("Usage: switchboard {command}")), "{help}");
        assert!(help.contains("--config"), "{help}");
    }
    let help = process::run(&["user", "create", "--help"], &[], b"").success();
    for option in ["--login", "--name", "--role", "--city", "--phone", "--email", "--share", "standard input"] {
        assert!(help.contains(option), "{option}: {help}");
    }
    assert!(process::run(&["--version"], &[], b"").success().contains(env!("CARGO_PKG_VERSION")));
    for wrong in [&[][..], &["fly"], &["serve", "--fast"], &["user"], &["user", "create", "--role", "king"]] {
        let outcome = process::run(wrong, &[], b"");
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(!outcome.stderr.is_empty() && outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_wrong_setting_is_named_with_the_way_out() {
    let files = TempDir::create();
    let broken = files.file("broken.toml", "[jwt]\nsecret = \"hunter2-hunter2-hunter2-hunter2\n");
    let secret = files.file("secret.toml", "[jwt]\nsecret = \"hunter2-hunter2-hunter2-hunter2\"\n");
    let stranger = files.file("stranger.toml", "[http]\nadr = \"127.0.0.1:8000\"\n");
    let mistyped = files.file("mistyped.toml", "[database]\nmax_connections = \"many\"\n");
    let missing = files.path().join("missing.toml").to_str().unwrap().to_owned();
    let cases = [
        (
            "SWITCHBOARD_HTTP_ADDR",
            "everywhere",
            "SWITCHBOARD_HTTP_ADDR",
            "\"everywhere\" is no address such as 127.0.0.1:8000",
        ),
        ("SWITCHBOARD_HTTP_ADRR", "127.0.0.1:1", "SWITCHBOARD_HTTP_ADRR", "did you mean SWITCHBOARD_HTTP_ADDR"),
        ("SWITCHBOARD_OPS_ADDR", "127.0.0.1:8000", "SWITCHBOARD_OPS_ADDR", "127.0.0.1:9464"),
        ("SWITCHBOARD_JWT_SECRET", "", "SWITCHBOARD_JWT_SECRET", "openssl rand -hex 32"),
        ("SWITCHBOARD_PASSWORD_PEPPER", "short", "SWITCHBOARD_PASSWORD_PEPPER", "openssl rand -hex 32"),
        (
            "SWITCHBOARD_PASSWORD_PEPPER",
            JWT_SECRET,
            "SWITCHBOARD_PASSWORD_PEPPER",
            "the same as SWITCHBOARD_JWT_SECRET",
        ),
        ("SWITCHBOARD_PASSWORD_COST", "4", "SWITCHBOARD_PASSWORD_COST", "between 12"),
        ("SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "many", "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "whole number"),
        ("DATABASE_URL", "mysql://root:hunter2@h/d", "DATABASE_URL", "postgres://"),
        ("DATABASE_URL", "postgres://root:hunter2@h:port/d", "DATABASE_URL", "postgres://"),
        ("REDIS_URL", "http://:hunter2@h", "REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://:hunter2@h/not-a-number", "REDIS_URL", "redis://"),
        ("SWITCHBOARD_MANGO_API_KEY", "key", "SWITCHBOARD_MANGO_API_SALT", "both"),
        ("SWITCHBOARD_LOG_LEVEL", "a=b=c", "SWITCHBOARD_LOG_LEVEL", "info"),
        ("SWITCHBOARD_LOG_FORMAT", "xml", "SWITCHBOARD_LOG_FORMAT", "pretty"),
        ("SWITCHBOARD_JWT_SECRET_FILE", "/nowhere", "SWITCHBOARD_JWT_SECRET", "keep one"),
        ("SWITCHBOARD_MANGO_API_KEY_FILE", "/nowhere", "SWITCHBOARD_MANGO_API_KEY_FILE", "/nowhere"),
        ("SWITCHBOARD_CONFIG", &missing, &missing, "No such file"),
        ("SWITCHBOARD_CONFIG", &broken, &broken, "line 2"),
        ("SWITCHBOARD_CONFIG", &secret, "jwt.secret", "SWITCHBOARD_JWT_SECRET_FILE"),
        ("SWITCHBOARD_CONFIG", &stranger, "http.adr", "did you mean SWITCHBOARD_HTTP_ADDR (http.addr)"),
        ("SWITCHBOARD_CONFIG", &mistyped, "SWITCHBOARD_DATABASE_MAX_CONNECTIONS", "many"),
    ];
    let data = TempDir::reserve();
    for (variable, value, name, fix) in cases {
        let mut environment = secrets();
        environment.retain(|(secret, _)| *secret != variable);
        environment.push((variable, value.to_owned()));
        environment.push(("SWITCHBOARD_DATA_DIR", data.text()));
        for command in ["serve", "config"] {
            let line = process::run(&[command], &environment, b"").failure(2);
            assert!(line.starts_with(&format!("switchboard: {name}: ")), "{line}");
            assert!(line.contains(fix), "{line}");
            assert!(!line.contains("hunter2"), "a secret is in the message: {line}");
        }
        assert!(!data.path().exists(), "{variable}={value}: nothing was begun");
    }
}

#[test]
fn the_effective_settings_are_printed_without_secrets() {
    let mut environment = secrets();
    environment.extend([
        ("DATABASE_URL", "postgres://app:hunter2@db/switchboard".to_owned()),
        ("REDIS_URL", "redis://:hunter2@cache:6379/0".to_owned()),
        ("SWITCHBOARD_GENERIC_SECRET", GENERIC_SECRET.to_owned()),
        ("SWITCHBOARD_PRIVACY_PASSPORT_KEY", PASSPORT_KEY.to_owned()),
        ("SWITCHBOARD_LIMITS_LOGIN_IP", "7/min".to_owned()),
    ]);
    let shown = process::run(&["config"], &environment, b"").success();
    assert!(!shown.contains("hunter2") && SECRETS.iter().all(|secret| !shown.contains(secret)), "{shown}");
    for line in [
        "url = \"<redacted>\"  # DATABASE_URL",
        "url = \"<redacted>\"  # REDIS_URL",
        "secret = \"<redacted>\"  # SWITCHBOARD_JWT_SECRET",
        "login_ip = \"7/min\"  # SWITCHBOARD_LIMITS_LOGIN_IP",
        "region = \"RU\"  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    // A demo has settings of its own.
    let data = TempDir::reserve();
    let environment = [("SWITCHBOARD_DATA_DIR", data.text())];
    let shown = process::run(&["config", "--demo"], &environment, b"").success();
    assert!(shown.contains("insecure_cookies = true  # --demo\n"), "{shown}");
    assert!(shown.contains("secret = \"<redacted>\"  # --demo\n") && !data.path().exists(), "{shown}");
    // The documented defaults are settings themselves.
    let defaults = process::run(&["config", "--defaults"], &[], b"").success();
    let files = TempDir::create();
    let file = files.file("defaults.toml", &defaults);
    let shown = process::run(&["--config", &file, "config"], &secrets(), b"").success();
    assert!(shown.contains("login_ip = \"10/min\"  # file"), "{shown}");
}

#[test]
fn a_port_that_is_taken_is_said_at_once_and_nothing_is_begun() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, other) in
        [("SWITCHBOARD_HTTP_ADDR", "SWITCHBOARD_OPS_ADDR"), ("SWITCHBOARD_OPS_ADDR", "SWITCHBOARD_HTTP_ADDR")]
    {
        for arguments in [&["serve"][..], &["serve", "--demo"]] {
            let data = TempDir::reserve();
            let mut environment = secrets();
            environment.push((variable, address.clone()));
            environment.push((other, "127.0.0.1:0".to_owned()));
            environment.push(("SWITCHBOARD_DATA_DIR", data.text()));
            let line = process::run(arguments, &environment, b"").failure(1);
            assert!(line.starts_with(&format!("switchboard: {variable}: {address} is in use")), "{line}");
            assert!(!data.path().exists(), "{arguments:?} left something in the data directory");
        }
    }
}

#[test]
fn what_mends_a_database_makes_no_new_one() {
    let data = TempDir::reserve();
    let environment = [("SWITCHBOARD_DATA_DIR", data.text())];
    for arguments in [&["user", "unlock", "olga"][..], &["generate"]] {
        let line = process::run(arguments, &environment, b"").failure(1);
        assert!(line.contains(&format!("no database in {}; is SWITCHBOARD_DATA_DIR", data.text())), "{line}");
        assert!(!data.path().exists(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_user_can_sign_in() {
    let app = TestApp::start().await;
    let create = async |arguments: &str, password: &[u8]| {
        let mut environment = secrets();
        environment.push(("DATABASE_URL", app.database.url()));
        let arguments = ["user", "create"].into_iter().chain(arguments.split(' ')).map(str::to_owned).collect();
        run(arguments, environment, password.to_vec()).await
    };
    let olga = format!("--login olga --name Olga --role operator --city {MOSCOW} --city {KAZAN}");
    let said = create(&olga, "пароль Ольги\n".as_bytes()).await.success();
    let mut client = app.stranger();
    let body = json!({ "login": "olga", "password": "пароль Ольги", "session": "token" });
    let session = client.post("/api/v1/auth/login", body).await.expect(200);
    assert_eq!(said, format!("user {} created: olga (operator)\n", session["user_id"]));
    client.token = session["access_token"].as_str().map(str::to_owned);
    let me = client.get("/api/v1/auth/me").await.expect(200);
    assert_eq!(
        (&me["name"], &me["role"], &me["cities"]),
        (&json!("Olga"), &json!("operator"), &json!([KAZAN, MOSCOW]))
    );
    create(&format!("--login m.1 --name M --role master --city {MOSCOW} --share 0.25"), b"horse battery")
        .await
        .success();
    let share = "SELECT count(*) FROM master_profiles WHERE share = 0.25";
    assert_eq!(app.database.count(share).await, 1);
    let root = "--login root --name Root --role admin --phone 89161234567 --email root@example.com";
    create(root, b"horse battery").await.success();
    let reachable = "SELECT count(*) FROM users WHERE phone_e164 = '+79161234567' AND email = 'root@example.com'";
    assert_eq!(app.database.count(reachable).await, 1);

    let moscow = format!("--name X --role operator --city {MOSCOW}");
    let master = format!("--login x2 --name X --role master --city {MOSCOW}");
    for (arguments, password, expected) in [
        (olga.as_str(), "horse battery", "--login: \"olga\" is taken"),
        (&format!("--login Olga {moscow}"), "horse battery", "--login: \"Olga\" must be 2 to 64 of a-z 0-9 . _ -"),
        (
            "--login x2 --name X --role operator --city atlantis",
            "horse battery",
            "--city: there is no city \"atlantis\"; known: moscow, kazan",
        ),
        ("--login x2 --name X --role operator", "horse battery", "--city: everyone but an admin works in some city"),
        (&master, "horse battery", "--share: masters need it"),
        (&format!("{master} --share 1.01"), "horse battery", "--share: must be between 0 and 1"),
        (&format!("--login x2 {moscow} --share 0.5"), "horse battery", "--share: masters need it, and only masters"),
        (&format!("--login x2 {moscow} --phone 101"), "horse battery", "--phone: is no phone number"),
        (&format!("--login x2 {moscow} --phone +79161234567"), "horse battery", "--phone: is that of another user"),
        (&format!("--login x2 {moscow} --email nobody"), "horse battery", "--email: is no e-mail address"),
        (&format!("--login x2 {moscow}"), "qwerty123", "the password is among the first that somebody would try"),
        (&format!("--login x2 {moscow}"), "1234567\n", "the password must have 8 to 128 characters; it has 7"),
        (&format!("--login x2 {moscow}"), "", "the password must have 8 to 128 characters; it has 0"),
        (&format!("--login x2 {moscow}"), &"щ".repeat(129), "the password must have 8 to 128 characters; it has 129"),
    ] {
        let line = create(arguments, password.as_bytes()).await.failure(1);
        assert!(line.contains(expected), "{arguments}: {line}");
    }
    assert_eq!(app.database.count("SELECT count(*) FROM users").await, 3);
    let told = "SELECT count(*) FROM audit_log JOIN users ON users.id = subject_id AND users.role = detail->>'role'
                 WHERE action = 'user_created' AND via = 'cli' AND actor_id IS NULL";
    assert_eq!(app.database.count(told).await, 3);
}

async fn migrate(database: &TestDatabase) -> Outcome {
    run(vec!["migrate".to_owned()], vec![("DATABASE_URL", database.url())], Vec::new()).await
}

fn migrations() -> usize {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_does_nothing_the_second_time() {
    let (database, all) = (TestDatabase::empty().await, migrations());
    let said = |now: usize| format!("{now} of {all} migrations applied now; the schema is up to date\n");
    assert_eq!(migrate(&database).await.success(), said(all));
    assert_eq!(migrate(&database).await.success(), said(0));
    // One that was changed after it was applied is not passed over.
    database.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    let line = migrate(&database).await.failure(1);
    assert!(line.contains("migration 1 was previously applied but has been modified"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_that_migrate_at_once_migrate_exactly_once() {
    let (database, all) = (TestDatabase::empty().await, migrations());
    let outcomes = join_all((0..5).map(|_| migrate(&database))).await;
    let said: Vec<String> = outcomes.into_iter().map(Outcome::success).collect();
    let saying = |start: &str| said.iter().filter(|said| said.starts_with(start)).count();
    assert_eq!((saying("0 of"), saying(&format!("{all} of"))), (4, 1), "{said:?}");
    let applied = database.count("SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    assert_eq!(usize::try_from(applied).unwrap(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_said_in_one_line() {
    let url = "postgres://app:hunter2@127.0.0.1:1/switchboard".to_owned();
    let outcome = run(vec!["migrate".to_owned()], vec![("DATABASE_URL", url)], Vec::new()).await;
    let line = outcome.failure(1);
    assert!(line.contains("DATABASE_URL: the database cannot be reached"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
}
