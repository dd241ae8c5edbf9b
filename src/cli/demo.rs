//! The demo company: made-up cities, campaigns and staff, with secrets and passwords of its own,
//! drawn at random on the first start and kept in a file that only its owner can read.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::progress;
use crate::{
    app::App,
    audit::{self, By},
    auth::{
        Role, passwords,
        store::{NewUser, create_user},
        tokens::random_id,
    },
    config::Settings,
    db::embedded,
    users::trail,
};

/// The file's name in the data directory.
pub const FILE: &str = "demo.json";

/// What the demo's file holds: also what `simulate` reads.
#[derive(Clone, Serialize, Deserialize)]
#[expect(missing_debug_implementations, reason = "secrets must not be printable by accident")]
pub struct Credentials {
    /// Signs access tokens.
    pub jwt_secret: String,
    /// Mixed into passwords.
    pub password_pepper: String,
    /// Encrypts passports; empty in a file that an older release wrote.
    #[serde(default)]
    pub passport_key: String,
    /// Mango key.
    pub mango_api_key: String,
    /// Mango salt.
    pub mango_api_salt: String,
    /// Who can sign in.
    pub users: Vec<DemoUser>,
    /// Made up just now, and in no file yet.
    #[serde(skip)]
    drawn: bool,
    /// The advertised numbers.
    pub lines: Vec<DemoLine>,
}

/// One login of the demo.
#[derive(Clone, Serialize, Deserialize)]
#[expect(missing_debug_implementations, reason = "secrets must not be printable by accident")]
pub struct DemoUser {
    /// Login.
    pub login: String,
    /// Password.
    pub password: String,
    /// Role.
    pub role: Role,
    /// Codes of cities.
    pub cities: Vec<String>,
}

/// One advertised number of the demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoLine {
    /// E.164.
    pub phone: String,
    /// Code of the campaign.
    pub campaign: String,
    /// Code of the city.
    pub city: String,
}

/// Code, Russian name, English name, time zone, area code of the city's lines.
const CITIES: [(&str, &str, &str, &str, &str); 3] = [
    ("novosibirsk", "Новосибирск", "Novosibirsk", "Asia/Novosibirsk", "383"),
    ("yekaterinburg", "Екатеринбург", "Yekaterinburg", "Asia/Yekaterinburg", "343"),
    ("kazan", "Казань", "Kazan", "Europe/Moscow", "843"),
];
const CHANNELS: [(&str, &str); 3] = [("avito", "Avito"), ("maps", "Maps"), ("leaflets", "Leaflets")];
/// Staff of each city besides its masters.
const STAFF: [(Role, usize); 4] = [(Role::Director, 1), (Role::Manager, 1), (Role::Marketer, 1), (Role::Operator, 2)];
const MASTERS: usize = 3;
/// The part of a net that demo masters hand over.
const SHARE: Decimal = Decimal::from_parts(50, 0, 0, false, 2);

impl Credentials {
    /// Those of the demo in the settings' data directory, or new ones, which [`Credentials::keep`] writes;
    /// the settings become the demo's.
    ///
    /// # Errors
    /// When the file cannot be read, or a setting is of the wrong shape.
    pub fn of(settings: &mut Settings) -> anyhow::Result<Self> {
        let path = Self::path(&settings.config()?.data_dir()?);
        let credentials = if path.exists() { Self::load(&path)? } else { Self::draw() };
        credentials.apply(settings);
        Ok(credentials)
    }

    /// Writes the file, unless it is there. Before the company is created: what is in the database can
    /// only be used with it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        if path.exists() {
            return Ok(());
        }
        embedded::prepare_dir(dir)?;
        // Under another name first, so that what has the name is whole.
        let unfinished = dir.join(format!("{FILE}.{}", std::process::id()));
        let written = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            fs::rename(&unfinished, &path)
        };
        written().with_context(|| format!("SWITCHBOARD_DATA_DIR: {}", path.display()))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there or not readable; the message says how to get one.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("{}: no demo logins here; start the server with --demo, as the same user", path.display())
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; remove it and the database beside it", path.display()))
    }

    fn draw() -> Self {
        let mut users = vec![user("admin", Role::Admin, vec![])];
        let mut lines = Vec::new();
        for (code, .., area) in CITIES {
            let short = &code[..3];
            for (role, count) in STAFF {
                users.extend(
                    (1..=count).map(|n| user(&format!("{}.{short}{n}", role.as_str()), role, vec![code.to_owned()])),
                );
            }
            users.extend(
                (1..=MASTERS).map(|n| user(&format!("master.{short}{n}"), Role::Master, vec![code.to_owned()])),
            );
            lines.extend(CHANNELS.iter().enumerate().map(|(n, (channel, _))| DemoLine {
                phone: format!("+7{area}2000{:03}", 101 + n),
                campaign: format!("{code}_{channel}"),
                city: code.to_owned(),
            }));
        }
        Self {
            jwt_secret: random_id() + &random_id(),
            password_pepper: random_id() + &random_id(),
            passport_key: random_id() + &random_id(),
            mango_api_key: random_id(),
            mango_api_salt: random_id(),
            drawn: true,
            users,
            lines,
        }
    }

    /// Makes the settings those of the demo, where the user has not set them.
    pub fn apply(&self, settings: &mut Settings) {
        settings.set_if_default("jwt.secret", self.jwt_secret.as_str());
        settings.set_if_default("password.pepper", self.password_pepper.as_str());
        settings.set_if_default("privacy.passport_key", self.passport_key.as_str());
        settings.set_if_default("mango.api_key", self.mango_api_key.as_str());
        settings.set_if_default("mango.api_salt", self.mango_api_salt.as_str());
        // Its calls are made up: nobody has recorded them.
        settings.set_if_default("mango.base_url", "");
        // The simulator gives each of its people an address of their own.
        settings.set_if_default("http.trusted_proxies", vec!["127.0.0.0/8"]);
        settings.set_if_default("http.insecure_cookies", true);
        // Where the console's development server has its pages.
        settings.set_if_default("http.allowed_origins", vec!["http://localhost:5173", "http://127.0.0.1:5173"]);
        // Nobody balances a demo: Ctrl-C should not wait for a balancer.
        settings.set_if_default("shutdown.delay_ms", 0);
    }

    /// Creates the company and keeps the file, unless the database has it.
    ///
    /// # Errors
    /// As the database, or the file; when the database has a company whose file is missing.
    pub async fn load_company(&self, app: &App) -> anyhow::Result<()> {
        let loaded = "SELECT EXISTS (SELECT FROM users WHERE login = 'admin')";
        if sqlx::query_scalar(loaded).fetch_one(app.db.acquire().await?.parts().0).await? {
            let path = Self::path(&app.config.data_dir()?);
            ensure!(
                !self.drawn,
                "{} is missing: without the secrets in it nobody can sign in to the company in this database; put it back \
                 from where you keep it, or begin anew with another data directory",
                path.display()
            );
            return Ok(());
        }
        self.keep(&app.config.data_dir()?)?;
        // Not inside the transaction: the server ends one that is idle for 10 s, and a busy machine needs longer.
        let hashes = self.hash_passwords(app).await?;
        let mut tx = app.db.begin().await?;
        let (pg, _) = tx.parts();
        for (code, name_ru, name_en, timezone, _) in CITIES {
            sqlx::query("INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ($1, $2, $3, $4)")
                .bind(code)
                .bind(name_ru)
                .bind(name_en)
                .bind(timezone)
                .execute(&mut *pg)
                .await?;
        }
        for (line, (_, channel)) in self.lines.iter().zip(CHANNELS.iter().cycle()) {
            sqlx::query(
                "WITH campaign AS (
                     INSERT INTO advertising_campaigns (city_id, code, name) SELECT id, $2, $3 FROM cities WHERE code = $1 RETURNING id
                 ) INSERT INTO campaign_numbers (campaign_id, phone_e164) SELECT id, $4 FROM campaign",
            )
            .bind(&line.city)
            .bind(&line.campaign)
            .bind(channel)
            .bind(&line.phone)
            .execute(&mut *pg)
            .await?;
        }
        for (user, hash) in self.users.iter().zip(&hashes) {
            let new = NewUser {
                login: &user.login,
                password_hash: hash,
                name: &user.login,
                role: user.role,
                cities: &user.cities,
                share: (user.role == Role::Master).then_some(SHARE),
            };
            let now = app.clock.now();
            let id = create_user(&mut tx, &new, now).await?;
            audit::record(&mut tx, By::CLI, trail::created(id, &new), now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Hashes all passwords, as many at once as there are cores: one takes a quarter of a second.
    async fn hash_passwords(&self, app: &App) -> anyhow::Result<Vec<String>> {
        let bar = Arc::new(progress::bar("hashing the demo's passwords", self.users.len() as u64));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut tasks = Vec::new();
        for chunk in self.users.chunks(self.users.len().div_ceil(threads)) {
            let (pepper, cost, bar) = (app.config.password.pepper.clone(), app.config.password.cost, bar.clone());
            let chunk: Vec<String> = chunk.iter().map(|user| user.password.clone()).collect();
            tasks.push(tokio::task::spawn_blocking(move || {
                chunk
                    .iter()
                    .map(|password| passwords::hash(&pepper, cost, password).inspect(|_| bar.inc(1)))
                    .collect::<anyhow::Result<Vec<_>>>()
            }));
        }
        let mut hashes = Vec::new();
        for task in tasks {
            hashes.extend(task.await??);
        }
        bar.finish_and_clear();
        Ok(hashes)
    }

    /// The file's path, for people.
    #[must_use]
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }
}

fn user(login: &str, role: Role, cities: Vec<String>) -> DemoUser {
    DemoUser { login: login.to_owned(), password: random_id()[..16].to_owned(), role, cities }
}
