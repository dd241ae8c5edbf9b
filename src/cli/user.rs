//! `switchboard user …`.

use std::{
    io::{IsTerminal, Read},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use rust_decimal::Decimal;

use super::{database, demo::Credentials};
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    auth::{
        Role, lockout, passwords,
        store::{self, NewUser},
    },
    clock::Clock,
    config::{Config, Settings},
    db::{Db, DbError, Tx, migrate},
    dictionaries, phone,
    telemetry::{ProcessCounters, metrics::Metrics},
    users::{self, validate::is_email},
};

/// Commands about users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user; the password is read from standard input
    ///
    /// Works beside a running server. Example:
    ///
    ///   printf %s "$PASSWORD" | switchboard user create --login olga --name Olga --role operator --city novosibirsk
    #[command(verbatim_doc_comment)]
    Create(CreateArguments),
    /// Let a user sign in again who failed too often, from wherever they tried
    ///
    /// Works beside a running server. Others were never locked: only whoever failed waits, at most 15 minutes.
    Unlock {
        /// The user's login
        login: String,
    },
    /// End the sessions of a user, or of everybody: after a secret or a token has leaked
    ///
    /// Works beside a running server, and bites at the next request.
    SignOut {
        /// The user's login
        #[arg(long, required_unless_present = "all", conflicts_with = "all")]
        login: Option<String>,
        /// Everybody
        #[arg(long)]
        all: bool,
    },
}

/// What `user create` is told.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Lower-case letters, digits, dot, dash, underscore
    #[arg(long)]
    login: String,
    /// Display name
    #[arg(long)]
    name: String,
    /// admin, director, manager, marketer, operator or master
    #[arg(long, value_parser = |text: &str| text.parse::<Role>())]
    role: Role,
    /// Code of a city the user works in; repeat it for several
    #[arg(long = "city", value_name = "CODE")]
    cities: Vec<String>,
    /// Phone, in any usual form
    #[arg(long)]
    phone: Option<String>,
    /// E-mail address
    #[arg(long)]
    email: Option<String>,
    /// For masters: the part of a net that they hand over, 0 to 1
    #[arg(long)]
    share: Option<Decimal>,
}

/// Runs one.
///
/// # Errors
/// In words for the person who typed it.
pub async fn run(command: UserCommand, settings: Settings) -> anyhow::Result<()> {
    match command {
        UserCommand::Create(arguments) => run_create(arguments, settings).await,
        UserCommand::Unlock { login } => run_unlock(&login, &settings.config()?).await,
        UserCommand::SignOut { login, .. } => run_sign_out(login.as_deref(), &settings.config()?).await,
    }
}

async fn run_create(arguments: CreateArguments, mut settings: Settings) -> anyhow::Result<()> {
    let CreateArguments { login, name, role, cities, phone, email, share } = arguments;
    let config = settings.config()?;
    // Passwords of the demo company are mixed with the demo's own pepper.
    let demo = Credentials::path(&config.data_dir()?);
    if config.database.url.is_empty() && demo.exists() {
        Credentials::load(&demo)?.apply(&mut settings);
    }
    let config = settings.config()?;
    config.validate()?;
    ensure!((role == Role::Master) == share.is_some(), "--share: masters need it, and only masters");
    ensure!(
        share.is_none_or(|share| (Decimal::ZERO..=Decimal::ONE).contains(&share)),
        "--share: must be between 0 and 1"
    );
    ensure!(role == Role::Admin || !cities.is_empty(), "--city: everyone but an admin works in some city");
    ensure!(email.as_deref().is_none_or(is_email), "--email: is no e-mail address");
    let normalised =
        |text: &str| phone::normalise(text, &config.telephony.region).context("--phone: is no phone number");
    let phone = phone.as_deref().map(normalised).transpose()?;
    let password = read_password(&login)?;
    let hash = passwords::hash(&config.password.pepper, config.password.cost, &password)?;

    let database = database::open_or_join(&config).await?;
    migrate::run(&database.options).await?;
    let app = App::build(config, database.options.clone(), Clock::System, ProcessCounters::default())?;
    let user = NewUser { login: &login, password_hash: &hash, name: &name, role, cities: &cities, share };
    let created = create(&app, &user, phone.as_deref(), email.as_deref()).await;
    app.close().await;
    database.close().await?;
    println!("user {} created: {login} ({})", created?, role.as_str());
    Ok(())
}

async fn create(app: &App, user: &NewUser<'_>, phone: Option<&str>, email: Option<&str>) -> anyhow::Result<i64> {
    let mut tx = app.db.begin().await?;
    let known = dictionaries::store::load(&mut tx).await?.cities;
    if let Some(stranger) = user.cities.iter().find(|code| known.iter().all(|city| city.code != **code)) {
        let codes: Vec<&str> = known.iter().map(|city| city.code.as_str()).collect();
        bail!("--city: there is no city {stranger:?}; known: {}", codes.join(", "));
    }
    let refused = |error: DbError| match error.constraint() {
        Some("users_login_key") => anyhow::anyhow!("--login: {:?} is taken", user.login),
        Some("users_login_check") => anyhow::anyhow!("--login: {:?} must be 2 to 64 of a-z 0-9 . _ -", user.login),
        Some("users_name_check") => anyhow::anyhow!("--name: must have 1 to 100 characters"),
        Some("users_phone_key") => anyhow::anyhow!("--phone: is that of another user"),
        _ => error.into(),
    };
    let now = app.clock.now();
    let id = store::create_user(&mut tx, user, now).await.map_err(refused)?;
    lockout::adopt(&mut tx, &app.keys, user.login, id).await?;
    users::store::set_contact(&mut tx, id, phone, email).await.map_err(refused)?;
    audit::record(&mut tx, By::CLI, users::trail::created(id, user), now).await?;
    tx.commit().await?;
    Ok(id)
}

async fn run_unlock(login: &str, config: &Config) -> anyhow::Result<()> {
    let unlocked = in_database(config, async |tx, now| {
        let user_id = user_id(tx, login).await?;
        Ok(lockout::unlock(tx, By::CLI, user_id, now).await?)
    });
    match unlocked.await? {
        0 => println!("{login} was not locked and has no failures"),
        addresses => println!("{login} may sign in again: failures from {addresses} address(es) are forgotten"),
    }
    Ok(())
}

/// Without a login: everybody.
async fn run_sign_out(login: Option<&str>, config: &Config) -> anyhow::Result<()> {
    let (action, subject) = (AuditAction::SignedOutEverywhere, AuditSubject::Sessions);
    let ended = in_database(config, async |tx, now| {
        let (ended, entry) = match login {
            Some(login) => {
                let user_id = user_id(tx, login).await?;
                (store::revoke_sessions_of(tx, user_id, now).await?, Entry::new(action, subject, user_id))
            }
            None => (store::revoke_all_sessions(tx, now).await?, Entry::of_many(action, subject)),
        };
        audit::record(tx, By::CLI, entry.with("sessions", ended), now).await?;
        Ok(ended)
    });
    println!("{} session(s) of {} ended", ended.await?, login.unwrap_or("everybody"));
    Ok(())
}

async fn user_id(tx: &mut Tx, login: &str) -> anyhow::Result<i64> {
    let user = store::credentials(tx, &login.to_lowercase()).await?;
    Ok(user.with_context(|| format!("there is no user {login:?}"))?.id)
}

/// Does something in a transaction, beside a running server.
async fn in_database<T>(
    config: &Config,
    work: impl AsyncFnOnce(&mut Tx, DateTime<Utc>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let database = database::open_existing(config).await?;
    migrate::run(&database.options).await?;
    let metrics = Arc::new(Metrics::new(ProcessCounters::default())?);
    let db = Db::new(database.options.clone(), &config.database, metrics);
    let done = async {
        let mut tx = db.begin().await?;
        let done = work(&mut tx, Clock::System.now()).await?;
        tx.commit().await?;
        Ok(done)
    };
    let done = done.await;
    db.close().await;
    database.close().await?;
    done
}

fn read_password(login: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("Password, then Enter and Ctrl-D (it is shown; better pipe it in):");
    }
    let mut text = String::new();
    std::io::stdin().take(4_096).read_to_string(&mut text).context("reading the password from standard input")?;
    let password = text.trim_end_matches(['\n', '\r']).to_owned();
    let guessable = || passwords::is_guessable(&password, login).then(|| passwords::GUESSABLE.to_owned());
    if let Some(objection) = passwords::objection(&password).or_else(guessable) {
        bail!("the password {objection}");
    }
    Ok(password)
}
