//! The command line: what a person types. Each command is a thin shell over the library.

pub mod backup;
pub mod database;
pub mod demo;
pub mod generate;
pub mod health;
pub mod import;
pub mod progress;
pub mod serve;
pub mod simulate;
pub mod user;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use demo::Credentials;

use crate::{
    config::{Config, ConfigError, DEFAULTS, Settings},
    db::migrate,
    error::describe,
    server,
    telemetry::metrics,
};

/// Exit code for a setting that cannot be used.
const EXIT_CONFIG: u8 = 2;

/// The service-request backend of a field-service call centre, observability first.
///
/// Try it: `switchboard serve --demo`, then open the address it prints. Without DATABASE_URL it runs
/// a private PostgreSQL of its own; without REDIS_URL it caches in memory.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version, max_term_width = 100)]
pub struct Cli {
    /// Read settings from this file; environment variables override it
    #[arg(long, global = true, env = "SWITCHBOARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve {
        /// With a made-up company: cities, campaigns, staff; logins are written to demo.json in the
        /// data directory
        #[arg(long)]
        demo: bool,
    },
    /// Ask the server on this machine whether it is ready; exit code 0 if so
    Health,
    /// Bring the database schema up to date
    Migrate,
    /// Manage users
    #[command(subcommand)]
    User(user::UserCommand),
    Import(import::Arguments),
    Backup(backup::BackupArguments),
    Restore(backup::RestoreArguments),
    /// Play a day of a call centre against a running server, and check its counts
    Simulate(simulate::Arguments),
    /// Fill the database with the past of a company, to measure at its size
    Generate(generate::Arguments),
    /// Print the OpenAPI document
    Openapi,
    /// Print the metric catalogue as Markdown
    Metrics,
    /// Print the effective settings, each with its origin, secrets redacted
    Config {
        /// Print the documented defaults instead
        #[arg(long, conflicts_with = "demo")]
        defaults: bool,
        /// As they are for `serve --demo`
        #[arg(long)]
        demo: bool,
    },
}

impl Cli {
    /// Runs the command; errors go to standard error in one line.
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("switchboard: the runtime cannot start: {error}");
                return ExitCode::FAILURE;
            }
        };
        let code = runtime.block_on(self.execute()).unwrap_or_else(|error| {
            eprintln!("switchboard: {}", describe(error.as_ref()));
            if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        });
        // What still blocks a thread, such as the name of a host that is looked up, must not keep the process.
        runtime.shutdown_background();
        code
    }

    async fn execute(self) -> anyhow::Result<ExitCode> {
        // A variable that is no text is no setting of ours.
        let variables = || {
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        };
        let read = || Settings::read(self.config.as_deref(), variables());
        match self.command {
            Command::Serve { demo } => return Box::pin(serve::run(read()?, demo)).await,
            Command::Health => return health::run(&unchecked(&read()?)?).await,
            Command::Migrate => {
                let config = unchecked(&read()?)?;
                let database = database::open(&config).await?;
                let outcome = migrate::run(&database.options).await?;
                database.close().await?;
                println!("{} of {} migrations applied now; the schema is up to date", outcome.applied, outcome.total);
            }
            Command::User(command) => user::run(command, read()?).await?,
            Command::Backup(arguments) => backup::run(arguments, &unchecked(&read()?)?).await?,
            Command::Restore(arguments) => backup::restore(arguments, &unchecked(&read()?)?).await?,
            Command::Import(arguments) => return import::run(arguments, &unchecked(&read()?)?).await,
            Command::Simulate(arguments) => return simulate::run(arguments, &unchecked(&read()?)?).await,
            Command::Generate(arguments) => generate::run(arguments, &unchecked(&read()?)?).await?,
            Command::Openapi => println!("{}", server::openapi().to_pretty_json()?),
            Command::Metrics => print!("{}", metrics::reference()),
            Command::Config { defaults: true, .. } => print!("{DEFAULTS}"),
            Command::Config { defaults: false, demo } => {
                let mut settings = read()?;
                if demo {
                    Credentials::of(&mut settings)?;
                }
                print!("{}", settings.render());
                settings.config()?.validate()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A checksum as people write it.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Typed settings for a command that serves nobody and so needs no secrets.
fn unchecked(settings: &Settings) -> Result<Config, ConfigError> {
    settings.config()
}
