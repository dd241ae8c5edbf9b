//! A private PostgreSQL cluster, for when no `DATABASE_URL` is set.
//!
//! Here belongs everything between "there is a data directory" and "there is a socket to connect
//! to": finding the machine's own PostgreSQL programs (`binaries`), the user they run as
//! (`account`), the files (`layout`), and the server process (`postmaster`). Connections, pools and
//! migrations do not belong here.
//!
//! # Who can connect
//!
//! The server listens on a Unix socket only, and lets in whoever reaches it (`trust`). That is as
//! safe as the files: the socket lies in a directory of mode 0700 and is of mode 0700 itself, so
//! that only the user the server runs as, who can read the data files anyway, and root get to it.
//! `peer` would not do, since Switchboard run as root has another user than the server. As root the
//! server runs as `postgres` for that reason; `nobody`, which unrelated programs may share, is only
//! the last resort.
//!
//! # When it stops
//!
//! The server runs in its own process group, under a small shell script that stops it as soon as
//! this process is gone, however it went. What a killed server leaves behind is recovered at the
//! next start.

mod account;
mod binaries;
mod error;
mod layout;
mod postmaster;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Output, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use account::Account;
pub use binaries::{Binaries, locate_binaries};
pub use error::EmbeddedError;
use layout::{DATA, Layout, PORT, private_dir, tail};
use postmaster::{POLL, PidFile, SUPERVISOR};

/// Name of both the superuser and the database.
const NAME: &str = "switchboard";

/// How long the server may take until it accepts connections. Recovery after a crash can need
/// minutes.
const START_LIMIT: Duration = Duration::from_mins(5);

/// When a start is slow enough to tell the person waiting.
const SLOW_START: Duration = Duration::from_secs(3);

/// How long the processes of a killed server may take to notice that it is gone.
const BACKENDS_EXIT: Duration = Duration::from_secs(10);

/// How long the supervisor may take to notice that its server has ended.
const SUPERVISOR_EXIT: Duration = Duration::from_secs(2);

/// Where a cluster lives and how it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster, its socket, lock and log live below this directory. It is created if missing;
    /// if it exists and Switchboard runs as root, the server's user must be able to enter it.
    pub dir: PathBuf,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Connections that the server accepts at the same time.
    pub max_connections: u16,
}

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Full,
    /// The whole cluster: `fsync`, `synchronous_commit` and `full_page_writes` are off. For tests
    /// only.
    None,
}

/// Creates `dir` as a cluster needs it, if it is missing: whatever the umask, the user that root's
/// server runs as can pass through it.
///
/// # Errors
/// When it cannot be created.
pub fn prepare_dir(dir: &Path) -> Result<(), EmbeddedError> {
    Layout::prepare(dir).map(drop)
}

/// Whether a cluster was created in `dir`. A directory that cannot be looked into counts as one without.
#[must_use]
pub fn cluster_exists(dir: &Path) -> bool {
    dir.join(DATA).join("PG_VERSION").is_file()
}

/// The socket directory of a server that is running in `dir`, started by another process.
#[must_use]
pub fn running_socket_dir(dir: &Path) -> Option<PathBuf> {
    let layout = Layout::prepare(dir).ok()?;
    UnixStream::connect(layout.socket()).ok()?;
    Some(layout.socket_dir)
}

/// A running private cluster.
///
/// Dropping it, or ending the process in any manner, tells the server to shut down without waiting
/// for it; only [`Cluster::stop`] waits. It is not tied to the runtime it was started on.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
    socket_dir: PathBuf,
    server_version: u32,
    server: Pid,
    supervisor: Child,
    /// The supervisor stops the server when this end of its standard input closes. No child
    /// inherits it: the standard library marks it to be closed on exec.
    lifeline: ChildStdin,
    /// Held while the directory is in use.
    lock: File,
}

impl Cluster {
    /// Starts the cluster, after creating it on the first run, and waits until it accepts
    /// connections.
    ///
    /// A server that an earlier Switchboard left running in the same directory is stopped first.
    /// `progress` is called with short phrases such as "creating the database cluster". Dropping
    /// the future undoes the start.
    ///
    /// # Errors
    /// Every [`EmbeddedError`]; each says what to do about it.
    pub async fn start(options: Options, progress: &(dyn Fn(&str) + Sync)) -> Result<Self, EmbeddedError> {
        let layout = Layout::prepare(&options.dir)?;
        let account = Account::choose(&layout.data)?;
        let binaries = match layout.cluster_version()? {
            Some(major) => binaries::locate_for_cluster(&layout.data, major)?,
            None => locate_binaries()?,
        };
        check_reachable(&account, &layout, &binaries).await?;
        let lock = layout.lock()?;
        layout.remove_half_made().await;
        let unclean = take_over(&layout.data, progress).await?;
        // Asked again: before it had the lock, another process may have created the cluster.
        if layout.cluster_version()?.is_none() {
            progress("creating the database cluster");
            create_cluster(&layout, &account, &binaries, options.durability).await?;
        }

        if unclean {
            progress("recovering the database after an unclean stop");
        } else {
            progress(&format!("starting PostgreSQL {}", binaries.major()));
        }
        layout.prepare_socket_dir(&account)?;
        if let Some(dir) = account.closed_dir(&layout.socket_dir).await? {
            return Err(EmbeddedError::CannotEnter { dir, user: account.name });
        }
        let patience = Instant::now() + BACKENDS_EXIT;
        let (supervisor, lifeline, server) = loop {
            match launch(&options, &layout, &account, &binaries, progress).await {
                // Of a server that was killed, the processes of its connections live on until they notice.
                Err(error) if unclean && error.is_memory_in_use() && Instant::now() < patience => sleep(POLL).await,
                launched => break launched?,
            }
        };
        tracing::debug!(
            %server,
            binaries = %binaries.dir().display(),
            dir = %layout.dir.display(),
            "PostgreSQL runs"
        );
        Ok(Self {
            data: layout.data,
            socket_dir: layout.socket_dir,
            server_version: binaries.major(),
            server,
            supervisor,
            lifeline,
            lock,
        })
    }

    /// The directory of the server's socket: the host to connect to.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port to connect to. It only names the socket file; clusters in different directories
    /// share it.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The user to connect as. There is no password.
    pub fn superuser(&self) -> &str {
        NAME
    }

    /// The database to connect to. It was created with the cluster.
    pub fn database(&self) -> &str {
        NAME
    }

    /// The server's major version, such as 17.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Shuts the server down and waits until it is gone: a fast shutdown, which ends open
    /// connections, and after 10 s an immediate one. A server that is gone already is no error.
    ///
    /// # Errors
    /// [`EmbeddedError::StillRunning`] if neither helps, or [`EmbeddedError::Io`] if it may not be
    /// signalled.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        postmaster::shut_down(&self.data, self.server).await?;
        drop(self.lifeline);
        let deadline = Instant::now() + SUPERVISOR_EXIT;
        while matches!(self.supervisor.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(POLL).await;
        }
        // Last: whoever gets the lock must not find anything of this cluster running.
        drop(self.lock);
        Ok(())
    }
}

/// Starts the server under its supervisor, and waits until it accepts connections.
async fn launch(
    options: &Options,
    layout: &Layout,
    account: &Account,
    binaries: &Binaries,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(Child, ChildStdin, Pid), EmbeddedError> {
    let (log, log_start) = layout.open_log()?;
    let failed = || EmbeddedError::io("run the supervisor of PostgreSQL,", Path::new("/bin/sh"));
    let mut supervisor = account
        .command("/bin/sh")
        .args(["-c", SUPERVISOR, "switchboard-postgres"])
        .arg(binaries.postgres())
        .args(server_arguments(options, layout))
        .stdin(Stdio::piped())
        .stdout(log.try_clone().map_err(EmbeddedError::io("open the log", &layout.log))?)
        .stderr(log)
        .spawn()
        .map_err(failed())?;
    let lifeline = supervisor.stdin.take().ok_or_else(|| failed()(std::io::ErrorKind::BrokenPipe.into()))?;
    let server = wait_until_ready(&mut supervisor, layout, log_start, progress).await?;
    Ok((supervisor, lifeline, server))
}

async fn check_reachable(account: &Account, layout: &Layout, binaries: &Binaries) -> Result<(), EmbeddedError> {
    let user = || account.name.clone();
    if let Some(dir) = account.closed_dir(&layout.dir).await? {
        return Err(EmbeddedError::CannotEnter { dir, user: user() });
    }
    match account.closed_dir(binaries.dir()).await? {
        Some(dir) => Err(EmbeddedError::CannotEnterBinaries { dir, user: user() }),
        None => Ok(()),
    }
}

/// Stops a server that still runs in `data` although nobody holds the lock: one whose Switchboard
/// was killed. Tells whether the last server was killed before it could shut down.
async fn take_over(data: &Path, progress: &(dyn Fn(&str) + Sync)) -> Result<bool, EmbeddedError> {
    let Some(left_over) = PidFile::read(data) else {
        return Ok(false);
    };
    if postmaster::runs(data, left_over.pid) {
        progress("stopping the PostgreSQL of an earlier run");
        postmaster::shut_down(data, left_over.pid).await?;
        return Ok(false);
    }
    postmaster::forget_reused_pid(data, left_over.pid)?;
    Ok(true)
}

/// Creates the cluster and its database under another name, and gives it its own when it is
/// complete, so that an interrupted attempt is never taken for a cluster.
async fn create_cluster(
    layout: &Layout,
    account: &Account,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), EmbeddedError> {
    let work = layout.half_made();
    let failed = |output: &Output| EmbeddedError::Create {
        dir: layout.dir.clone(),
        output: tail(&String::from_utf8_lossy(&output.stderr)),
    };

    private_dir(&work, account)?;
    let mut output = initdb(account, binaries, &work, "C.UTF-8", durability).await?;
    // macOS has no C.UTF-8. What initdb made before it failed it has removed again.
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("locale") {
        output = initdb(account, binaries, &work, "C", durability).await?;
    }
    if !output.status.success() {
        return Err(failed(&output));
    }

    let output = create_database(account, binaries, &work, durability).await?;
    if !output.status.success() {
        return Err(failed(&output));
    }
    fs::rename(&work, &layout.data).map_err(EmbeddedError::io("move the new cluster to", &layout.data))?;
    if durability == Durability::Full {
        File::open(&layout.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(EmbeddedError::io("write to disk", &layout.dir))?;
    }
    Ok(())
}

async fn initdb(
    account: &Account,
    binaries: &Binaries,
    dir: &Path,
    locale: &str,
    durability: Durability,
) -> Result<Output, EmbeddedError> {
    let program = binaries.initdb();
    let mut command = account.command(&program);
    command.arg("-D").arg(dir).args(["-U", NAME, "--encoding=UTF8", "--lc-messages=C"]);
    command.arg(format!("--locale={locale}"));
    command.args(["--auth-local=trust", "--auth-host=reject", "--data-checksums", "--no-instructions"]);
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    tokio::process::Command::from(command).kill_on_drop(true).output().await.map_err(EmbeddedError::io("run", &program))
}

/// Creates the database with a single-user server. That needs no client program and no running
/// server, and it is done before the cluster gets its name, so that every cluster has its database.
async fn create_database(
    account: &Account,
    binaries: &Binaries,
    dir: &Path,
    durability: Durability,
) -> Result<Output, EmbeddedError> {
    let program = binaries.postgres();
    let mut command = account.command(&program);
    command.arg("--single").arg("-D").arg(dir);
    // Without exit_on_error it would end successfully whatever happened.
    command.args(["-c", "exit_on_error=on", "-c", "log_checkpoints=off"]);
    if durability == Durability::None {
        command.args(["-c", "fsync=off"]);
    }
    command.arg("postgres");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = async {
        let mut server = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        if let Some(mut input) = server.stdin.take() {
            // If it ended before it read this, its messages say more than the broken pipe.
            let _ = input.write_all(format!("CREATE DATABASE {NAME}\n").as_bytes()).await;
        }
        server.wait_with_output().await
    };
    run.await.map_err(EmbeddedError::io("run", &program))
}

/// The server's command line. Settings are passed here rather than in `postgresql.conf`, so that a
/// new release of Switchboard changes them for clusters that exist already.
fn server_arguments(options: &Options, layout: &Layout) -> Vec<OsString> {
    let mut socket_directories = OsString::from("unix_socket_directories=");
    socket_directories.push(&layout.socket_dir);
    let mut settings = vec![
        "listen_addresses=".into(),
        socket_directories,
        "unix_socket_permissions=0700".into(),
        format!("port={PORT}").into(),
        format!("max_connections={}", options.max_connections).into(),
        format!("cluster_name={NAME}").into(),
        "shared_buffers=128MB".into(),
        "timezone=UTC".into(),
        "log_timezone=UTC".into(),
        "log_min_messages=warning".into(),
        // Its lines every few minutes would be most of the log, which is looked at when something
        // is wrong.
        "log_checkpoints=off".into(),
        "idle_in_transaction_session_timeout=10s".into(),
    ];
    if options.durability == Durability::None {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(OsString::from));
    }
    let mut arguments = vec!["-D".into(), layout.data.clone().into_os_string()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting]));
    arguments
}

/// Waits until the server says that it is ready and its socket takes a connection.
async fn wait_until_ready(
    supervisor: &mut Child,
    layout: &Layout,
    log_start: u64,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Pid, EmbeddedError> {
    let begin = Instant::now();
    let socket = layout.socket();
    let mut told = false;
    loop {
        let status = supervisor.try_wait().map_err(EmbeddedError::io("wait for PostgreSQL in", &layout.data))?;
        if let Some(status) = status {
            return Err(EmbeddedError::Startup {
                status: status.to_string(),
                log: layout.log.clone(),
                output: layout.log_tail(log_start),
            });
        }
        // A killed server's file says "ready" too until the new server replaces it, hence the look
        // at the process.
        if let Some(file) = PidFile::read(&layout.data)
            && file.ready
            && postmaster::runs(&layout.data, file.pid)
            && UnixStream::connect(&socket).is_ok()
        {
            return Ok(file.pid);
        }
        if begin.elapsed() > START_LIMIT {
            return Err(EmbeddedError::StartTimeout {
                seconds: START_LIMIT.as_secs(),
                log: layout.log.clone(),
                output: layout.log_tail(log_start),
            });
        }
        if begin.elapsed() > SLOW_START && !told {
            progress("waiting for PostgreSQL to be ready");
            told = true;
        }
        sleep(POLL).await;
    }
}
