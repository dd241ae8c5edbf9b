//! `switchboard serve`: bind, open the database, migrate, serve, and stop in order.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum_server::Handle;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use super::{database, demo::Credentials, progress};
use crate::{
    app::App,
    auth::Role,
    clock::Clock,
    config::{Config, Settings},
    db::migrate,
    http::{listen, tls::Tls, turns::Patience},
    lifecycle, telemetry, workers,
};

const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// A database in a dark network says no goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Runs the server until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting: a setting, a taken port, the database.
pub async fn run(mut settings: Settings, demo: bool) -> anyhow::Result<()> {
    let credentials = if demo { Some(Credentials::of(&mut settings)?) } else { None };
    let config = settings.config()?;
    config.validate()?;
    let tls = Tls::load(&config.tls)?;
    // Bound before anything slow: a taken port is known in milliseconds, and nothing was touched.
    let public = listen::bind(config.http.addr, "SWITCHBOARD_HTTP_ADDR")?;
    let ops = listen::bind(config.ops.addr, "SWITCHBOARD_OPS_ADDR")?;
    let addresses = (public.local_addr()?, ops.local_addr()?);
    let telemetry = telemetry::init(&config.log)?;
    let counters = telemetry.counters.clone();
    allow_open_files();

    let outcome = serve(config, (public, ops), addresses, tls, counters, credentials).await;
    // Blocking, so not on a thread that others may need.
    let _ = tokio::task::spawn_blocking(move || telemetry.shutdown(FLUSH_LIMIT)).await;
    outcome
}

async fn serve(
    config: Config,
    (public, ops): (std::net::TcpListener, std::net::TcpListener),
    (public_addr, ops_addr): (SocketAddr, SocketAddr),
    tls: Option<Tls>,
    counters: telemetry::ProcessCounters,
    credentials: Option<Credentials>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let data_dir = config.data_dir()?;
    let shutdown = config.shutdown.clone();
    let database = database::open(&config).await?;
    let spinner = progress::spinner("migrating the database");
    let migrated = migrate::run(&database.options).await;
    spinner.finish_and_clear();
    let migrated = migrated?;
    let app = App::build(config, database.options.clone(), Clock::System, counters)?;
    if let Some(credentials) = &credentials {
        credentials.load_company(&app).await.context("loading the demo company")?;
    }
    app.warm_up().await?;
    workers::start(&app);

    let (scheme, acceptor) = (if tls.is_some() { "https" } else { "http" }, tls.as_ref().map(Tls::acceptor));
    Tls::watch(tls, &app).context("waiting for SIGHUP")?;
    let (public_handle, ops_handle) = (Handle::new(), Handle::new());
    let patience = Patience::of(&app.config.http);
    let mut public_server =
        tokio::spawn(listen::serve(public, app.router(), public_handle.clone(), patience, acceptor));
    let mut ops_server = tokio::spawn(listen::serve(ops, app.ops_router(), ops_handle.clone(), patience, None));
    tracing::info!(
        %public_addr,
        %ops_addr,
        scheme,
        migrations_applied = migrated.applied,
        startup_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    if let Some(credentials) = &credentials {
        welcome(credentials, &data_dir, &format!("{scheme}://{public_addr}"), ops_addr);
    }

    // A listener that ends by itself ends the server: a process that serves nothing must not look alive.
    let reason = tokio::select! {
        signal = lifecycle::shutdown_signal() => signal?,
        ended = &mut public_server => { ended??; "the public listener ended" }
        ended = &mut ops_server => { ended??; "the ops listener ended" }
    };
    tracing::info!(reason, "shutting down: not ready any more");
    app.lifecycle.begin_draining();
    tokio::time::sleep(Duration::from_millis(shutdown.delay_ms)).await;
    let drain = Duration::from_millis(shutdown.drain_ms);
    public_handle.graceful_shutdown(Some(drain));
    // Together: requests need no worker, and what a worker leaves is taken up at the next start.
    let (served, ()) = tokio::join!(wait(&mut public_server), app.lifecycle.stop_workers(drain));
    // After the drain, so that it can be watched.
    ops_handle.shutdown();
    let scraped = wait(&mut ops_server).await;
    if tokio::time::timeout(CLOSE_LIMIT, app.close()).await.is_err() {
        tracing::warn!("the database does not answer; its connections are dropped");
    }
    database.close().await?;
    served.and(scraped)?;
    tracing::info!("stopped");
    Ok(())
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

/// Waits for a server task that may have been waited for already.
async fn wait(server: &mut JoinHandle<std::io::Result<()>>) -> anyhow::Result<()> {
    if server.is_finished() {
        return Ok(());
    }
    Ok(server.await??)
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
