//! The database of a backup: PostgreSQL's own programs, and what can be counted.

use std::{collections::BTreeMap, ffi::OsString, io, path::PathBuf, process::Stdio};

use anyhow::{Context, bail, ensure};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions, postgres::PgSslMode};

use super::manifest::Content;
use crate::{config::Config, db::embedded::locate_binaries};

/// Kept from our environment: where programs and libraries are, and where libpq finds passwords.
const KEPT: [&str; 7] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "TMPDIR", "PGPASSFILE", "PGPASSWORD"];

/// Arguments of the programs are seen by everybody on the machine, so that nothing about the
/// connection is one: libpq reads these variables.
pub(super) struct Programs {
    /// Where they are; `None` leaves it to PATH.
    dir: Option<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
    database: String,
}

impl Programs {
    /// Programs that reach the database of `options`, which were made of these settings.
    pub fn new(config: &Config, options: &PgConnectOptions) -> Self {
        let ssl = match options.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        let host =
            options.get_socket().map_or_else(|| options.get_host().into(), |socket| socket.clone().into_os_string());
        let database = options.get_database().unwrap_or(options.get_username()).to_owned();
        let mut environment: Vec<(&'static str, OsString)> = KEPT
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)))
            .chain([
                ("LC_ALL", "C".into()),
                ("PGHOST", host),
                ("PGPORT", options.get_port().to_string().into()),
                ("PGUSER", options.get_username().into()),
                ("PGDATABASE", database.clone().into()),
                ("PGSSLMODE", ssl.into()),
                ("PGAPPNAME", "switchboard-backup".into()),
                ("PGCONNECT_TIMEOUT", "10".into()),
            ])
            .collect();
        if let Ok(url) = url::Url::parse(config.database.url.expose()) {
            let parameter = |names: &[&str]| {
                url.query_pairs().find(|(name, _)| names.contains(&name.as_ref())).map(|(_, value)| value.into_owned())
            };
            // The form decoding undoes percent signs; a plus is one here.
            let decode = |text: &str| {
                let form = format!("p={}", text.replace('+', "%2B").replace('&', "%26"));
                url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned())
            };
            let password = parameter(&["password"]).or_else(|| decode(url.password()?));
            let certificate = parameter(&["sslrootcert", "ssl-root-cert", "ssl-ca"]);
            environment.extend(password.map(|password| ("PGPASSWORD", password.into())));
            environment.extend(certificate.map(|path| ("PGSSLROOTCERT", path.into())));
        }
        let dir = locate_binaries().ok().map(|found| found.dir().to_owned());
        Self { dir, environment, database }
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Runs one of the programs to its end.
    pub async fn run(&self, program: &str, arguments: &[OsString]) -> anyhow::Result<()> {
        let path = self.dir.as_ref().map(|dir| dir.join(program)).filter(|path| path.is_file());
        let mut command = tokio::process::Command::new(path.unwrap_or_else(|| program.into()));
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = match command.output().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{program} is missing: install PostgreSQL's client programs, or put them in PATH")
            }
            ran => ran.with_context(|| program.to_owned())?,
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
            bail!("{program} failed ({}): {}", output.status, said.join("; "));
        }
        Ok(())
    }
}

/// A connection for work that takes its time.
pub(super) async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options = options.clone().application_name("switchboard-backup").options([
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "10s"),
    ]);
    let attempt = tokio::time::timeout(std::time::Duration::from_secs(5), options.connect()).await;
    attempt.context("the database did not answer within 5 s")?.context("the database cannot be reached")
}

/// Tables of ours.
pub(super) async fn tables(pg: &mut PgConnection) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename";
    Ok(sqlx::query_scalar(sql).fetch_all(pg).await?)
}

/// Counts everything.
pub(super) async fn content(pg: &mut PgConnection) -> anyhow::Result<Content> {
    let tables = tables(pg).await?;
    ensure!(
        tables.iter().any(|table| table == "_sqlx_migrations"),
        "this database holds no Switchboard: it has never been migrated"
    );
    let mut rows = BTreeMap::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM public.\"{}\"", table.replace('"', "\"\""));
        rows.insert(table, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *pg).await?);
    }
    let migration = "SELECT COALESCE(max(version), 0) FROM _sqlx_migrations WHERE success";
    let ledger = "SELECT COALESCE(sum(amount), 0)::numeric(20, 2)::text FROM transactions";
    Ok(Content {
        migration: sqlx::query_scalar(migration).fetch_one(&mut *pg).await?,
        ledger: sqlx::query_scalar(ledger).fetch_one(pg).await?,
        rows,
    })
}
