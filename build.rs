//! Stamps the build: what `build_info` and `--version` show.

use std::process::Command;

fn main() {
    let revision = std::env::var("SWITCHBOARD_REVISION")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(&rustc, &["--version"])
        .and_then(|line| line.split(' ').nth(1).map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SWITCHBOARD_REVISION={revision}");
    println!("cargo::rustc-env=SWITCHBOARD_RUSTC={version}");
    println!("cargo::rerun-if-env-changed=SWITCHBOARD_REVISION");
    // Not at each commit, which would compile everything anew; `make build-release` and the image say it themselves.
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=migrations");
    // Query metadata that changed without the query text must be read again.
    println!("cargo::rerun-if-changed=.sqlx");
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !text.is_empty()).then_some(text)
}
