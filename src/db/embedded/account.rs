//! The operating-system user that PostgreSQL runs as, and the commands run in its name.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::EmbeddedError;

/// Prints the first of its arguments that the user may not enter.
const FIND_CLOSED_DIR: &str = r#"for dir do cd "$dir" 2>/dev/null || { printf '%s' "$dir"; exit 1; }; done"#;

/// Kept from Switchboard's environment: where programs and the libraries of an unusual installation
/// are.
const KEPT_ENV: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// The user of every PostgreSQL process and file of one cluster.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Whether Switchboard runs as root, so that its children have to change to this user.
    switch: bool,
}

impl Account {
    /// Switchboard's own user. For root, which PostgreSQL refuses: the owner of an existing
    /// cluster, so that nothing has to change hands, otherwise `postgres`, otherwise `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        let owner = match fs::metadata(cluster) {
            Ok(metadata) => Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EmbeddedError::io("look at", cluster)(error)),
        };
        let own = geteuid();
        let account = match owner {
            _ if !own.is_root() => Self::new(own, getegid(), false),
            Some((uid, gid)) if !uid.is_root() => Self::new(uid, gid, true),
            _ => Self::unprivileged()?,
        };
        match owner {
            Some((uid, _)) if uid != account.uid => Err(EmbeddedError::WrongOwner {
                dir: cluster.to_path_buf(),
                owner: name_of(uid),
                user: account.name.clone(),
                fix: if own.is_root() {
                    format!("give it back with `chown -R {} {}`", account.name, cluster.display())
                } else {
                    format!("run Switchboard as {} or root", name_of(uid))
                },
            }),
            _ => Ok(account),
        }
    }

    fn new(uid: Uid, gid: Gid, switch: bool) -> Self {
        Self { name: name_of(uid), uid, gid, switch }
    }

    fn unprivileged() -> Result<Self, EmbeddedError> {
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self::new(user.uid, user.gid, true))
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this user, away from the terminal and from Switchboard's environment.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // Switchboard's environment holds secrets, and libpq's variables (PGDATA, PGOPTIONS) would
        // change the server.
        command.env_clear().env("LC_ALL", "C");
        command.envs(KEPT_ENV.iter().filter_map(|name| Some((*name, env::var_os(name)?))));
        // PostgreSQL's programs fail in a working directory that their user may not enter.
        command.current_dir("/").stdin(Stdio::null());
        // Ctrl-C in the terminal goes to Switchboard alone, which still needs its database to
        // drain.
        command.process_group(0);
        if self.switch {
            // As root this also drops the supplementary groups.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// The first of `dir` and the directories above it that this user may not enter. It is tried
    /// rather than computed from modes, since access lists and security modules have a say too.
    pub(super) async fn closed_dir(&self, dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
        if !self.switch {
            return Ok(None);
        }
        let mut from_root: Vec<&Path> = dir.ancestors().collect();
        from_root.reverse();
        let mut command = self.command("/bin/sh");
        command.args(["-c", FIND_CLOSED_DIR, "sh"]).args(&from_root);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .map_err(EmbeddedError::io("run as another user", Path::new("/bin/sh")))?;
        if output.status.success() {
            return Ok(None);
        }
        let closed = from_root.into_iter().find(|path| path.as_os_str().as_encoded_bytes() == output.stdout);
        Ok(Some(closed.unwrap_or(dir).to_path_buf()))
    }
}

fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("user id {uid}"),
    }
}
