//! The files of one private cluster: what lies where below the data directory, and who may enter
//! it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::EmbeddedError;
use super::account::Account;

/// Length in bytes that every system accepts for a socket's path: macOS allows 104 with the closing
/// NUL.
const SOCKET_PATH_MAX: usize = 103;

/// The cluster's files, in the data directory.
pub(super) const DATA: &str = "pg";

/// The port that names the socket file. Nothing listens on a network port.
pub(super) const PORT: u16 = 5432;

/// Above this size in bytes the server's log is set aside at the next start.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// How much of the log an error message looks at, in bytes and lines.
const LOG_TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 8;

/// Where everything is. All paths are absolute and free of links.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    /// The cluster itself. It gets this name only when it is complete.
    pub(super) data: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Layout {
    /// Creates the directory if it is missing.
    pub(super) fn prepare(dir: &Path) -> Result<Self, EmbeddedError> {
        let absolute = std::path::absolute(dir).map_err(EmbeddedError::io("find", dir))?;
        // The server's user has to pass through what root creates, whatever the umask, but not to
        // list it.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        let missing: Vec<&Path> = absolute.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(EmbeddedError::io("create the directory", path))?;
        }
        let dir = absolute.canonicalize().map_err(EmbeddedError::io("find", &absolute))?;
        Ok(Self {
            data: dir.join(DATA),
            socket_dir: choose_socket_dir(&dir, &std::env::temp_dir()),
            log: dir.join("postgres.log"),
            dir,
        })
    }

    /// The path of the server's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{PORT}"))
    }

    /// Makes the socket's directory, empty of what a killed server left there. The server would
    /// look only at the process id in its socket's lock file, which another process may have by
    /// now. To be called with the lock held, and when no server of this cluster runs: then nobody
    /// else uses this directory.
    pub(super) fn prepare_socket_dir(&self, account: &Account) -> Result<(), EmbeddedError> {
        private_dir(&self.socket_dir, account)?;
        let lock = self.socket_dir.join(format!(".s.PGSQL.{PORT}.lock"));
        for path in [lock, self.socket()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(EmbeddedError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the directory for this process until the returned file is closed. The system lets go
    /// of the lock of a process that dies, and children never hold it: files are closed on exec.
    pub(super) fn lock(&self) -> Result<File, EmbeddedError> {
        let path = self.dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(EmbeddedError::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // Only for the message of the next one, so a failure to write it does not matter.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(file)
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Err(EmbeddedError::InUse { dir: self.dir.clone(), pid: holder.parse().ok() })
            }
            Err(TryLockError::Error(error)) => Err(EmbeddedError::io("lock", &path)(error)),
        }
    }

    /// The major version that created the cluster; `None` if there is no cluster yet.
    pub(super) fn cluster_version(&self) -> Result<Option<u32>, EmbeddedError> {
        let broken = || EmbeddedError::NotACluster { dir: self.data.clone() };
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().split('.').next().map(str::parse) {
                Some(Ok(major)) => Ok(Some(major)),
                _ => Err(broken()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An empty directory is replaced by the new cluster; anything else is not ours to
                // replace.
                match fs::read_dir(&self.data).map(Iterator::count) {
                    Ok(1..) => Err(broken()),
                    _ => Ok(None),
                }
            }
            Err(error) => Err(EmbeddedError::io("read", &path)(error)),
        }
    }

    /// Where a cluster is created before it is moved to its name. The process id keeps apart an
    /// `initdb` that is still at work for a Switchboard that was killed.
    pub(super) fn half_made(&self) -> PathBuf {
        self.dir.join(format!("pg.tmp.{}", std::process::id()))
    }

    /// Removes what interrupted attempts to create the cluster left behind.
    pub(super) async fn remove_half_made(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"pg.tmp.") {
                // One that is still being written to goes at the next start.
                let _ = tokio::fs::remove_dir_all(entry.path()).await;
            }
        }
    }

    /// Opens the server's log for appending, and tells where this start's part begins.
    pub(super) fn open_log(&self) -> Result<(File, u64), EmbeddedError> {
        if fs::metadata(&self.log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            fs::rename(&self.log, self.log.with_extension("log.old"))
                .map_err(EmbeddedError::io("set aside the log", &self.log))?;
        }
        let open = || {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        open().map_err(EmbeddedError::io("open the log", &self.log))
    }

    /// The last lines that the server wrote after `start`, as one line.
    pub(super) fn log_tail(&self, start: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(start.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        tail(&String::from_utf8_lossy(&read().unwrap_or_default()))
    }
}

/// The last lines of `text` as one line.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.len() {
        0 => "(nothing)".to_owned(),
        count => lines[count.saturating_sub(TAIL_LINES)..].join(" | "),
    }
}

/// Makes a directory that only `account` and root can enter.
///
/// One that is there already is used only if it is that private: in a shared temp directory anyone
/// could have put it there. Nothing but the owner of a link or an empty directory is changed, so
/// there is no path to fool root with.
pub(super) fn private_dir(path: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let failed = "create the directory";
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(EmbeddedError::io(failed, path)(error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(path).map_err(EmbeddedError::io(failed, path))?;
    let ours = metadata.uid() == account.uid.as_raw();
    let just_made = metadata.uid() == geteuid().as_raw();
    if !metadata.is_dir() || metadata.mode() & 0o077 != 0 || !(ours || just_made) {
        return Err(EmbeddedError::NotPrivate { dir: path.to_path_buf(), user: account.name.clone() });
    }
    if ours {
        return Ok(());
    }
    lchown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
        .map_err(EmbeddedError::io("change the owner of", path))
}

/// `run` beside the cluster, or a directory below `temp` with a stable name if that path is too
/// long for a socket or has characters that PostgreSQL's list of socket directories would need
/// quoted.
fn choose_socket_dir(dir: &Path, temp: &Path) -> PathBuf {
    let usable = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-@+".contains(byte);
        bytes.len() + format!("/.s.PGSQL.{PORT}").len() <= SOCKET_PATH_MAX && bytes.iter().all(plain)
    };
    let name = format!("switchboard-{:016x}", fnv1a(dir.as_os_str().as_encoded_bytes()));
    [dir.join("run"), temp.join(&name)]
        .into_iter()
        .find(|path| usable(path))
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// FNV-1a: the standard library's hasher may change from one Rust release to the next, and with it
/// the name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_plain_directory_keeps_its_socket() {
        let chosen = choose_socket_dir(Path::new("/var/lib/switchboard"), Path::new("/tmp"));
        assert_eq!(chosen, Path::new("/var/lib/switchboard/run"));
    }

    #[test]
    fn a_long_directory_moves_its_socket_to_a_stable_short_name() {
        let long = PathBuf::from(format!("/home/{}", "x".repeat(100)));
        let chosen = choose_socket_dir(&long, Path::new("/tmp"));
        assert!(chosen.starts_with("/tmp") && chosen.as_os_str().len() < 40, "{chosen:?}");
        assert_eq!(chosen, choose_socket_dir(&long, Path::new("/tmp")));
        assert_ne!(chosen, choose_socket_dir(&long.join("other"), Path::new("/tmp")));
        // A temp directory that is too long itself does not help.
        assert_eq!(chosen, choose_socket_dir(&long, &long));
    }

    #[test]
    fn a_directory_with_a_comma_moves_its_socket() {
        let chosen = choose_socket_dir(Path::new("/data/a,b"), Path::new("/tmp"));
        assert!(chosen.starts_with("/tmp"), "{chosen:?}");
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn a_tail_is_one_line() {
        assert_eq!(tail(""), "(nothing)");
        assert_eq!(tail("one\n\n  two\n"), "one | two");
        let many = (0..20).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(tail(&many), "12 | 13 | 14 | 15 | 16 | 17 | 18 | 19");
    }
}
