//! Where a setting comes from: the defaults, then a file, then the environment.

use std::{collections::BTreeMap, fmt, fmt::Write as _, path::Path};

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULTS, is_secret};

const PREFIX: &str = "SWITCHBOARD_";
/// Variables of this prefix that are no settings of the server.
const RESERVED: [&str; 2] = ["SWITCHBOARD_CONFIG", "SWITCHBOARD_REVISION"];

/// What set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `defaults.toml`.
    Default,
    /// The file given with `--config`.
    File,
    /// An environment variable.
    Environment(String),
    /// Filled in by `--demo`.
    Demo,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Environment(name) => f.write_str(name),
            Self::Demo => f.write_str("--demo"),
        }
    }
}

/// The effective value of every setting and where it comes from.
#[derive(Clone)]
pub struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

/// The environment variable of a setting: `http.addr` → `SWITCHBOARD_HTTP_ADDR`.
pub(super) fn env_name(key: &str) -> String {
    match key {
        "database.url" => "DATABASE_URL".to_owned(),
        "redis.url" => "REDIS_URL".to_owned(),
        "limits.replicas" => "SWITCHBOARD_REPLICAS".to_owned(),
        _ => format!("{PREFIX}{}", key.replace('.', "_").to_uppercase()),
    }
}

impl Settings {
    /// Reads the defaults, `file`, and the given environment.
    ///
    /// # Errors
    /// A setting that does not exist, is given twice, has the wrong type or cannot be read.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self { values: BTreeMap::new() };
        settings.merge(&parse(DEFAULTS, "defaults.toml")?, &Origin::Default)?;
        if let Some(path) = file {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::new(&name, error.to_string()))?;
            settings.merge(&parse(&text, &name)?, &Origin::File)?;
        }
        settings.merge_environment(&environment.into_iter().collect())?;
        Ok(settings)
    }

    /// Sets `key` unless the user has set it.
    pub fn set_if_default(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(entry) = self.values.get_mut(key).filter(|entry| entry.1 == Origin::Default) {
            *entry = (value.into(), Origin::Demo);
        }
    }

    /// Builds the typed settings; [`Config::validate`] has the last word.
    ///
    /// # Errors
    /// The first value of the wrong shape.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut root = Table::new();
        for (key, (value, _)) in &self.values {
            if let Some((section, name)) = key.split_once('.')
                && let Value::Table(table) = root.entry(section).or_insert_with(|| Value::Table(Table::new()))
            {
                table.insert(name.to_owned(), value.clone());
            }
        }
        serde_path_to_error::deserialize(root).map_err(|error| {
            let key = error.path().to_string();
            let problem = match (error.into_inner().message(), self.values.get(&key)) {
                ("invalid socket address syntax", Some((value, _))) => {
                    format!("{value} is no address such as 127.0.0.1:8000")
                }
                (problem, _) => problem.to_owned(),
            };
            ConfigError::new(env_name(&key), problem)
        })
    }

    /// The effective settings as TOML, each with its origin, secrets redacted.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut current = "";
        for (key, (value, origin)) in &self.values {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            if section != current {
                let gap = if current.is_empty() { "" } else { "\n" };
                let _ = writeln!(out, "{gap}[{section}]");
                current = section;
            }
            let hidden = is_secret(key) && value.as_str() != Some("");
            let shown = if hidden { "\"<redacted>\"".to_owned() } else { value.to_string() };
            let _ = writeln!(out, "{name} = {shown}  # {origin}");
        }
        out
    }

    fn merge(&mut self, table: &Table, origin: &Origin) -> Result<(), ConfigError> {
        for (section, entries) in table {
            let Value::Table(entries) = entries else {
                return Err(ConfigError::new(section, "stands outside a section; see switchboard config --defaults"));
            };
            for (name, value) in entries {
                let key = format!("{section}.{name}");
                if *origin != Origin::Default && !self.values.contains_key(&key) {
                    return Err(self.unknown(&key, &key));
                }
                // A file of settings is copied, mailed and committed. Empty is "not set", as in the defaults.
                if is_secret(&key) && value.as_str() != Some("") {
                    let variable = env_name(&key);
                    let problem =
                        format!("is a secret: set {variable}, or {variable}_FILE to a file that holds nothing else");
                    return Err(ConfigError::new(key, problem));
                }
                self.values.insert(key, (value.clone(), origin.clone()));
            }
        }
        Ok(())
    }

    fn merge_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let keys: Vec<String> = self.values.keys().cloned().collect();
        let mut known: Vec<String> = RESERVED.map(str::to_owned).to_vec();
        for key in keys {
            let name = env_name(&key);
            let file_name = format!("{name}_FILE");
            let direct = environment.get(&name);
            let from_file = environment.get(&file_name);
            let (text, origin) = match (direct, from_file) {
                (Some(_), Some(_)) => {
                    return Err(ConfigError::new(name, format!("is set together with {file_name}; keep one of them")));
                }
                (Some(text), None) => (text.clone(), name.clone()),
                (None, Some(path)) => {
                    let text = std::fs::read_to_string(path)
                        .map_err(|error| ConfigError::new(&file_name, format!("{path}: {error}")))?;
                    (text.trim_end_matches(['\n', '\r']).to_owned(), file_name.clone())
                }
                (None, None) => {
                    known.extend([name, file_name]);
                    continue;
                }
            };
            if let Some(entry) = self.values.get_mut(&key) {
                *entry = (typed(&origin, &text, &entry.0)?, Origin::Environment(origin));
            }
            known.extend([name, file_name]);
        }
        match environment.keys().find(|name| name.starts_with(PREFIX) && !known.contains(name)) {
            Some(stranger) => {
                Err(self.unknown(stranger, &stranger[PREFIX.len()..].to_lowercase().replacen('_', ".", 1)))
            }
            None => Ok(()),
        }
    }

    fn unknown(&self, name: &str, key: &str) -> ConfigError {
        let nearest = self.values.keys().min_by_key(|candidate| strsim::levenshtein(candidate, key));
        let hint =
            nearest.map_or_else(String::new, |nearest| format!("; did you mean {} ({nearest})?", env_name(nearest)));
        ConfigError::new(name, format!("is no setting{hint} All of them: switchboard config --defaults"))
    }
}

fn parse(text: &str, name: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| {
        // One line, and not the parser's excerpt of the file, which may be that of a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::new(name, format!("line {line}: {}", error.message().replace('\n', ", ")))
    })
}

/// Gives the text of a variable the type that the default has.
fn typed(name: &str, text: &str, default: &Value) -> Result<Value, ConfigError> {
    let wrong = |wanted: &str| ConfigError::new(name, format!("must be {wanted}"));
    Ok(match default {
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?),
        Value::Boolean(_) => Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Value::String(part.to_owned()))
                .collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}
