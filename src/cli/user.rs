//! `switchboard user …`.

use std::{
    io::{IsTerminal, Read},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use rust_decimal::Decimal;

use super::{database, demo::Credentials};
use crate::{
    app::App,
    audit::{self, By},
    auth::{
        Role, lockout, passwords,
        store::{self, NewUser},
    },
    clock::Clock,
    config::{Config, Settings},
    db::{Db, DbError, migrate},
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
    let database = database::open_or_join(config).await?;
    migrate::run(&database.options).await?;
    let metrics = Arc::new(Metrics::new(ProcessCounters::default())?);
    let db = Db::new(database.options.clone(), &config.database, metrics);
    let unlocked = unlock(&db, &login.to_lowercase()).await;
    db.close().await;
    database.close().await?;
    match unlocked? {
        0 => println!("{login} was not locked and has no failures"),
        addresses => println!("{login} may sign in again: failures from {addresses} address(es) are forgotten"),
    }
    Ok(())
}

async fn unlock(db: &Db, login: &str) -> anyhow::Result<u64> {
    let mut tx = db.begin().await?;
    let user = store::credentials(&mut tx, login).await?.with_context(|| format!("there is no user {login:?}"))?;
    let unlocked = lockout::unlock(&mut tx, By::CLI, user.id, Clock::System.now()).await?;
    tx.commit().await?;
    Ok(unlocked)
}

fn read_password(login: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("Password, then Enter and Ctrl-D (it is shown; better pipe it in):");
    }
    let mut text = String::new();
    std::io::stdin().take(4_096).read_to_string(&mut text).context("reading the password from standard input")?;
    let password = text.trim_end_matches(['\n', '\r']).to_owned();
    if let Some(objection) = passwords::objection(&password, login) {
        bail!("the password {objection}");
    }
    Ok(password)
}
