//! Finds the PostgreSQL installation to run. It only looks; it never installs anything.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{cmp, env, fs};

use super::EmbeddedError;

/// The oldest major version of PostgreSQL that Switchboard runs on.
pub(super) const OLDEST_SUPPORTED: u32 = 14;

/// Folders that hold one installation per version: the parent, and what a version's name begins
/// with.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/usr", "pgsql-"),
];

/// Homebrew's links, for an installation whose own folder carries no version.
const UNVERSIONED: &str = "/opt/homebrew/bin";

/// One installation: a directory with both `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The directory of the programs, with links resolved.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The major version, such as 17.
    pub fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// Asks the server program for its version; `None` if the directory is no installation.
    fn probe(dir: PathBuf) -> Option<Self> {
        if !dir.join("initdb").is_file() || !dir.join("postgres").is_file() {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
        let major = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { dir, major })
    }
}

/// Finds the installation that a new cluster would use: the one in `PATH`, otherwise the newest.
///
/// It runs `postgres --version` of what it finds, which takes a few milliseconds each.
///
/// # Errors
/// [`EmbeddedError::NoBinaries`] when there is none, [`EmbeddedError::TooOld`] when every one is
/// too old.
pub fn locate_binaries() -> Result<Binaries, EmbeddedError> {
    choose_newest(installed())
}

/// Finds the installation for an existing cluster, which only its own major version can read.
pub(super) fn locate_for_cluster(dir: &Path, major: u32) -> Result<Binaries, EmbeddedError> {
    choose_matching(installed(), dir, major)
}

fn choose_newest(found: Vec<Binaries>) -> Result<Binaries, EmbeddedError> {
    let newest = found.iter().max_by_key(|binaries| binaries.major).cloned();
    // The list is in order of preference, so an installation in PATH wins over a newer one
    // elsewhere.
    match found.into_iter().find(|binaries| binaries.major >= OLDEST_SUPPORTED) {
        Some(binaries) => Ok(binaries),
        None => {
            Err(newest
                .map_or(EmbeddedError::NoBinaries, |Binaries { dir, major }| EmbeddedError::TooOld { major, dir }))
        }
    }
}

fn choose_matching(found: Vec<Binaries>, dir: &Path, cluster: u32) -> Result<Binaries, EmbeddedError> {
    if found.is_empty() {
        return Err(EmbeddedError::NoBinaries);
    }
    let installed: Vec<String> = found.iter().map(|binaries| binaries.major.to_string()).collect();
    found.into_iter().find(|binaries| binaries.major == cluster).ok_or_else(|| EmbeddedError::VersionMismatch {
        dir: dir.to_path_buf(),
        cluster,
        installed: installed.join(", "),
    })
}

/// Every installation in order of preference: those in `PATH`, then the others, newest first.
fn installed() -> Vec<Binaries> {
    let path = env::var_os("PATH").unwrap_or_default();
    // A link in PATH points into the real installation, and only there is initdb certain to be
    // beside the server.
    let in_path = env::split_paths(&path)
        .flat_map(|dir| [dir.join("postgres"), dir.join("pg_ctl")])
        .filter_map(|program| Some(program.canonicalize().ok()?.parent()?.to_path_buf()));
    let mut found = probe_all(in_path, &[]);

    let elsewhere = VERSIONED
        .iter()
        .flat_map(|(parent, prefix)| versions_in(Path::new(parent), prefix))
        .chain([PathBuf::from(UNVERSIONED).join("postgres")])
        .filter_map(|program| Some(program.canonicalize().ok()?.parent()?.to_path_buf()));
    let mut others = probe_all(elsewhere, &found);
    others.sort_by_key(|binaries| cmp::Reverse(binaries.major));
    found.append(&mut others);
    found
}

/// The server programs of the installations that lie in `parent` and are named `prefix` and a
/// version.
fn versions_in(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| name_starts_with(&entry.file_name(), prefix))
        .map(|entry| entry.path().join("bin/postgres"))
        .collect()
}

fn name_starts_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// Probes each directory once, leaving out those already `known`.
fn probe_all(dirs: impl Iterator<Item = PathBuf>, known: &[Binaries]) -> Vec<Binaries> {
    let mut found: Vec<Binaries> = Vec::new();
    for dir in dirs {
        if !known.iter().chain(&found).any(|binaries| binaries.dir == dir) {
            found.extend(Binaries::probe(dir));
        }
    }
    found
}

/// The major version in `postgres --version`, such as `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`.
fn parse_version(output: &str) -> Option<u32> {
    let version = output.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32) -> Binaries {
        Binaries { dir: PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), major }
    }

    #[test]
    fn versions_are_read_in_every_spelling() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_version("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse_version("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn the_first_supported_installation_wins() {
        let chosen = choose_newest(vec![binaries(13), binaries(15), binaries(17)]);
        assert_eq!(chosen.unwrap().major(), 15);
    }

    #[test]
    fn missing_and_old_installations_are_told_apart() {
        assert!(matches!(choose_newest(Vec::new()), Err(EmbeddedError::NoBinaries)));
        let error = choose_newest(vec![binaries(9), binaries(13)]).unwrap_err();
        assert!(matches!(error, EmbeddedError::TooOld { major: 13, .. }), "{error}");
    }

    #[test]
    fn a_cluster_gets_its_own_version_or_a_clear_error() {
        let dir = Path::new("/data/pg");
        let chosen = choose_matching(vec![binaries(17), binaries(15)], dir, 15);
        assert_eq!(chosen.unwrap().major(), 15);
        let error = choose_matching(vec![binaries(17), binaries(16)], dir, 15).unwrap_err().to_string();
        assert!(error.contains("created by PostgreSQL 15") && error.contains("17, 16"), "{error}");
    }
}
