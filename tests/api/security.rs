//! `/api/v1/security`, and what nobody may change about themselves or anything else.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{
    auth::{
        Role,
        store::{Credentials, NewUser, OwnPassword},
    },
    config::Secret,
    db::readiness::Readiness,
    users::passport::Vault,
};

use crate::{
    authorisation::{
        guarded,
        world::{Place, World},
    },
    support::{MOSCOW, PASSPORT_KEY, TestApp, actor::Actor},
};

const ATTEMPTS: &str = "/api/v1/security/login-attempts";
const LOCKED: &str = "/api/v1/security/locked-accounts";
const AUDIT: &str = "/api/v1/security/audit-log";
const UNLOCK: &str = "/api/v1/security/unlock";

/// A field of each row of a list, page by page.
async fn all(admin: &Actor, path: &str, field: &str) -> Vec<Value> {
    let join = if path.contains('?') { '&' } else { '?' };
    admin.all(&format!("{path}{join}limit=2")).await.into_iter().map(|mut row| row[field].take()).collect()
}

/// Somebody who has not signed in.
async fn olga(app: &TestApp) -> i64 {
    app.database.count("INSERT INTO users (login, password_hash, name, role, created_at) VALUES ('olga', 'x', 'Olga', 'operator', now()) RETURNING id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_to_sign_in_are_listed_and_found() {
    let app = TestApp::start().await;
    let (admin, olga) = (app.actor(Role::Admin, &[]).await, olga(&app).await);
    // Two at the same moment: a page may end between them.
    let rows = format!(
        "INSERT INTO login_attempts (at, user_id, address, result) VALUES
            ('2026-05-01', {olga}, '203.0.113.7', 'rejected'), ('2026-05-02', {olga}, '2001:db8::7', 'success'),
            ('2026-05-03', NULL, '203.0.113.7', 'rejected'), ('2026-05-03', {olga}, '203.0.113.99', 'locked')"
    );
    app.database.execute(&rows).await;
    let may = format!("{ATTEMPTS}?from=2026-05-01T00:00:00Z&to=2026-06-01T00:00:00Z");
    let expected = json!({
        "id": null, "at": "2026-05-03T00:00:00Z", "user_id": olga, "login": "olga", "address": "203.0.113.99", "result": "locked"
    });
    let mut first = admin.get(&may).await.expect(200)["items"][0].take();
    first["id"].take();
    assert_eq!(first, expected);
    let logins = [json!("olga"), json!(null), json!("olga"), json!("olga")];
    assert_eq!(all(&admin, &may, "login").await, logins);
    for (filter, addresses) in [
        ("login=OLGA", vec!["203.0.113.99", "2001:db8::7", "203.0.113.7"]),
        (&format!("user_id={olga}&result=rejected"), vec!["203.0.113.7"]),
        ("address=203.0.113.7", vec!["203.0.113.7", "203.0.113.7"]),
        ("address=203.0.113.77/24", vec!["203.0.113.99", "203.0.113.7", "203.0.113.7"]),
        ("address=2001:db8::/32", vec!["2001:db8::7"]),
        ("login=nobody", vec![]),
        ("user_id=-1", vec![]),
    ] {
        assert_eq!(json!(all(&admin, &format!("{may}&{filter}"), "address").await), json!(addresses), "{filter}");
    }
    for wrong in
        ["address=here", "address=203.0.113.7/33", "result=perhaps", "login=", "user_id=x", "from=now", "cursor=x"]
    {
        let problem = admin.get(&format!("{ATTEMPTS}?{wrong}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], wrong.split('=').next().unwrap());
    }
    admin.get(&format!("{ATTEMPTS}?limit=0")).await.problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_is_listed_and_let_in_again() {
    let app = TestApp::start().await;
    let (admin, olga) = (app.actor(Role::Admin, &[]).await, olga(&app).await);
    let rows = format!(
        "INSERT INTO login_failures (login_key, address, failures, last_at, locked_until, user_id)
         SELECT decode(repeat(key, 32), 'hex'), address, failures, now(), now() + locked_for * interval '1 s', owner
           FROM (VALUES ('aa', '203.0.113.1', 7, 100, {olga}), ('aa', '203.0.113.2', 6, 0, {olga}),
                        ('aa', '203.0.113.3', 3, NULL, {olga}), ('aa', '2001:db8:0:1::/64', 9, 600, {olga}),
                        ('aa', '203.0.113.5', 9, 600, {olga}),
                        ('bb', '203.0.113.1', 9, 600, NULL), ('cc', '203.0.113.1', 9, 300, {})
                ) AS given (key, address, failures, locked_for, owner)",
        admin.id
    );
    app.database.execute(&rows).await;
    let locked = async || all(&admin, LOCKED, "address").await;
    assert_eq!(
        locked().await,
        [json!("203.0.113.5"), json!("2001:db8:0:1::/64"), json!("203.0.113.1"), json!("203.0.113.1")]
    );
    let last = admin.all(LOCKED).await.pop().unwrap();
    let expected = json!({
        "user_id": olga, "login": "olga", "address": "203.0.113.1", "failures": 7,
        "last_failure_at": last["last_failure_at"], "locked_until": last["locked_until"]
    });
    assert_eq!(last, expected);
    let [failed, until] =
        ["last_failure_at", "locked_until"].map(|name| last[name].as_str().unwrap().parse::<DateTime<Utc>>());
    assert_eq!(until.unwrap() - failed.unwrap(), TimeDelta::seconds(100));

    assert_eq!(admin.post(UNLOCK, json!({ "login": "Olga" })).await.expect(200), json!({ "unlocked": 5 }));
    assert_eq!(locked().await, [json!("203.0.113.1")]);
    assert_eq!(app.database.count("SELECT count(*) FROM login_failures").await, 2);
    assert_eq!(admin.post(UNLOCK, json!({ "login": "olga" })).await.expect(200), json!({ "unlocked": 0 }));
    admin.post(UNLOCK, json!({ "login": "nobody" })).await.problem(404, "not_found");
    for body in [
        json!({}),
        json!({ "login": "" }),
        json!({ "login": 1 }),
        json!({ "login": "a\0" }),
        json!({ "login": "olga", "id": 1 }),
    ] {
        admin.post(UNLOCK, body).await.problem(422, "invalid");
    }
    let told = admin.all(&format!("{AUDIT}?action=account_unlocked&subject=users&subject_id={olga}")).await;
    let told: Vec<&Value> = told.iter().map(|row| &row["detail"]).collect();
    assert_eq!(told, [&json!({ "unlocked": 0 }), &json!({ "unlocked": 5 })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_listed_and_searched() {
    let app = TestApp::start().await;
    let (admin, olga) = (app.actor(Role::Admin, &[]).await, olga(&app).await);
    let rows = format!(
        "INSERT INTO audit_log (at, via, actor_id, action, subject, subject_id, address, trace_id, detail) VALUES
            ('2026-05-01', 'api', {olga}, 'user_created', 'users', 7, '203.0.113.7', repeat('a', 32), '{{\"role\": \"operator\"}}'),
            ('2026-05-02', 'cli', NULL, 'imported', 'requests', NULL, NULL, NULL, '{{\"rows\": 500}}'),
            ('2026-05-02', 'cli', NULL, 'user_created', 'users', 8, NULL, NULL, '{{}}'),
            -- Of a release that is not written yet.
            ('2026-05-03', 'api', {olga}, 'moon_visited', 'moons', 7, '2001:db8::7', NULL, '{{}}')"
    );
    app.database.execute(&rows).await;
    let may = format!("{AUDIT}?from=2026-05-01T00:00:00Z&to=2026-06-01T00:00:00Z");
    let expected = json!({
        "id": null, "at": "2026-05-01T00:00:00Z", "via": "api", "actor_id": olga, "actor": "olga", "action": "user_created",
        "subject": "users", "subject_id": 7, "address": "203.0.113.7", "trace_id": "a".repeat(32), "detail": { "role": "operator" }
    });
    let mut last = admin.all(&may).await.pop().unwrap();
    last["id"].take();
    assert_eq!(last, expected);
    for (filter, actions) in [
        ("limit=3", vec!["moon_visited", "user_created", "imported", "user_created"]),
        ("action=user_created", vec!["user_created", "user_created"]),
        (&format!("actor_id={olga}"), vec!["moon_visited", "user_created"]),
        ("subject=users", vec!["user_created", "user_created"]),
        ("subject=users&subject_id=8", vec!["user_created"]),
        ("action=imported&subject=users", vec![]),
    ] {
        let path = if filter == "limit=3" { may.clone() } else { format!("{may}&{filter}") };
        assert_eq!(json!(all(&admin, &path, "action").await), json!(actions), "{filter}");
    }
    for wrong in ["action=moon_visited", "subject=moons", "subject_id=7", "actor_id=x", "to=1999-01-01T00:00:00Z"] {
        let problem = admin.get(&format!("{AUDIT}?{wrong}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], wrong.split('=').next().unwrap());
    }
}

/// What no body of a change may carry, unless its schema says so.
const NOT_FOR_CHANGE: [&str; 12] = [
    "id",
    "version",
    "login",
    "role",
    "city",
    "city_id",
    "cities",
    "status",
    "share",
    "amount",
    "handover",
    "password_hash",
];
/// And none of something new.
const NOT_FOR_CREATION: [&str; 3] = ["id", "actor_id", "token_version"];

#[tokio::test(flavor = "multi_thread")]
async fn no_body_carries_what_is_not_for_it_to_set() {
    let world = World::new().await;
    let (app, admin) = (&world.app, &world.actors[0].1);
    let document = serde_json::to_value(switchboard::server::openapi()).unwrap();
    let mut questions = Vec::new();
    for operation in guarded() {
        let (path, body) = world.question(&operation, Role::Admin, admin, Place::Theirs).await;
        let Some(body) = body else { continue };
        let fields = if operation.method == Method::PATCH { &NOT_FOR_CHANGE[..] } else { &NOT_FOR_CREATION };
        let method = operation.method.as_str().to_lowercase();
        let schema =
            &document["paths"][&operation.path][method]["requestBody"]["content"]["application/json"]["schema"];
        let schema = schema["$ref"].as_str().unwrap().trim_start_matches('#');
        let own = &document.pointer(schema).unwrap()["properties"];
        for field in fields.iter().filter(|field| own.get(**field).is_none()) {
            let mut body = body.clone();
            body[*field] = json!("1");
            questions.push((operation.method.clone(), path.clone(), *field, body));
        }
    }
    assert!(questions.len() > 130, "{}", questions.len());
    let versions = "SELECT sum(v) FROM (SELECT sum(version) AS v FROM users UNION ALL SELECT sum(version) FROM requests
                    UNION ALL SELECT sum(version) FROM cities UNION ALL SELECT sum(version) FROM advertising_campaigns
                    UNION ALL SELECT sum(version) FROM sla_policies UNION ALL SELECT count(*) FROM audit_log
                    UNION ALL SELECT count(*) FROM transactions UNION ALL SELECT count(*) FROM request_events) AS all_of_them";
    let versions = format!("SELECT ({versions})::bigint");
    let before = app.database.count(&versions).await;
    for (method, path, field, body) in questions {
        let answer = admin.send(admin.request(method.clone(), &path).header("if-match", "*").json(&body)).await;
        let problem = answer.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"), "{method} {path}: {problem}");
    }
    assert_eq!(app.database.count(&versions).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_secret_does_not_print_it() {
    const PLANTED: &str = "planted-8aed2a6abf7158809cf4";
    let app = TestApp::start().await;
    let options = app.database.options().password(PLANTED);
    let db = switchboard::db::Db::new(options.clone(), &app.app.config.database, app.app.metrics.clone());
    let cities = [MOSCOW.to_owned()];
    let row = switchboard::users::store::Row {
        id: 1,
        name: "Olga",
        phone: None,
        email: None,
        role: Role::Operator,
        status: switchboard::users::model::UserStatus::Active,
        password_hash: Some(PLANTED),
        outdates_tokens: false,
    };
    let user = NewUser {
        login: "olga",
        password_hash: PLANTED,
        name: "Olga",
        role: Role::Operator,
        cities: &cities,
        share: None,
    };
    let credentials =
        Credentials { id: 1, password_hash: PLANTED.to_owned(), active: true, role: Role::Operator, token_version: 1 };
    let (secret, key) = (Secret::new(PLANTED), Secret::new(PASSPORT_KEY));
    let printed = [
        format!("{db:?}"),
        format!("{:?}", Readiness::new(options)),
        format!("{row:?}"),
        format!("{user:?}"),
        format!("{credentials:?}"),
        format!("{:?}", OwnPassword { login: "olga".to_owned(), hash: PLANTED.to_owned() }),
        format!("{secret:?}"),
        format!("{:?}", Vault::new(&key).unwrap()),
        format!("{:?}", app.app.config),
        format!("{:?} {:?} {:?}", app.app.tokens, app.app.keys, app.app.passports),
    ];
    for printed in printed {
        assert!(!printed.contains("planted-") && !printed.contains(&PASSPORT_KEY[..16]), "{printed}");
        assert!(
            !printed.contains(crate::support::JWT_SECRET) && !printed.contains(crate::support::PEPPER),
            "{printed}"
        );
    }
}
