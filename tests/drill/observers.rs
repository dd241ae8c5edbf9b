//! Who watches: Prometheus, Alertmanager and the exporters, as Debian has them, with the configuration that ships.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{support::process::free_addresses_of, wait_for};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What ships.
pub fn shipped(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A line of a configuration, and what stands there instead; where it stands in the line does not matter.
type Change = (&'static str, &'static str);

/// How often is looked, and how soon is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As it ships.
    Production,
    /// Sooner, and tickets at any hour.
    Drill,
}

impl Pace {
    /// All that differs in prometheus.yml.
    fn prometheus(self) -> &'static [Change] {
        match self {
            Self::Production => &[],
            Self::Drill => &[
                ("scrape_interval: 15s", "scrape_interval: 10s"),
                ("evaluation_interval: 15s", "evaluation_interval: 5s"),
            ],
        }
    }

    /// All that differs in alertmanager.yml, but for the sink's address.
    fn alertmanager(self) -> &'static [Change] {
        match self {
            Self::Production => &[],
            Self::Drill => &[
                ("group_wait: 10s", "group_wait: 1s"),
                ("group_wait: 1m", "group_wait: 1s"),
                ("group_interval: 5m", "group_interval: 5s"),
                ("group_interval: 30s", "group_interval: 5s"),
                ("- weekdays: [monday:saturday]", "- weekdays: [sunday:saturday]"),
                ("- start_time: 05:00", "- start_time: 00:00"),
                ("end_time: 17:00", "end_time: 24:00"),
            ],
        }
    }
}

/// The text with these lines changed, each of which must stand there once; everything else stays.
fn changed<'a>(text: &str, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (from, to) in changes {
        let mut found = lines.iter_mut().filter(|line| line.trim_start() == from);
        let (Some(line), None) = (found.next(), found.next()) else {
            panic!("the line {from:?} does not stand there once:\n{text}");
        };
        let indent = line.len() - from.len();
        line.replace_range(indent.., to);
    }
    lines.join("\n") + "\n"
}

/// A program that ends with this value.
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program of this name, Debian's or else the project's.
    pub fn start(dir: &Path, names: [&'static str; 2], arguments: &[String], environment: &[(&str, String)]) -> Self {
        let spawned = names.into_iter().find_map(|name| {
            let mut command = Command::new(name);
            command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
            Self::spawn(dir, name, command).ok()
        });
        spawned.unwrap_or_else(|| panic!("{} is missing: make drill installs it", names[0]))
    }

    pub fn spawn(dir: &Path, name: &'static str, mut command: Command) -> std::io::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).current_dir(dir);
        Ok(Self { name, child: command.spawn()?, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said last.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}:\n{}", self.name, lines[lines.len().saturating_sub(5)..].join("\n"))
    }

    /// Waits until it answers there.
    async fn answers(&mut self, address: SocketAddr, path: &str) {
        let url = format!("http://{address}{path}");
        for _ in 0..600 {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}: {}", self.log());
            }
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not answer: {}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Prometheus with the rules that ship.
pub struct Prometheus {
    pub address: SocketAddr,
    dir: PathBuf,
    program: Option<Program>,
}

impl Prometheus {
    /// Starts it in a folder of its own, with what is in `targets/` there.
    pub async fn start(dir: &Path, ip: IpAddr, pace: Pace) -> Self {
        let rules = dir.join("rules");
        fs::create_dir_all(&rules).unwrap();
        for entry in fs::read_dir(root().join("prometheus/rules")).unwrap() {
            let from = entry.unwrap().path();
            let to = rules.join(from.file_name().unwrap());
            fs::copy(&from, &to).unwrap();
            assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap(), "{}", from.display());
        }
        let config = changed(&shipped("prometheus/prometheus.yml"), pace.prometheus().iter().copied());
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let [address] = free_addresses_of(ip);
        let mut prometheus = Self { address, dir: dir.to_owned(), program: None };
        prometheus.resume().await;
        prometheus
    }

    /// Starts it again with the data it has.
    pub async fn resume(&mut self) {
        let docs = root().join("docs");
        let arguments = [
            format!("--web.listen-address={}", self.address),
            format!("--config.file={}", self.dir.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", self.data().display()),
            "--storage.tsdb.retention.time=35d".to_owned(),
            format!("--web.user-assets={}", docs.display()),
            "--web.enable-remote-write-receiver".to_owned(),
            // An alert that is over is told at once, and one whose message was lost soon.
            "--rules.alert.resend-delay=2s".to_owned(),
        ];
        let mut program = Program::start(&self.dir, ["prometheus", "prometheus"], &arguments, &[]);
        program.answers(self.address, "/-/ready").await;
        self.program = Some(program);
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.program = None;
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn api(&self) -> Api {
        Api { base: format!("http://{}/api/v1", self.address) }
    }

    /// The targets of a job from now on; none is no file.
    pub fn target(&self, job: &str, targets: &[String]) {
        target(&self.dir, job, targets, &json!({}));
    }

    /// Gives it a past: samples in the OpenMetrics format, which it finds within a minute.
    pub async fn remember(&self, samples: &str) {
        let file = self.dir.join("past.om");
        fs::write(&file, samples).unwrap();
        let mut promtool = tokio::process::Command::new("promtool");
        promtool.args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"]).arg(&file).arg(self.data());
        let output = promtool.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Writes a file of targets at once, so that nobody reads half of it.
pub fn target(dir: &Path, job: &str, targets: &[String], labels: &Value) {
    let folder = dir.join("targets");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{job}.yml"));
    if targets.is_empty() {
        fs::remove_file(file).unwrap();
        return;
    }
    let new = dir.join(format!("{job}.new"));
    fs::write(&new, json!([{ "targets": targets, "labels": labels }]).to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// Asks Prometheus.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
}

impl Api {
    /// `data` of an answer; none while it is away.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let answer = reqwest::get(format!("{}{path}", self.base)).await.ok()?;
        let mut answer: Value = answer.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Some(answer["data"].take())
    }

    /// Alerts that are pending or firing.
    pub async fn alerts(&self) -> Option<Vec<Alert>> {
        let mut alerts = self.get("/alerts").await?;
        let Value::Array(alerts) = alerts["alerts"].take() else { return None };
        Some(alerts.into_iter().map(Alert).collect())
    }

    /// The value of a query that has one; none when it has none.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.get(&format!("/query?query={query}")).await?;
        answer["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Waits until a query has a value of which this holds.
    pub async fn until(&self, query: &str, holds: impl Fn(f64) -> bool) {
        let look = async || self.value(query).await.filter(|value| holds(*value));
        wait_for(query, Duration::from_mins(3), look).await;
    }

    /// Whether every target was scraped at least so often, and is up.
    pub async fn all_up(&self, times: usize) -> bool {
        let Some(targets) = self.get("/targets?state=active").await else { return false };
        let targets = targets["activeTargets"].as_array().unwrap().clone();
        let up = !targets.is_empty() && targets.iter().all(|target| target["health"] == "up");
        let scraped = format!("count(count_over_time(up[10m]) >= {times})");
        up && self.value(&scraped).await == Some(targets.len() as f64)
    }
}

/// An alert as Prometheus tells of it.
#[derive(Clone, Debug)]
pub struct Alert(Value);

impl Alert {
    pub fn name(&self) -> &str {
        self.0["labels"]["alertname"].as_str().unwrap()
    }

    /// `pending` or `firing`.
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap()
    }

    pub fn labels(&self) -> &Value {
        &self.0["labels"]
    }

    pub fn value(&self) -> f64 {
        self.0["value"].as_str().unwrap().parse().unwrap()
    }
}

/// An Alertmanager with the routes that ship.
pub struct Alertmanager {
    pub address: SocketAddr,
    _program: Program,
}

impl Alertmanager {
    /// Starts it; it sends everything to that sink.
    pub async fn start(dir: &Path, ip: IpAddr, pace: Pace, sink: SocketAddr) -> Self {
        let templates = dir.join("templates");
        fs::create_dir_all(&templates).unwrap();
        for entry in fs::read_dir(root().join("alertmanager/templates")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, templates.join(from.file_name().unwrap())).unwrap();
        }
        let urls = ["pages", "tickets", "watchdog"]
            .map(|path| (format!("- url: http://127.0.0.1:9099/{path}"), format!("- url: http://{sink}/{path}")));
        let urls = urls.iter().map(|(from, to)| (from.as_str(), to.as_str()));
        let text = shipped("alertmanager/alertmanager.yml");
        let config = changed(&text, pace.alertmanager().iter().copied().chain(urls));
        fs::write(dir.join("alertmanager.yml"), config).unwrap();
        let [address] = free_addresses_of(ip);
        let arguments = [
            format!("--web.listen-address={address}"),
            format!("--config.file={}", dir.join("alertmanager.yml").display()),
            format!("--storage.path={}", dir.join("alertmanager").display()),
            "--cluster.listen-address=".to_owned(),
        ];
        let mut program = Program::start(dir, ["prometheus-alertmanager", "alertmanager"], &arguments, &[]);
        program.answers(address, "/-/ready").await;
        Self { address, _program: program }
    }
}

/// An exporter, by the job that scrapes it.
pub struct Exporter {
    pub address: SocketAddr,
    _program: Program,
}

impl Exporter {
    pub async fn start(
        dir: &Path,
        ip: IpAddr,
        names: [&'static str; 2],
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Self {
        let [address] = free_addresses_of(ip);
        let arguments = [&[format!("--web.listen-address={address}")], arguments].concat();
        let mut program = Program::start(dir, names, &arguments, environment);
        program.answers(address, "/").await;
        Self { address, _program: program }
    }

    /// Asks for readiness as clients would; it believes certificates of this authority besides, if there is one.
    pub async fn blackbox(dir: &Path, ip: IpAddr, authority: Option<String>) -> Self {
        let config = root().join("prometheus/blackbox.yml");
        let arguments = [format!("--config.file={}", config.display())];
        let environment: Vec<_> = authority.into_iter().map(|file| ("SSL_CERT_FILE", file)).collect();
        let names = ["prometheus-blackbox-exporter", "blackbox_exporter"];
        Self::start(dir, ip, names, &arguments, &environment).await
    }
}
