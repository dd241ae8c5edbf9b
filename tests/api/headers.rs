//! What every answer tells browsers. That nothing lacks it is checked wherever an actor gets an answer
//! (`actor::assert_careful`), in all tests; here is what few of them ask for.

use reqwest::Method;
use serde_json::json;
use switchboard::auth::Role;

use crate::{
    authorisation::guarded,
    support::{MOSCOW, TestApp, actor::Actor, config, eventually},
};

const STRICT: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_to_be_careful() {
    let app = TestApp::start().await;
    app.tail();
    let (operator, stranger) = (app.actor(Role::Operator, &[MOSCOW]).await, app.stranger());
    let ops = Actor::stranger(&format!("http://{}", app.ops));
    let ask = |method: Method, path: &str| stranger.request(method, path);
    let live = async || operator.head(operator.request(Method::GET, "/api/v1/events")).await;
    let text = operator.request(Method::POST, "/api/v1/requests").body("x");
    let large = operator.request(Method::POST, "/api/v1/requests").header("content-type", "application/json");
    for (answer, status) in [
        (operator.get("/api/v1/requests").await, 200),
        (operator.post("/api/v1/requests", json!({ "city": MOSCOW, "phone": "+79161234567" })).await, 201),
        (operator.get("/api/v1/requests?cursor=x").await, 422),
        (operator.delete("/api/v1/requests/1", "*").await, 403),
        (stranger.get("/nothing").await, 404),
        (stranger.send(ask(Method::PUT, "/api/v1/requests")).await, 405),
        (operator.send(large.body("x".repeat(300_000))).await, 413),
        (stranger.get(&format!("/{}", "x".repeat(9_000))).await, 414),
        (operator.send(text).await, 415),
        (stranger.send(ask(Method::GET, "/").header("x-large", "x".repeat(33_000))).await, 431),
        (stranger.get("/health/live").await, 200),
        (operator.head(operator.request(Method::GET, "/api/v1/requests.csv")).await, 200),
        (ops.get("/metrics").await, 200),
        (ops.get("/health/live").await, 200),
        (ops.get("/nothing").await, 404),
        (ops.send(ops.request(Method::POST, "/metrics")).await, 405),
        (eventually("live events", async || Some(live().await).filter(|answer| answer.status == 200)).await, 200),
    ] {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.header("content-security-policy"), STRICT, "{status}");
        assert_eq!(answer.header("strict-transport-security"), "", "not over plain HTTP");
    }
    // The page runs its own scripts and nobody else's.
    for (path, status) in [("/", 307), ("/docs/", 200), ("/docs/swagger-ui-bundle.js", 200), ("/openapi.json", 200)] {
        let answer = stranger.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'self'") && policy.contains("base-uri 'none'"), "{policy}");
        assert!(!policy.contains("script-src"), "{policy}");
    }
    // Without a session no operation gives anything away; the actor checks the headers.
    for operation in guarded() {
        let path = operation.path.replace("{id}", "1").replace("{city}", "1");
        stranger.send(ask(operation.method.clone(), &path)).await.problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_does_tls_says_so_and_nobody_else() {
    let told = async |app: &TestApp, values: &[&str]| {
        let stranger = app.stranger();
        let request = stranger.request(Method::GET, "/nothing");
        let request = values.iter().fold(request, |request, value| request.header("x-forwarded-proto", *value));
        stranger.send(request).await.header("strict-transport-security").to_owned()
    };
    let trusting = TestApp::start().await;
    let mut config = config();
    config.http.trusted_proxies = Vec::new();
    let wary = TestApp::over(config, trusting.database.clone()).await;
    for (values, believed) in [
        (&["https"][..], true),
        (&["HTTPS"], true),
        (&["http, https"], true),
        (&["http", "https"], true),
        (&["https, http"], false),
        (&["https", "http"], false),
        (&["http"], false),
        (&["httpsx"], false),
        (&[""], false),
        (&[], false),
    ] {
        let expected = if believed { "max-age=31536000" } else { "" };
        assert_eq!(told(&trusting, values).await, expected, "{values:?}");
        assert_eq!(told(&wary, values).await, "", "{values:?} from anybody");
    }
}
