//! Prometheus' own opinion of what we expose.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::support::{MOSCOW, MOSCOW_LINE, TestApp, telephony::Call};

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_no_complaint_about_the_metrics() {
    let app = TestApp::start().await;
    // Some of everything, so that no family is empty.
    let operator = app.actor(switchboard::auth::Role::Operator, &[MOSCOW]).await;
    for event in Call::new("entry", "79161234567", MOSCOW_LINE).answered() {
        app.stranger().deliver(&event).await.expect(200);
    }
    app.drain_inbox().await;
    operator.create_request(MOSCOW, "+79161234568").await;
    let scrape = app.scrape().await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian and Homebrew: prometheus)");
    promtool.stdin.take().unwrap().write_all(scrape.text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((String::from_utf8(said).unwrap().as_str(), output.status.code()), ("", Some(0)));
}
