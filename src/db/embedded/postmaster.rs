//! The running server: the script that watches over it, its `postmaster.pid`, and how it is
//! stopped.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::EmbeddedError;

/// How often a condition is looked at while waiting for it.
pub(super) const POLL: Duration = Duration::from_millis(25);

/// The fast shutdown ends connections and writes a checkpoint; the immediate one leaves the rest to
/// recovery, and the server itself kills what is left after 5 s.
const FAST_SHUTDOWN: Duration = Duration::from_secs(10);
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(7);

/// Runs its arguments as the server and stops it when standard input ends, which the system sees to
/// when Switchboard goes away in any manner, `kill -9` included. It leaves with the server's exit
/// code.
///
/// - Standard input moves to descriptor 3 because a shell gives background commands an empty one.
/// - The shell also makes background commands ignore SIGINT until they handle it, so one sent in
///   the server's first milliseconds would be lost. SIGTERM is not ignored: it ends the server
///   then, and later only announces a slower shutdown that the SIGINT right after it makes a fast
///   one.
/// - Signals meant for Switchboard must not take the watch away, so the shell and its watcher
///   ignore them.
pub(super) const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
trap '' HUP INT TERM
{ read -r _; kill -TERM $server; kill -INT $server; } <&3 3<&- 2>/dev/null &
watcher=$!
exec 3<&-
wait $server
code=$?
kill -KILL $watcher 2>/dev/null
exit $code
"#;

/// What the server tells about itself in `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: Pid,
    /// Whether it accepts connections.
    pub(super) ready: bool,
}

impl PidFile {
    /// `None` if there is no such file or its first line is not yet written.
    pub(super) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        // A single-user server writes its id negated; to kill(2), zero and below mean whole groups
        // of processes.
        (pid > 1).then(|| Self {
            pid: Pid::from_raw(pid),
            ready: text.lines().nth(7).is_some_and(|status| status.trim() == "ready"),
        })
    }
}

/// Whether process `pid` is the server of the cluster in `data`.
///
/// The id alone proves nothing, since after a crash another process may have got it. The command
/// line does, and unlike the working directory it can be read without privileges, such as by root
/// in a container.
pub(super) fn runs(data: &Path, pid: Pid) -> bool {
    let data = data.as_os_str().as_encoded_bytes();
    if cfg!(target_os = "linux") {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.next().is_some_and(|program| program.ends_with(b"postgres"))
            && arguments.any(|argument| argument == data)
    } else {
        let listing = Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output();
        listing.is_ok_and(|output| {
            let text = output.stdout;
            text.windows(8).any(|part| part == b"postgres") && text.windows(data.len()).any(|part| part == data)
        })
    }
}

/// Stops the server: fast, and when that takes too long, immediately.
pub(super) async fn shut_down(data: &Path, pid: Pid) -> Result<(), EmbeddedError> {
    for (signal, patience) in [(Signal::SIGINT, FAST_SHUTDOWN), (Signal::SIGQUIT, IMMEDIATE_SHUTDOWN)] {
        if !runs(data, pid) {
            return Ok(());
        }
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(EmbeddedError::io("stop PostgreSQL in", data)(error.into())),
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !runs(data, pid) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        let seconds = patience.as_secs();
        tracing::warn!(%pid, %signal, seconds, "PostgreSQL did not stop in time");
    }
    Err(EmbeddedError::StillRunning { pid: pid.as_raw(), dir: data.to_path_buf() })
}

/// Removes a `postmaster.pid` whose process id belongs to another program by now. The server would
/// take that program for a living server and refuse to start; every other left-over file it handles
/// itself, with checks of its own.
pub(super) fn forget_reused_pid(data: &Path, pid: Pid) -> Result<(), EmbeddedError> {
    if matches!(kill(pid, None), Err(Errno::ESRCH)) {
        return Ok(());
    }
    let path = data.join("postmaster.pid");
    tracing::warn!(%pid, path = %path.display(), "removing the id file of a PostgreSQL that is gone");
    fs::remove_file(&path).map_err(EmbeddedError::io("remove", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/data/pg\n1700000000\n5432\n/data/run\n\n  5432001    32768\nready   \n";

    #[test]
    fn a_ready_server_is_recognised() {
        let expected = PidFile { pid: Pid::from_raw(4711), ready: true };
        assert_eq!(PidFile::parse(READY), Some(expected));
    }

    #[test]
    fn a_starting_or_stopping_server_is_not_ready() {
        for status in ["starting", "stopping", "standby"] {
            let file = PidFile::parse(&READY.replace("ready   ", status)).unwrap();
            assert!(!file.ready, "{status}");
        }
        // The file grows line by line while the server starts.
        assert!(!PidFile::parse("4711\n/data/pg\n").unwrap().ready);
    }

    #[test]
    fn a_file_without_a_process_is_ignored() {
        for text in ["", "\n", "-4711\n/data/pg\n", "0\n", "1\n", "garbage"] {
            assert_eq!(PidFile::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn another_process_is_not_taken_for_the_server() {
        let this = Pid::from_raw(i32::try_from(std::process::id()).unwrap());
        assert!(!runs(Path::new("/data/pg"), this));
    }
}
