//! `switchboard simulate`: plays a day of a call centre over HTTP against a running server, with
//! people who think and a provider that repeats itself, and then checks that the server counted what
//! the simulator saw succeed.
//!
//! - [`plan`] draws the day from the seed; [`pace`] is its clock.
//! - [`callers`] is the telephone side, [`desk`] and [`in_tray`] are the staff, [`world`] and [`jobs`]
//!   are what they share, [`people`] and [`api`] how they reach the server.
//! - [`tally`] is what was seen to succeed, [`metrics`] what the server counted, [`report`] compares.

mod api;
mod callers;
mod desk;
mod in_tray;
mod jobs;
mod metrics;
mod pace;
mod people;
pub(super) mod plan;
mod report;
mod run;
mod tally;
mod world;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context;
use url::Url;

use self::{
    metrics::{Delta, Scrape},
    tally::Tally,
};
use super::{demo, health::reachable};
use crate::config::Config;

/// Exit code of a run that was interrupted, as a shell has it for Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

/// What to play, and where.
#[derive(Debug, clap::Args)]
#[command(
    about = "Play a day of a call centre against a running server, and check its counts",
    after_help = "Start a server first: switchboard serve --demo. In the end the counts in its /metrics are compared \
                  with what was seen to succeed, so nobody else may use the server meanwhile, and it must be a \
                  single replica. Exit code 0: they agree and nothing failed; 1: not; 130: interrupted."
)]
pub struct Arguments {
    /// Everything random is drawn from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated seconds in a real one: shortens waiting only, every request is real
    #[arg(long, default_value_t = 60.0, value_parser = speed)]
    speed: f64,
    /// Calls a day
    #[arg(long, default_value_t = 360, value_name = "CALLS_PER_DAY", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Play only so many hours, from nine in the morning, instead of a whole day
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=24))]
    hours: Option<u32>,
    /// Let something go wrong all day, for which there is an alert
    #[arg(long, value_name = "NAME")]
    incident: Option<plan::Incident>,
    /// Where the API answers [default: http:// and SWITCHBOARD_HTTP_ADDR]
    #[arg(long)]
    url: Option<Url>,
    /// Where the metrics are [default: http:// and SWITCHBOARD_OPS_ADDR, /metrics]
    #[arg(long, value_name = "URL")]
    metrics_url: Option<Url>,
    /// The logins [default: demo.json in the data directory]
    #[arg(long, value_name = "FILE")]
    logins: Option<PathBuf>,
    /// Write what was seen to succeed to a file, as JSON, to compare the database with. The server may then be
    /// restarted meanwhile, which its metrics do not survive
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if (0.1..=100_000.0).contains(&speed) { Ok(speed) } else { Err("must lie between 0.1 and 100000".to_owned()) }
}

/// Plays the day and compares.
///
/// # Errors
/// When it cannot begin, or the server goes away: one line that says what to do.
pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let path = match &arguments.logins {
        Some(path) => path.clone(),
        None => demo::Credentials::path(&config.data_dir()?),
    };
    let base = match &arguments.url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}", reachable(config.http.addr)))?,
    };
    let metrics_url = match &arguments.metrics_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}/metrics", reachable(config.ops.addr)))?,
    };
    let started = Instant::now();
    let api = Arc::new(api::Api::new(&base)?);
    api.check().await?;
    let logins = demo::Credentials::load(&path)?;
    let before = Scrape::read(&api.http, &metrics_url).await?;
    let tally = Arc::new(Tally::default());
    let scene = run::Scene { arguments: &arguments, config, logins: &logins, api: &api, tally: &tally };

    let world = tokio::select! {
        played = run::play(&scene) => played?,
        () = tally.hopeless.cancelled() => anyhow::bail!("the server stopped answering: {}", first_error(&tally)),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            eprintln!("interrupted: the day was not played to its end, so nothing is compared");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    };
    let kept = run::links_kept(&world).await;
    let mut delta = Delta { before, after: Scrape::default() };
    run::settle(&world, &metrics_url, &mut delta, kept).await?;
    let restarted = delta.restarted();
    let mut counts = tally.lock();
    if let Some(path) = &arguments.report {
        std::fs::write(path, serde_json::to_vec_pretty(&report::seen(&counts))?)
            .with_context(|| format!("writing {}", path.display()))?;
    } else {
        anyhow::ensure!(!restarted, "the server was restarted meanwhile and counts from zero: nothing to compare");
    }
    let rows = if restarted { Vec::new() } else { report::compare(&counts, &delta, kept) };
    print!("{}", report::what_was_done(&world, &mut counts, started.elapsed()));
    if restarted {
        println!("\nthe server was restarted meanwhile and counts from zero: not compared");
    } else {
        println!("{}", report::comparison(&rows));
    }
    for error in &counts.first_errors {
        eprintln!("error: {error}");
    }
    let good = counts.errors == 0 && rows.iter().all(report::Row::agrees);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn first_error(tally: &Tally) -> String {
    tally.lock().first_errors.first().cloned().unwrap_or_default()
}
