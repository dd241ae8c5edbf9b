//! What can go wrong with the private cluster, worded for the person who starts Switchboard: one
//! line that names the thing and the way out.

use std::io;
use std::path::{Path, PathBuf};

use super::binaries::OLDEST_SUPPORTED;

/// Why the private PostgreSQL cluster could not be found, created, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No PostgreSQL server programs in any of the known places.
    #[error(
        "no PostgreSQL server was found on this machine: install it with `apt-get install postgresql` (Debian, \
         Ubuntu) or `brew install postgresql@17` (macOS), or set DATABASE_URL to use a server that runs elsewhere"
    )]
    NoBinaries,

    /// Only server programs older than the oldest supported major version.
    #[error(
        "PostgreSQL {major} in {} is too old: Switchboard needs version {OLDEST_SUPPORTED} or newer; install one \
         (`apt-get install postgresql`, `brew install postgresql@17`) or set DATABASE_URL to use another server",
        dir.display()
    )]
    TooOld { major: u32, dir: PathBuf },

    /// The cluster was created by a major version that is no longer installed.
    #[error(
        "the database cluster in {} was created by PostgreSQL {cluster}, but the machine has version {installed}: \
         install PostgreSQL {cluster} again (`apt-get install postgresql-{cluster}`, `brew install \
         postgresql@{cluster}`), upgrade the cluster with pg_upgrade, or move it away to begin with an empty one",
        dir.display()
    )]
    VersionMismatch {
        dir: PathBuf,
        cluster: u32,
        /// Installed major versions, as a list for the reader.
        installed: String,
    },

    /// The cluster directory has content, but not that of a PostgreSQL cluster.
    #[error(
        "{} is not a complete PostgreSQL cluster (its PG_VERSION file is missing or unreadable): restore it from a \
         backup, or move it away to begin with an empty one",
        dir.display()
    )]
    NotACluster { dir: PathBuf },

    /// The cluster's files belong to a user that cannot run the server now.
    #[error(
        "the database cluster in {} belongs to {owner}, but PostgreSQL would run as {user}: {fix}, or set \
         SWITCHBOARD_DATA_DIR to another directory",
        dir.display()
    )]
    WrongOwner { dir: PathBuf, owner: String, user: String, fix: String },

    /// Running as root, with no unprivileged user to run the server as.
    #[error(
        "PostgreSQL refuses to run as root and this machine has neither a `postgres` nor a `nobody` user: create \
         one (`useradd --system postgres`) or run Switchboard as an ordinary user"
    )]
    NoAccount,

    /// The user that runs the server cannot reach the data directory.
    #[error(
        "PostgreSQL runs as user `{user}`, which may not enter {}: set SWITCHBOARD_DATA_DIR=/var/lib/switchboard (or \
         any directory that user can reach), or allow it with `chmod o+x {}`",
        dir.display(), dir.display()
    )]
    CannotEnter { dir: PathBuf, user: String },

    /// The user that runs the server cannot reach the server programs.
    #[error(
        "PostgreSQL runs as user `{user}`, which may not enter {}, where its programs are: allow it with `chmod o+x \
         {}`, or install PostgreSQL for the whole machine (`apt-get install postgresql`)",
        dir.display(), dir.display()
    )]
    CannotEnterBinaries { dir: PathBuf, user: String },

    /// The socket directory exists and others could enter or replace it.
    #[error(
        "{} must be a directory of user `{user}` with mode 0700, because whoever can enter it is let into the \
         database: remove it and start again",
        dir.display()
    )]
    NotPrivate { dir: PathBuf, user: String },

    /// Another process holds the lock of this directory.
    #[error(
        "another switchboard{} is using {}: stop it, or set SWITCHBOARD_DATA_DIR to give this one its own directory",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), dir.display()
    )]
    InUse { dir: PathBuf, pid: Option<u32> },

    /// `initdb`, or creating the database in the new cluster, failed.
    #[error("creating the database cluster in {} failed: {output}{}", dir.display(), room(output))]
    Create { dir: PathBuf, output: String },

    /// The server ended before it accepted connections.
    #[error("PostgreSQL did not start ({status}); the end of {} says: {output}{}", log.display(), room(output))]
    Startup { status: String, log: PathBuf, output: String },

    /// The server runs but did not accept connections in time.
    #[error(
        "PostgreSQL was not ready after {seconds} s and has been told to stop; the end of {} says: {output}",
        log.display()
    )]
    StartTimeout { seconds: u64, log: PathBuf, output: String },

    /// The server ignored both the fast and the immediate shutdown.
    #[error(
        "PostgreSQL (process {pid}, cluster {}) does not stop: look for a stuck disk, then end it with `kill -9 {pid}`",
        dir.display()
    )]
    StillRunning { pid: i32, dir: PathBuf },

    /// An operating-system call failed.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// A verb phrase that the path completes.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl EmbeddedError {
    /// Whether the server found that processes of the one before it still hold its memory.
    pub(super) fn is_memory_in_use(&self) -> bool {
        matches!(self, Self::Startup { output, .. } if output.contains("shared memory block"))
    }

    /// For `map_err`: says what was being done to which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// The way out of the failures that a person can do something about.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; run Switchboard as the owner, or set SWITCHBOARD_DATA_DIR to a directory it may write"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ROOM,
        _ => "",
    }
}

const ROOM: &str = "; free some disk space";

/// The same, of what PostgreSQL says.
fn room(output: &str) -> &'static str {
    if output.contains("No space left on device") { ROOM } else { "" }
}
