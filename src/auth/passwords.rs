//! Password hashing: bcrypt over a peppered digest, off the asynchronous threads, as many at once as
//! there are cores, and no longer a queue than people wait.
//!
//! bcrypt reads 72 bytes, which is 36 Cyrillic letters. So what it is given is
//! base64(HMAC-SHA384(password, pepper)), 64 bytes for any password. The stored form names that scheme,
//! which pepper, and the cost: `v2.1f2e3d4c$2b$12$…`. `v1$2b$…`, which an earlier release wrote, does not
//! say which pepper. Whoever signs in with a form that is not what it would be now gets a new one.

use std::{
    iter,
    ops::Range,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument, info_span};
use zxcvbn::{Score, zxcvbn};

use super::store;
use crate::{
    app::App,
    config::{self, Secret},
    error::{self, AppError},
    telemetry::metrics::Metrics,
};

const SCHEME: &str = "v2.";
/// Of an earlier release.
const UNNAMED_PEPPER: &str = "v1";
/// Hexadecimal digits that name a pepper.
const ID_LENGTH: usize = 8;
/// Accepted password lengths, in characters.
pub const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// Words that passwords are made of hereabouts, and zxcvbn does not know: in lower case, one a line.
static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("password_words.txt").lines().collect());

/// Characters of a new password that are judged: what is hard to guess by its beginning is hard to guess. The
/// work grows with their square, and many times over for those that can stand for letters.
const JUDGED: usize = 32;

/// What is wrong with the form of a new password; `None` when nothing is.
#[must_use]
pub fn objection(password: &str) -> Option<String> {
    let characters = password.chars().count();
    if !LENGTH.contains(&characters) {
        return Some(format!("must have {} to {} characters; it has {characters}", LENGTH.start(), LENGTH.end()));
    }
    // Signing in refuses these as an empty field would be.
    if password.contains('\0') || password.trim().is_empty() {
        return Some("must be text".to_owned());
    }
    None
}

/// Why a new password is refused that has the right form.
pub const GUESSABLE: &str = "is among the first that somebody would try; choose another";

/// Whether an attacker who knows the login and what people choose finds a password within a million guesses:
/// scores 0 and 1 of zxcvbn (Wheeler, USENIX Security 2016), which knows 30,000 common passwords, names, words,
/// rows of keys, repeats and years. It may take as long as a hash.
#[must_use]
pub fn is_guessable(password: &str, login: &str) -> bool {
    let end = password.char_indices().nth(JUDGED).map_or(password.len(), |(at, _)| at);
    let known: Vec<&str> = WORDS.iter().copied().chain([login]).collect();
    zxcvbn(&password[..end], &known).score() < Score::Two
}

/// A pepper and its name in stored forms, which tells nothing about it.
#[derive(Clone, Debug)]
struct Pepper {
    id: String,
    secret: Secret,
}

impl Pepper {
    fn new(secret: &Secret) -> anyhow::Result<Self> {
        // No password has a NUL in it.
        let tag = mac(secret, b"\0pepper id")?;
        let id = tag.into_iter().take(ID_LENGTH / 2).fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
        Ok(Self { id, secret: secret.clone() })
    }
}

/// A stored form, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Stored<'a> {
    /// `None`: one that was in use before peppers had names.
    pepper: Option<&'a str>,
    bcrypt: &'a str,
    cost: u32,
}

impl<'a> Stored<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (pepper, bcrypt) = match text.strip_prefix(SCHEME) {
            Some(rest) => rest.split_at_checked(ID_LENGTH).map(|(id, bcrypt)| (Some(id), bcrypt))?,
            None => (None, text.strip_prefix(UNNAMED_PEPPER)?),
        };
        let cost = bcrypt.parse::<bcrypt::HashParts>().ok()?.get_cost();
        Some(Self { pepper, bcrypt, cost })
    }
}

/// The hashing pipeline of one App.
#[derive(Debug)]
pub struct Passwords {
    pepper: Pepper,
    previous: Option<Pepper>,
    cost: u32,
    /// As many permits as there are cores.
    cores: Arc<Semaphore>,
    core_count: usize,
    /// Who signs in: from [`Passwords::admit`] until the password was looked at.
    admitted: Arc<AtomicUsize>,
    /// How long a hash takes these days, in microseconds.
    pace: AtomicU64,
    patience: Duration,
    metrics: Arc<Metrics>,
    /// What bcrypt compares with when the login does not exist, so that the answer takes as long.
    dummy: String,
}

impl Passwords {
    /// A pipeline with the settings' peppers and cost.
    ///
    /// # Errors
    /// When bcrypt refuses the cost.
    pub fn new(config: &config::Password, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let core_count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let previous = &config.previous_pepper;
        let started = Instant::now();
        let dummy = stretch(&config.pepper, config.cost, "no such user")?;
        Ok(Self {
            dummy,
            admitted: Arc::default(),
            pace: AtomicU64::new(micros(started.elapsed())),
            pepper: Pepper::new(&config.pepper)?,
            previous: if previous.is_empty() { None } else { Some(Pepper::new(previous)?) },
            cost: config.cost,
            cores: Arc::new(Semaphore::new(core_count)),
            core_count,
            patience: Duration::from_millis(config.queue_timeout_ms),
            metrics,
        })
    }

    /// A place among those who sign in, to be kept until the password was looked at.
    ///
    /// # Errors
    /// 503 when so many are ahead that no core will be free in time: better at once, and before a flood
    /// reaches the database. Who may find one in time is let in; for how long they wait in fact is counted
    /// where they wait.
    pub fn admit(&self) -> Result<Admission, AppError> {
        let (cores, pace) = (self.core_count as u64, self.pace.load(Ordering::Relaxed).max(1));
        let in_time = micros(self.patience).saturating_mul(cores).div_ceil(pace);
        let most = usize::try_from(cores.saturating_add(in_time)).unwrap_or(usize::MAX);
        let one_more = |admitted| (admitted < most).then_some(admitted + 1);
        match self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Admission(self.admitted.clone())),
            Err(_) => Err(self.overloaded()),
        }
    }

    fn overloaded(&self) -> AppError {
        self.metrics.password_hash_rejected().inc();
        error::OVERLOADED.because("Too many people are signing in; try again.").retry_after(1)
    }

    /// Whether `password` is the one behind `stored`. What cannot match (`None`: no such user; a form that
    /// cannot be read) takes as long, and so does a form of a time when the cost was lower.
    ///
    /// # Errors
    /// 503 when no core is free in time.
    pub async fn verify(&self, password: &str, stored: Option<String>) -> Result<bool, AppError> {
        let known = stored.as_deref().and_then(|stored| self.resolve(stored));
        let can_match = known.is_some();
        if stored.is_some() && !can_match {
            tracing::info!("a password cannot match: it was stored with a pepper that is not in the settings");
        }
        let (pepper, bcrypt, cost) = known.unwrap_or((&self.pepper, &self.dummy, self.cost));
        let (pepper, bcrypt, password) = (pepper.secret.clone(), bcrypt.to_owned(), password.to_owned());
        let lacking = lacking(cost, self.cost);
        let work = move || {
            let matches = matches(&pepper, &password, &bcrypt);
            lacking.for_each(|cost| drop(stretch(&pepper, cost, &password)));
            matches
        };
        let matches = self.run("verify", work).await?;
        Ok(matches && can_match)
    }

    /// Hashes a new password of the user with this login, which stands at `pointer` in the body.
    ///
    /// # Errors
    /// 422 for one that can be guessed, 503 when no core is free in time.
    pub async fn hash(&self, password: &str, login: &str, pointer: &str) -> Result<String, AppError> {
        let (pepper, cost) = (self.pepper.secret.clone(), self.cost);
        let (password, login) = (password.to_owned(), login.to_owned());
        let work = move || (!is_guessable(&password, &login)).then(|| hash(&pepper, cost, &password));
        let hashed = self.run("hash", work).await?;
        hashed.ok_or_else(|| AppError::invalid_field(pointer, GUESSABLE))?.map_err(AppError::internal)
    }

    /// The pepper, the bcrypt string and the cost of a stored form.
    fn resolve<'a>(&'a self, stored: &'a str) -> Option<(&'a Pepper, &'a str, u32)> {
        let Stored { pepper, bcrypt, cost } = Stored::parse(stored)?;
        let pepper = match pepper {
            Some(id) => iter::once(&self.pepper).chain(&self.previous).find(|pepper| pepper.id == id)?,
            // It was written before peppers could be changed, so with the oldest one.
            None => self.previous.as_ref().unwrap_or(&self.pepper),
        };
        Some((pepper, bcrypt, cost))
    }

    fn is_dated(&self, stored: &str) -> bool {
        let now = (Some(self.pepper.id.as_str()), self.cost);
        Stored::parse(stored).is_none_or(|stored| (stored.pepper, stored.cost) != now)
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let queued = Instant::now();
        let waiting = Gauge::raise(self.metrics.password_hash_queue_depth());
        let permit = tokio::time::timeout(self.patience, self.cores.clone().acquire_owned()).await;
        drop(waiting);
        self.metrics.password_hash_wait().observe(queued.elapsed().as_secs_f64());
        let Ok(Ok(permit)) = permit else { return Err(self.overloaded()) };
        self.work(name, permit, work).await
    }

    async fn work<T: Send + 'static>(
        &self,
        name: &'static str,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let running = Gauge::raise(self.metrics.password_hash_inflight());
        let started = Instant::now();
        let span = info_span!(target: "switchboard::auth", "password", otel.name = format!("password {name}"), otel.kind = "internal");
        // The permit goes along: a caller that hangs up must not free the core before the work ends.
        let work = tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop((permit, running));
            outcome
        });
        let outcome = work.instrument(span).await.map_err(AppError::internal)?;
        let elapsed = started.elapsed();
        self.metrics.password_hash_duration().observe(elapsed.as_secs_f64());
        // Of the last few, the latest most.
        let pace = (self.pace.load(Ordering::Relaxed) * 3 + micros(elapsed)) / 4;
        self.pace.store(pace, Ordering::Relaxed);
        Ok(outcome)
    }
}

/// A place among those who sign in; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Admission(Arc<AtomicUsize>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

struct Gauge(prometheus::IntGauge);

impl Gauge {
    fn raise(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Gives somebody who has just signed in the form that their password would have now, if it has another:
/// beside the answer, and only if nobody else is signing in, who would have to wait. Otherwise the next
/// sign-in will do.
pub fn renew(app: &App, user_id: i64, password: String, stored: &str) {
    let passwords = &app.passwords;
    if passwords.cores.available_permits() < passwords.core_count || !passwords.is_dated(stored) {
        return;
    }
    let Ok(core) = passwords.cores.clone().try_acquire_owned() else { return };
    let (app, stored) = (app.clone(), stored.to_owned());
    app.clone().lifecycle.spawn(async move {
        let renewed = async {
            let (pepper, cost) = (app.passwords.pepper.secret.clone(), app.passwords.cost);
            let renewed = app.passwords.work("renew", core, move || hash(&pepper, cost, &password)).await?;
            let renewed = renewed.map_err(AppError::internal)?;
            let mut db = app.db.acquire().await?;
            Ok::<_, AppError>(store::renew_password(&mut db, user_id, &stored, &renewed).await?)
        };
        match renewed.await {
            Ok(true) => app.metrics.password_rehashes().inc(),
            // Somebody else was faster, or changed the password.
            Ok(false) => {}
            Err(error) => tracing::warn!(?error, "a password keeps its old form until the next sign-in"),
        }
    });
}

/// Hashes without the pipeline, for tools that sign nobody in.
///
/// # Errors
/// When bcrypt refuses the cost.
pub fn hash(pepper: &Secret, cost: u32, password: &str) -> anyhow::Result<String> {
    Ok(format!("{SCHEME}{}{}", Pepper::new(pepper)?.id, stretch(pepper, cost, password)?))
}

fn stretch(pepper: &Secret, cost: u32, password: &str) -> anyhow::Result<String> {
    Ok(bcrypt::hash(digest(pepper, password)?, cost)?)
}

/// The costs of what must be hashed besides, for a form of this cost to take as long as one of `today`:
/// each cost is twice the work of the one before, so that with the form itself they add up.
fn lacking(cost: u32, today: u32) -> Range<u32> {
    cost..today
}

fn matches(pepper: &Secret, password: &str, bcrypt: &str) -> bool {
    digest(pepper, password).is_ok_and(|digest| bcrypt::verify(digest, bcrypt).unwrap_or(false))
}

fn digest(pepper: &Secret, password: &str) -> anyhow::Result<String> {
    Ok(STANDARD.encode(mac(pepper, password.as_bytes())?))
}

fn mac(pepper: &Secret, text: &[u8]) -> anyhow::Result<impl IntoIterator<Item = u8> + AsRef<[u8]>> {
    let mut mac = Hmac::<Sha384>::new_from_slice(pepper.expose().as_bytes())?;
    mac.update(text);
    Ok(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ProcessCounters;

    #[test]
    fn what_everybody_tries_first_is_no_password() {
        let weak = [
            ["password1", "PassWord1", "qwerty123", "Йцукенгш"],
            ["aaaaaaaa", "abababab", "olga.petrova", "Olga.Petrova1"],
            ["samantha", "Slipknot1", "marlboro", "22061941"],
            ["оператор1", "Наташа2010", "любовь123", "Switchboard1"],
        ];
        for weak in weak.as_flattened() {
            assert!(is_guessable(weak, "olga.petrova"), "{weak}");
        }
        for wrong in ["1234567", "", "        ", &"x1y".repeat(43), "a\0bcdefgh"] {
            assert!(objection(wrong).is_some(), "{wrong}");
        }
        for good in ["correct horse battery", "пароль Ольги", &"щука, окунь, лещ и ёрш. ".repeat(5)]
        {
            assert!(objection(good).is_none() && !is_guessable(good, "olga"), "{good}");
        }
        for word in WORDS.iter() {
            assert_eq!(*word, word.to_lowercase());
            assert!(is_guessable(&format!("{word}12345"), "olga"), "{word}");
        }
        // Each of these may stand for several letters: all their readings of all of it would take minutes.
        assert!(!is_guessable(&"4@8({[<3691!|70$5+%2".repeat(6), "olga"));
    }

    fn pipeline(pepper: &str, previous: &str, cost: u32) -> Passwords {
        let (pepper, previous_pepper) = (Secret::new(pepper), Secret::new(previous));
        let config = config::Password { pepper, previous_pepper, cost, queue_timeout_ms: 10_000 };
        Passwords::new(&config, Arc::new(Metrics::new(ProcessCounters::default()).unwrap())).unwrap()
    }

    #[tokio::test]
    async fn as_many_are_admitted_as_will_find_a_core_in_time() {
        let passwords = pipeline("pepper", "", 4);
        let admitted = |pace: Duration| {
            passwords.pace.store(micros(pace), Ordering::Relaxed);
            iter::from_fn(|| passwords.admit().ok()).take(1_000).collect::<Vec<_>>().len()
        };
        let cores = passwords.core_count;
        // The patience is 10 s. At any moment within a minute a core may come free, of two a minute one in 30 s.
        assert_eq!(admitted(Duration::from_mins(1)), cores + cores.div_ceil(6));
        assert_eq!(admitted(Duration::from_secs(20)), cores + cores.div_ceil(2));
        assert_eq!(admitted(Duration::from_secs(2)), 6 * cores);
        assert_eq!(admitted(Duration::from_micros(1)), 1_000, "and those before have left");
        assert_eq!(passwords.metrics.password_hash_rejected().get(), 3);
        for _ in 0..50 {
            passwords.verify("password", None).await.unwrap();
        }
        assert!(passwords.pace.load(Ordering::Relaxed) > 100, "it follows what hashes take");
    }

    #[test]
    fn a_form_of_a_lower_cost_is_as_much_work_as_one_of_today() {
        let work = |costs: Range<u32>| costs.map(|cost| 1_u64 << cost).sum::<u64>();
        for cost in 4..=16 {
            assert_eq!((1 << cost) + work(lacking(cost, 16)), 1 << 16, "{cost}");
        }
        assert_eq!(work(lacking(17, 16)), 0, "there is no making up for a cost that was higher");
    }

    #[tokio::test]
    async fn the_last_of_64_cyrillic_letters_matters() {
        let passwords = pipeline("pepper", "", 4);
        // 63 letters, and no two words alike.
        let long = "съешьжеещёэтихмягкихфранцузскихбулокдавыпейчаюпотомидисподошвам";
        assert_eq!(long.chars().count(), 63);
        let stored = passwords.hash(&format!("{long}а"), "olga", "").await.unwrap();
        let is_right =
            async |letter: &str| passwords.verify(&format!("{long}{letter}"), Some(stored.clone())).await.unwrap();
        assert!(is_right("а").await);
        assert!(!is_right("б").await && !is_right("").await && !is_right("аа").await);
    }

    #[tokio::test]
    async fn the_pepper_is_chosen_by_its_name_and_what_names_none_never_matches() {
        let (old, new, other) = (pipeline("old", "", 4), pipeline("new", "old", 4), pipeline("new", "other", 4));
        let stored = old.hash("staple in the rain", "olga", "").await.unwrap();
        let unnamed = stored.replacen(&stored[..SCHEME.len() + ID_LENGTH], UNNAMED_PEPPER, 1);
        let right = async |passwords: &Passwords, stored: &str| {
            let hashes = passwords.metrics.password_hash_duration().get_sample_count();
            let right = passwords.verify("staple in the rain", Some(stored.to_owned())).await.unwrap();
            assert!(!passwords.verify("staple in the snow", Some(stored.to_owned())).await.unwrap());
            let hashes = passwords.metrics.password_hash_duration().get_sample_count() - hashes;
            assert_eq!(hashes, 2, "one hash for each, whatever is stored: {stored}");
            right
        };
        for stored in [&stored, &unnamed] {
            assert!(right(&old, stored).await && right(&new, stored).await, "{stored}");
            assert!(!right(&other, stored).await, "{stored}");
        }
        let bcrypt = &stored[SCHEME.len() + ID_LENGTH..];
        for garbage in ["", "v1", "v2.", "v2.1234567", "v2.ÿÿÿÿÿ$", "v1$2b$04$short", bcrypt, &format!("v3{bcrypt}")]
        {
            assert!(!right(&new, garbage).await, "{garbage}");
        }
    }

    #[tokio::test]
    async fn what_would_not_be_stored_like_that_now_is_dated() {
        let passwords = pipeline("new", "old", 5);
        let stored = |pepper: &str, cost| hash(&Secret::new(pepper), cost, "staple in the rain").unwrap();
        assert!(!passwords.is_dated(&stored("new", 5)));
        for dated in [stored("new", 4), stored("new", 6), stored("old", 5), stored("new", 5).replace("v2.", "v1")] {
            assert!(passwords.is_dated(&dated), "{dated}");
        }
        let unnamed = stored("new", 5).replacen(&stored("new", 5)[..SCHEME.len() + ID_LENGTH], UNNAMED_PEPPER, 1);
        assert!(passwords.is_dated(&unnamed), "{unnamed}");
        assert_ne!(&stored("new", 5)[..11], &stored("old", 5)[..11], "peppers have names of their own");
        assert!(!stored("new", 5).contains("new"));
    }
}
