//! Passwords that were stored with another pepper, at another cost, or by an earlier release.

use serde_json::json;
use switchboard::{
    auth::Role,
    config::{Config, Secret},
};

use crate::support::{MOSCOW, PASSWORD, TestApp, actor::Answer, config, eventually};

const NEW: &str = "a pepper that nobody has had before, 32 bytes";

async fn sign_in(app: &TestApp, login: &str, password: &str) -> Answer {
    app.stranger().post("/api/v1/auth/login", json!({ "login": login, "password": password, "session": "token" })).await
}

async fn stored(app: &TestApp, user_id: i64) -> String {
    let query = sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1").bind(user_id);
    query.fetch_one(&mut app.database.connect().await).await.unwrap()
}

fn rotated(old: &Config, cost: u32) -> Config {
    let mut config = config();
    config.password.previous_pepper = old.password.pepper.clone();
    config.password.pepper = Secret::new(NEW);
    config.password.cost = cost;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_in_after_the_pepper_has_changed_gets_the_new_one_and_stays_signed_in() {
    let before = TestApp::start().await;
    let user = before.actor(Role::Operator, &[MOSCOW]).await;
    let old_form = stored(&before, user.id).await;
    let now = TestApp::over(rotated(&before.app.config, 5), before.database.clone()).await;
    let version = format!("SELECT token_version FROM users WHERE id = {}", user.id);
    let token_version: i32 = sqlx::query_scalar(sqlx::AssertSqlSafe(version.clone()))
        .fetch_one(&mut now.database.connect().await)
        .await
        .unwrap();

    sign_in(&now, &user.login, "wrong horse battery").await.problem(401, "bad_credentials");
    sign_in(&now, &user.login, PASSWORD).await.expect(200);
    let renewed = eventually("the password has its new form", async || {
        (now.scrape().await.value("password_rehashes_total") == 1.0).then_some(())
    });
    renewed.await;
    let new_form = stored(&now, user.id).await;
    assert!(new_form.starts_with("v2.") && new_form.contains("$2b$05$"), "{new_form}");
    assert_ne!(&new_form[..11], &old_form[..11]);
    // Nobody is signed out by that.
    user.at(&now.url("")).get("/api/v1/auth/me").await.expect(200);
    let unchanged: i32 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(version)).fetch_one(&mut now.database.connect().await).await.unwrap();
    assert_eq!(token_version, unchanged);

    // Once is enough, and the old pepper is no longer needed.
    sign_in(&now, &user.login, PASSWORD).await.expect(200);
    let mut config = rotated(&before.app.config, 5);
    config.password.previous_pepper = Secret::default();
    let later = TestApp::over(config, before.database.clone()).await;
    sign_in(&later, &user.login, PASSWORD).await.expect(200);
    assert_eq!(stored(&later, user.id).await, new_form);
    // For those who did not sign in meanwhile it is.
    sign_in(&before, &user.login, PASSWORD).await.problem(401, "bad_credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_an_earlier_release_stored_is_right_and_gets_the_form_of_this_one() {
    let app = TestApp::start().await;
    let user = app.actor(Role::Operator, &[MOSCOW]).await;
    let of_earlier = "UPDATE users SET password_hash = regexp_replace(password_hash, '^v2[.]........', 'v1')";
    app.database.execute(of_earlier).await;
    assert!(stored(&app, user.id).await.starts_with("v1$2b$04$"));
    sign_in(&app, &user.login, "wrong horse battery").await.problem(401, "bad_credentials");
    sign_in(&app, &user.login, PASSWORD).await.expect(200);
    eventually("the password has its new form", async || stored(&app, user.id).await.starts_with("v2.").then_some(()))
        .await;
    sign_in(&app, &user.login, PASSWORD).await.expect(200);
}
