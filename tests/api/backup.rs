//! `switchboard backup` and `restore`, by the commands of docs/runbooks/restore.md.

use std::{collections::BTreeMap, fs, path::Path};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use switchboard::{auth::Role, workers};

use crate::support::{
    MOSCOW, TestApp,
    database::TestDatabase,
    files::TempDir,
    process::{self, Outcome},
};

const RUNBOOK: &str = include_str!("../../docs/runbooks/restore.md");

/// The shell commands below a heading of the runbook.
fn runbook(heading: &str) -> String {
    let section = RUNBOOK.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let commands: String = blocks.collect();
    assert!(commands.contains("switchboard "), "no commands under {heading}");
    commands
}

/// Runs commands of the runbook as a person would, in a shell that finds `switchboard`.
async fn shell(commands: String, environment: Vec<(&'static str, String)>) -> Outcome {
    let work = move || {
        let program = Path::new(env!("CARGO_BIN_EXE_switchboard"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-euc", &commands]).env_clear().env("PATH", path).envs(environment);
        let output = shell.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A day's work, and three files as the store writes them.
async fn installation(data: &TempDir) -> TestApp {
    let app = TestApp::start().await;
    let manager = app.actor(Role::Manager, &[MOSCOW]).await;
    let master = app.actor(Role::Master, &[MOSCOW]).await;
    for n in 0..4 {
        let id = manager.waiting_request(MOSCOW, &format!("+7916123450{n}")).await;
        manager.assign(id, master.id).await.expect(200);
        for to in ["accepted", "en_route", "in_progress"].iter().take(n) {
            master.move_to(id, json!({ "to": to })).await.expect(200);
        }
        if n == 3 {
            let done = json!({ "to": "done", "result": "3000.01", "expenses": "500" });
            manager.move_to(id, done).await.expect(200);
        }
    }
    fs::create_dir_all(data.path().join("files/ab/cd")).unwrap();
    let recording = vec![7; 300_000];
    for (name, content) in [("ab/cd/photo", &b"\x89PNG\0\xff"[..]), ("ab/receipt", b""), ("recording", &recording)] {
        fs::write(data.path().join("files").join(name), content).unwrap();
    }
    app
}

/// Every table in full, so that equal means equal; but for what a restore says of itself.
async fn everything(database: &TestDatabase) -> BTreeMap<String, String> {
    let mut pg = database.connect().await;
    let names = "SELECT tablename::text FROM pg_tables
                  WHERE schemaname = 'public' AND tablename NOT IN ('maintenance_runs', 'cache_versions')";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut pg).await.unwrap();
    let mut all = BTreeMap::new();
    for name in names {
        let sql = format!(
            "SELECT COALESCE(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {name} t
                            WHERE to_jsonb(t)->>'action' IS DISTINCT FROM 'database_restored'"
        );
        let content = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut pg).await.unwrap();
        all.insert(name, content);
    }
    all
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()).into_iter().map(|(path, content)| (format!("{name}/{path}"), content)));
        } else {
            all.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    all
}

fn manifest(backup: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(backup).join("manifest.json")).unwrap()).unwrap()
}

fn environment(database: &TestDatabase, data: &TempDir, backup: &str) -> Vec<(&'static str, String)> {
    vec![("DATABASE_URL", database.url()), ("SWITCHBOARD_DATA_DIR", data.text()), ("BACKUP", backup.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_destroyed_is_restored_by_the_runbook() {
    let (data, shelf) = (TempDir::create(), TempDir::create());
    let app = installation(&data).await;
    let backup = shelf.path().join("backup").to_str().unwrap().to_owned();
    workers::sample_backup(&app.app).await;
    assert_eq!(app.scrape().await.get("switchboard_backup_last_success_timestamp_seconds"), None);
    // Beside the running server.
    let made = shell(runbook("Back up"), environment(&app.database, &data, &backup)).await.success();
    assert!(made.contains("files  3"), "{made}");
    let (rows, kept) = (everything(&app.database).await, files(&data.path().join("files")));
    let said = manifest(&backup);
    assert_eq!(said["content"]["rows"]["requests"], 4);
    assert_eq!(said["content"]["ledger"], "1250.01");
    assert_eq!(
        said["parts"]["files/ab/receipt"]["sha256"],
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    // Every replica tells of it.
    let created: DateTime<Utc> = said["created_at"].as_str().unwrap().parse().unwrap();
    workers::sample_backup(&app.app).await;
    let exported = app.scrape().await.value("switchboard_backup_last_success_timestamp_seconds");
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
    let since = exported - created.timestamp() as f64;
    assert!((0.0..60.0).contains(&since), "{since}");

    let database = app.database.clone();
    drop(app);
    database.vanish().await;
    fs::remove_dir_all(data.path()).unwrap();
    let new = TestDatabase::empty().await;
    let restored = shell(runbook("Restore"), environment(&new, &data, &backup)).await.success();
    assert_eq!(everything(&new).await, rows);
    let told =
        "SELECT count(*) FROM audit_log WHERE via = 'cli' AND action = 'database_restored' AND subject = 'database'";
    assert_eq!(new.count(told).await, 1);
    assert_eq!(files(&data.path().join("files")), kept);
    for line in ["requests 4 4", "transactions 1 1", "sum of the ledger 1250.01 1250.01", "files, by checksum 3 3"] {
        let found = restored.lines().any(|row| row.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line}: {restored}");
    }
    // It is a working installation: new rows get new numbers, and the history is as protected as before.
    let refusal = new.refusal("DELETE FROM request_events").await;
    assert!(refusal.contains("append-only"), "{refusal}");
    new.execute("INSERT INTO clients (phone_e164, created_at) VALUES ('+79160000000', now())").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_and_a_target_in_use_are_refused() {
    let (data, shelf) = (TempDir::create(), TempDir::create());
    let app = installation(&data).await;
    let backup = shelf.path().join("backup").to_str().unwrap().to_owned();
    let restore = async |arguments: &[&str], database: &TestDatabase, data: &TempDir| {
        let all = [&["restore", "--from", &backup], arguments].concat();
        process::run_beside(&all, &environment(database, data, &backup)[..2]).await
    };
    let made =
        process::run_beside(&["backup", "--to", &backup], &environment(&app.database, &data, &backup)[..2]).await;
    made.success();
    let again =
        process::run_beside(&["backup", "--to", &backup], &environment(&app.database, &data, &backup)[..2]).await;
    assert!(again.failure(1).contains("is not empty"));

    let used = restore(&["--force"], &app.database, &data).await;
    assert!(used.stderr.contains("a server is using this database"), "{used:?}");
    let database = app.database.clone();
    app.app.close().await;
    drop(app);
    let before = everything(&database).await;
    let full = restore(&[], &database, &data).await;
    assert_eq!(full.code, Some(1));
    assert!(full.stderr.contains("the database is not empty"), "{full:?}");
    let (new, elsewhere) = (TestDatabase::empty().await, TempDir::create());
    let full = restore(&[], &new, &data).await;
    assert!(full.stderr.contains("files: is not empty; --force sets it aside"), "{full:?}");
    assert_eq!((everything(&database).await, everything(&new).await.len()), (before.clone(), 0));

    // With force, what is there is replaced, and no file is lost.
    database
        .execute(
            "INSERT INTO clients (phone_e164, created_at) VALUES ('+79160000000', now()); CREATE TABLE stray (id int)",
        )
        .await;
    fs::write(data.path().join("files/later"), "later").unwrap();
    let newest = database.count("SELECT max(version) FROM cache_versions").await;
    let forced = restore(&["--force"], &database, &data).await;
    assert!(forced.stdout.contains("the files that were there are now in"), "{forced:?}");
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(everything(&database).await, before);
    let oldest = database.count("SELECT min(version) FROM cache_versions").await;
    assert!(oldest > newest, "what was cached before is worth nothing any more");
    let aside = fs::read_dir(data.path()).unwrap().flatten().map(|entry| entry.path());
    let aside = aside.filter(|path| path.to_str().unwrap().contains("files.before-")).collect::<Vec<_>>();
    assert_eq!(fs::read_to_string(aside[0].join("later")).unwrap(), "later");
    assert_eq!(files(&data.path().join("files")).len(), 3);

    // A changed byte, a missing file, a missing manifest: nothing is touched.
    let photo = Path::new(&backup).join("files/ab/cd/photo");
    let content = fs::read(&photo).unwrap();
    fs::write(&photo, b"\x89PNG\0\xfe").unwrap();
    let tampered = restore(&["--force"], &new, &elsewhere).await;
    assert!(tampered.stderr.contains("is not what was backed up"), "{tampered:?}");
    fs::remove_file(&photo).unwrap();
    assert!(restore(&["--force"], &new, &elsewhere).await.stderr.contains("photo: No such file"));
    fs::write(&photo, content).unwrap();
    let path = Path::new(&backup).join("manifest.json");
    let mut said = manifest(&backup);
    said["content"]["migration"] = json!(9_999);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, said.to_string()).unwrap();
    assert!(restore(&[], &new, &elsewhere).await.stderr.contains("of a newer release"));
    let mut said: Value = serde_json::from_slice(&whole).unwrap();
    said["content"]["rows"]["requests"] = json!(5);
    fs::write(&path, said.to_string()).unwrap();
    let counted = restore(&[], &new, &elsewhere).await;
    assert_eq!(counted.code, Some(1));
    assert!(counted.stderr.contains("differs from the backup: requests"), "{counted:?}");
    // One that this pg_restore cannot read, such as that of a later PostgreSQL.
    let mut said: Value = serde_json::from_slice(&whole).unwrap();
    fs::write(Path::new(&backup).join("database.dump"), "PGDMP").unwrap();
    let part = json!({ "bytes": 5, "sha256": "b5a26a21290c39819235a235b8ed66b3bd98ed90c8316c8949bfbb7419cac878" });
    said["parts"]["database.dump"] = part;
    fs::write(&path, said.to_string()).unwrap();
    let unreadable = restore(&["--force"], &database, &data).await;
    assert!(unreadable.stderr.contains("pg_restore failed"), "{unreadable:?}");
    assert_eq!(everything(&database).await, before);
    fs::remove_file(&path).unwrap();
    assert!(restore(&["--force"], &database, &data).await.failure(1).contains("is no complete backup"));
    assert_eq!(everything(&database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_database_is_restored_and_old_backups_go() {
    let (data, shelf) = (TempDir::create(), TempDir::create());
    let app = installation(&data).await;
    let backup = shelf.path().join("backup").to_str().unwrap().to_owned();
    let made =
        process::run_beside(&["backup", "--to", &backup], &environment(&app.database, &data, &backup)[..2]).await;
    made.success();
    let home = TempDir::reserve();
    let settings = [("SWITCHBOARD_DATA_DIR", home.text())];
    process::run_beside(&["restore", "--from", &backup], &settings).await.success();
    assert_eq!(files(&home.path().join("files")), files(&data.path().join("files")));

    let folder = home.path().join("backups");
    for (name, complete) in
        [("20200101T000000Z", false), ("20200102T000000Z", true), ("20200103T000000Z", true), ("mine", true)]
    {
        fs::create_dir_all(folder.join(name)).unwrap();
        if complete {
            fs::write(folder.join(name).join("manifest.json"), "{}").unwrap();
        }
    }
    process::run_beside(&["backup", "--keep", "2"], &settings).await.success();
    let mut left: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort_unstable();
    assert_eq!((left.len(), left[0].as_str(), left[2].as_str()), (3, "20200103T000000Z", "mine"), "{left:?}");
    let second = manifest(folder.join(&left[1]).to_str().unwrap());
    let mut expected = manifest(&backup)["content"].take();
    // What a restore says of itself.
    expected["rows"]["audit_log"] = Value::from(1);
    assert_eq!(second["content"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_for_its_owner_only_whoever_made_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let (data, shelf) = (TempDir::create(), TempDir::create());
    let app = installation(&data).await;
    let backup = shelf.path().join("backup");
    fs::create_dir(&backup).unwrap();
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o755)).unwrap();
    let backup = backup.to_str().unwrap();
    let made = process::run_beside(&["backup", "--to", backup], &environment(&app.database, &data, backup)[..2]).await;
    made.success();
    for name in ["database.dump", "manifest.json", "files/recording"] {
        let mode = fs::metadata(Path::new(backup).join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_not_lost_in_a_restore_to_where_files_lie_in_a_bucket() {
    let (data, shelf, elsewhere) = (TempDir::create(), TempDir::create(), TempDir::create());
    let app = installation(&data).await;
    let backup = shelf.path().join("backup").to_str().unwrap().to_owned();
    process::run_beside(&["backup", "--to", &backup], &environment(&app.database, &data, &backup)[..2]).await.success();
    let new = TestDatabase::empty().await;
    let mut settings = environment(&new, &elsewhere, &backup)[..2].to_vec();
    settings.push(("SWITCHBOARD_FILES_STORE", "s3://bucket/prefix".to_owned()));
    let refused = process::run_beside(&["restore", "--from", &backup], &settings).await;
    assert_eq!(refused.code, Some(1));
    let expected = "the backup has 3 files, and the settings name s3://bucket/prefix for them";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    assert_eq!(everything(&new).await.len(), 0, "nothing was touched");
}
