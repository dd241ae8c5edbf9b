//! `switchboard serve`: bind, open the database, migrate, serve, and stop in order.

use std::{
    io::IsTerminal,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use super::{
    database::{self, Database},
    demo::Credentials,
    progress,
};
use crate::{
    app::App,
    auth::Role,
    clock::Clock,
    config::{self, Config, Settings},
    db::migrate,
    http::{listen, starting::Stage, tls::Tls, turns::Patience},
    lifecycle::{StopSignal, StopSignals},
    telemetry, workers,
};

/// What an exit may take longer without a collector of traces is 2 s, all told.
const FLUSH_LIMIT: Duration = Duration::from_millis(1_800);
/// A database in a dark network says no goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Runs the server until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting: a setting, a taken port, the database.
pub async fn run(mut settings: Settings, demo: bool) -> anyhow::Result<ExitCode> {
    let credentials = if demo { Some(Credentials::of(&mut settings)?) } else { None };
    let config = settings.config()?;
    config.validate()?;
    let tls = Tls::load(&config.tls)?;
    // Before anybody can see that it is there, and tell it to stop.
    let mut signals = StopSignals::install().context("waiting for signals")?;
    // Bound before anything slow: a taken port is known in milliseconds, and nothing was touched.
    let public = listen::bind(config.http.addr, "SWITCHBOARD_HTTP_ADDR")?;
    let ops = listen::bind(config.ops.addr, "SWITCHBOARD_OPS_ADDR")?;
    let telemetry = telemetry::init(&config.log)?;
    let counters = telemetry.counters.clone();
    allow_open_files();

    let acceptor = tls.as_ref().map(Tls::acceptor);
    let doors = Doors { public: Door::open(public, &config, acceptor)?, ops: Door::open(ops, &config, None)? };
    let outcome = serve(config, doors, tls, counters, credentials, &mut signals).await;
    let limit = if matches!(outcome, Ok(End::Forced(_))) { Duration::ZERO } else { FLUSH_LIMIT };
    // Blocking, so not on a thread that others may need.
    let flushing = tokio::task::spawn_blocking(move || telemetry.shutdown(limit));
    let told_again = tokio::select! {
        _ = flushing => None,
        signal = signals.next() => Some(signal),
    };
    Ok(match (outcome?, told_again) {
        (End::Orderly, None) => ExitCode::SUCCESS,
        (End::Orderly, Some(signal)) | (End::Forced(signal), _) => ExitCode::from(signal.exit_code()),
    })
}

/// How a server ended that had started, or was told not to.
enum End {
    /// Whoever was served has their answer.
    Orderly,
    /// It was told twice.
    Forced(StopSignal),
}

async fn serve(
    config: Config,
    mut doors: Doors,
    tls: Option<Tls>,
    counters: telemetry::ProcessCounters,
    credentials: Option<Credentials>,
    signals: &mut StopSignals,
) -> anyhow::Result<End> {
    let started = Instant::now();
    let data_dir = config.data_dir()?;
    let limits = config.shutdown.clone();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (app, database, migrated) = tokio::select! {
        opened = open(config, counters, credentials.as_ref()) => opened?,
        ended = doors.ended() => anyhow::bail!("{}", ended?),
        signal = signals.next() => {
            tracing::info!(reason = signal.as_str(), "told to stop before it was ready");
            return Ok(End::Orderly);
        }
    };
    Tls::watch(tls, &app).context("waiting for SIGHUP")?;
    workers::start(&app);
    doors.public.stage.open(app.router());
    doors.ops.stage.open(app.ops_router());
    tracing::info!(
        public_addr = %doors.public.address,
        ops_addr = %doors.ops.address,
        scheme,
        migrations_applied = migrated.applied,
        startup_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    if let Some(credentials) = &credentials {
        welcome(credentials, &data_dir, &format!("{scheme}://{}", doors.public.address), doors.ops.address);
    }

    // A listener that ends by itself ends the server: a process that serves nothing must not look alive.
    let reason = tokio::select! {
        signal = signals.next() => signal.as_str(),
        ended = doors.ended() => ended?,
    };
    tracing::info!(reason, "shutting down: not ready any more");
    let stopping = async {
        stop(&app, doors, &limits).await?;
        database.close().await
    };
    tokio::select! {
        stopped = stopping => stopped?,
        signal = signals.next() => {
            tracing::warn!(reason = signal.as_str(), "told twice: whatever is being done is broken off");
            return Ok(End::Forced(signal));
        }
    }
    tracing::info!("stopped");
    Ok(End::Orderly)
}

/// Everything that must be there before the first request: the database, its schema, an App that knows its
/// dictionaries.
async fn open(
    config: Config,
    counters: telemetry::ProcessCounters,
    credentials: Option<&Credentials>,
) -> anyhow::Result<(App, Database, migrate::Outcome)> {
    let database = database::open(&config).await?;
    let spinner = progress::spinner("migrating the database");
    let migrated = migrate::run(&database.options).await;
    spinner.finish_and_clear();
    let migrated = migrated?;
    let app = App::build(config, database.options.clone(), Clock::System, counters)?;
    if let Some(credentials) = credentials {
        credentials.load_company(&app).await.context("loading the demo company")?;
    }
    app.warm_up().await?;
    Ok((app, database, migrated))
}

/// Stops in order: first nobody sends anything new, then everybody has their answer, then the workers have
/// finished what they were at, then the connections are given back.
async fn stop(app: &App, mut doors: Doors, limits: &config::Shutdown) -> anyhow::Result<()> {
    app.lifecycle.begin_draining();
    tokio::time::sleep(Duration::from_millis(limits.delay_ms)).await;
    let drain = Duration::from_millis(limits.drain_ms);
    doors.public.handle.graceful_shutdown(Some(drain));
    // Together: requests need no worker, and what a worker leaves is taken up at the next start.
    let (served, ()) = tokio::join!(doors.public.wait(), app.lifecycle.stop_workers(drain));
    // After the drain, so that it can be watched.
    doors.ops.handle.shutdown();
    let scraped = doors.ops.wait().await;
    if tokio::time::timeout(CLOSE_LIMIT, app.close()).await.is_err() {
        tracing::warn!("the database does not answer; its connections are dropped");
    }
    served.and(scraped)
}

/// Both listeners, being served.
struct Doors {
    public: Door,
    ops: Door,
}

struct Door {
    address: SocketAddr,
    stage: Stage,
    handle: Handle<SocketAddr>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Doors {
    /// Completes when one of them does.
    async fn ended(&mut self) -> anyhow::Result<&'static str> {
        tokio::select! {
            ended = &mut self.public.server => ended??,
            ended = &mut self.ops.server => { ended??; return Ok("the ops listener ended") }
        }
        Ok("the public listener ended")
    }
}

impl Door {
    fn open(listener: TcpListener, config: &Config, tls: Option<RustlsConfig>) -> anyhow::Result<Self> {
        let (address, stage, handle) = (listener.local_addr()?, Stage::default(), Handle::new());
        let router = stage.router(config.http.trusted_proxies.as_slice().into());
        let patience = Patience::of(&config.http);
        let server = tokio::spawn(listen::serve(listener, router, handle.clone(), patience, tls));
        Ok(Self { address, stage, handle, server })
    }

    /// Waits for its end, which may have been waited for already.
    async fn wait(&mut self) -> anyhow::Result<()> {
        if self.server.is_finished() {
            return Ok(());
        }
        Ok((&mut self.server).await??)
    }
}

/// Lets this process have as many files and sockets open as the system allows it to ask for: the soft limit,
/// often 1024, is there for programs that still use `select`.
fn allow_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((soft, hard)) => tracing::debug!(before = soft, now = hard, "files that may be open"),
        Err(error) => tracing::warn!(%error, "the limit on open files stays as it is"),
    }
}

/// What a person who just started the demo wants to know. The passwords are the demo's own.
fn welcome(credentials: &Credentials, data_dir: &Path, public: &str, ops: SocketAddr) {
    let file = Credentials::path(data_dir);
    eprintln!("\n  Switchboard is serving a demo company.\n");
    eprintln!("    API       {public}/api/v1");
    eprintln!("    Try it    {public}/docs");
    eprintln!("    Ready     {public}/health/ready");
    eprintln!("    Metrics   http://{ops}/metrics");
    eprintln!("    Logins    {}", file.display());
    if std::io::stderr().is_terminal() {
        let shown = [Role::Admin, Role::Manager, Role::Operator, Role::Master];
        for role in shown {
            if let Some(user) = credentials.users.iter().find(|user| user.role == role) {
                eprintln!("              {:<14} {}", user.login, user.password);
            }
        }
    }
    // As it was called: it may not be on the path.
    let program = std::env::args().next().unwrap_or_else(|| "switchboard".to_owned());
    eprintln!("\n  A day of calls: {program} simulate --speed 600     Stop: Ctrl-C\n");
}
