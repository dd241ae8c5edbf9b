//! The files that are checked, and the catalogue, in memory.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use serde::de::DeserializeOwned;
use switchboard::telemetry::{
    catalogue::{CATALOGUE, Kind, PROCESS},
    labels::Values,
};

/// A declared metric.
#[derive(Clone, Debug)]
pub struct Metric {
    pub name: String,
    pub kind: Kind,
    pub labels: Vec<(String, Values)>,
    pub buckets: &'static [f64],
}

/// Everything that is checked.
#[derive(Clone, Debug)]
pub struct Tree {
    /// By path from the root of the repository, with `/`.
    pub files: BTreeMap<String, Arc<str>>,
    pub catalogue: Vec<Metric>,
}

/// Folders and files that are read.
const ROOTS: &[&str] = &[
    "prometheus",
    "alertmanager",
    "grafana/dashboards",
    "docs",
    "loadtests",
    "deploy",
    "README.md",
    "docker-compose.yml",
    "scripts/stack",
    "src/config/defaults.toml",
    "tests/artifacts/exporters.json",
];

impl Tree {
    pub fn load() -> Self {
        let mut files = BTreeMap::new();
        for path in ROOTS {
            read(&root().join(path), &mut files);
        }
        let metrics = CATALOGUE.iter().map(|spec| Metric {
            name: spec.name.to_owned(),
            kind: spec.kind,
            labels: spec.labels.iter().map(|(name, values)| ((*name).to_owned(), *values)).collect(),
            buckets: spec.buckets,
        });
        let process = PROCESS.iter().map(|(name, kind)| Metric {
            name: (*name).to_owned(),
            kind: *kind,
            labels: Vec::new(),
            buckets: &[],
        });
        Self { files, catalogue: metrics.chain(process).collect() }
    }

    /// The text of a file; empty when it is not there, which the checks that need it complain of.
    pub fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", |text| text)
    }

    /// As `under`, for a [`Memo`].
    pub fn shared<'a>(&'a self, folder: &'a str, end: &'a str) -> impl Iterator<Item = (&'a str, &'a Arc<str>)> {
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text));
        files.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
    }

    /// Files in a folder, at any depth, whose names end so.
    pub fn under<'a>(&'a self, folder: &'a str, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(folder) && path.ends_with(end))
            .map(|(path, text)| (path.as_str(), &**text))
    }

    /// The metric of this exposed name, with a histogram's suffixes taken off.
    pub fn metric(&self, exposed: &str) -> Option<&Metric> {
        let named = |name: &str| self.catalogue.iter().find(|metric| metric.name == name);
        named(exposed).filter(|metric| metric.kind != Kind::Histogram).or_else(|| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| exposed.strip_suffix(suffix))?;
            named(base).filter(|metric| metric.kind == Kind::Histogram)
        })
    }
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &PathBuf, files: &mut BTreeMap<String, Arc<str>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap().path();
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if name != "node_modules" && name != "secrets" {
                read(&entry, files);
            }
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        files.insert(name, text.into());
    }
}

/// Whether generated files are to be written.
pub fn writes() -> bool {
    std::env::var_os("SWITCHBOARD_WRITE").is_some()
}

/// Writes a generated file when it is asked for, otherwise complains of a stale one.
pub fn generated(tree: &Tree, path: &str, text: &str) -> Vec<String> {
    if tree.text(path) == text {
        return Vec::new();
    }
    if writes() {
        fs::write(root().join(path), text).unwrap();
        return Vec::new();
    }
    let lines = tree.text(path).lines().zip(text.lines());
    let line = lines.take_while(|(is, should)| is == should).count() + 1;
    vec![format!("{path} is stale from line {line} on: SWITCHBOARD_WRITE=1 cargo test --test artifacts")]
}

/// Reads YAML.
pub fn yaml<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("{path}: {error}"))
}

/// What a function makes of a file, remembered: a mutation changes one file, and all others stay as they were.
pub struct Memo<T>(RefCell<BTreeMap<String, Made<T>>>);

/// A text, and what was made of it.
type Made<T> = (Arc<str>, Rc<T>);

impl<T> Memo<T> {
    pub const fn new() -> Self {
        Self(RefCell::new(BTreeMap::new()))
    }

    pub fn of(&self, path: &str, text: &Arc<str>, make: impl FnOnce() -> T) -> Rc<T> {
        let known = self.0.borrow().get(path).filter(|(of, _)| Arc::ptr_eq(of, text)).map(|(_, value)| value.clone());
        known.unwrap_or_else(|| {
            let value = Rc::new(make());
            self.0.borrow_mut().insert(path.to_owned(), (text.clone(), value.clone()));
            value
        })
    }
}
