//! What a drill proves, and how: what is expected is data, and everything else that fires fails it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    faults::Ongoing,
    lab::Lab,
    observers::{Api, root, shipped},
    sink::{Notice, Sink},
    wait_for,
};

/// Longer than any alert waits, or its window is.
const PATIENCE: Duration = Duration::from_mins(19);

/// How it is shown that an alert ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    /// The fault is removed, and the resolved message arrives.
    Live,
    /// Its window is too long: a case in this file of prometheus/tests.
    Case(&'static str, &'static str),
    /// Never.
    Never,
}

/// One alert, and what makes it fire.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    pub alert: &'static str,
    pub fault: &'static str,
    /// Where its message arrives: `pages`, `tickets` or `watchdog`.
    pub receiver: &'static str,
    /// Labels that matter beyond severity, service and owner.
    pub labels: &'static [(&'static str, &'static str)],
    /// What its summary says, and its description.
    pub summary: &'static str,
    pub says: &'static str,
    /// The least and the greatest that its value may be.
    pub value: (f64, f64),
    pub ends: Ends,
}

/// To be filled in.
pub const PAGE: Proof = Proof {
    alert: "",
    fault: "",
    receiver: "pages",
    labels: &[("slo", "none")],
    summary: "",
    says: "",
    value: (0.0, 0.0),
    ends: Ends::Live,
};
pub const TICKET: Proof = Proof { receiver: "tickets", ..PAGE };

/// What may be pending in any lab: ten of them share the machine, and who waits for a core is late.
pub const SHARED: &[&str] = &["EventLoopLag", "RedisFallbackActive"];

/// An alert that the fault raises besides, with the reason.
#[derive(Clone, Copy, Debug)]
pub enum Along {
    /// It may be pending, and must not fire.
    Pends(&'static str, &'static str),
    /// It may fire.
    Fires(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// The name of the test.
    pub test: &'static str,
    /// About how long it takes: the longest are begun first.
    pub minutes: u32,
    pub proves: &'static [Proof],
    pub along: &'static [Along],
    /// Alerts that fire as well, and are kept from their receiver by one that says more.
    pub inhibits: &'static [&'static str],
}

impl Drill {
    /// For `scripts/drill`.
    pub fn plan(&self) -> Value {
        let alerts: Vec<&str> = self.proves.iter().map(|proof| proof.alert).collect();
        json!({ "test": self.test, "minutes": self.minutes, "alerts": alerts })
    }

    /// Waits for peace before the fault.
    pub async fn begin(&'static self, lab: &Lab) -> Run {
        lab.peace().await;
        self.attend(lab)
    }

    /// From here on nothing may happen but what is expected.
    pub fn attend(&'static self, lab: &Lab) -> Run {
        for proof in self.proves {
            if let Ends::Case(file, case) = proof.ends {
                let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                let cases = words(&shipped(&format!("prometheus/tests/{file}")));
                assert!(cases.contains(&words(case)), "prometheus/tests/{file} has no case {case:?}");
            }
        }
        let (api, seen) = (lab.api(), Seen::default());
        Run {
            drill: self,
            _watching: Ongoing::start(watch(api.clone(), seen.clone())),
            api,
            alertmanager: format!("http://{}/api/v2/alerts", lab.alertmanager.address),
            sink: lab.sink.clone(),
            seen,
            started: Instant::now(),
            broken: BTreeMap::new(),
            mended: BTreeMap::new(),
            arrived: BTreeMap::new(),
            rows: Vec::new(),
        }
    }
}

type Seen = Arc<Mutex<BTreeSet<(String, String)>>>;

/// Notes every alert that is pending or firing.
async fn watch(api: Api, seen: Seen) {
    loop {
        // Prometheus itself may be gone.
        for alert in api.alerts().await.into_iter().flatten() {
            seen.lock().unwrap().insert((alert.name().to_owned(), alert.state().to_owned()));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// A drill that is under way.
pub struct Run {
    drill: &'static Drill,
    api: Api,
    alertmanager: String,
    sink: Sink,
    seen: Seen,
    _watching: Ongoing,
    started: Instant,
    broken: BTreeMap<&'static str, Instant>,
    mended: BTreeMap<&'static str, Instant>,
    arrived: BTreeMap<&'static str, Notice>,
    rows: Vec<Value>,
}

impl Run {
    /// The fault of these alerts begins now; of all that have none yet if none is named.
    pub fn breaks(&mut self, alerts: &[&'static str]) {
        let now = Instant::now();
        for alert in self.named(alerts) {
            self.broken.entry(alert).or_insert(now);
        }
    }

    /// It is over.
    pub fn mends(&mut self, alerts: &[&'static str]) {
        let now = Instant::now();
        for alert in self.named(alerts) {
            self.mended.entry(alert).or_insert(now);
        }
    }

    fn named(&self, alerts: &[&'static str]) -> Vec<&'static str> {
        let all = self.drill.proves.iter().map(|proof| proof.alert);
        if alerts.is_empty() { all.collect() } else { alerts.to_vec() }
    }

    fn proof(&self, alert: &str) -> &'static Proof {
        self.drill.proves.iter().find(|proof| proof.alert == alert).unwrap()
    }

    /// How long ago the drill began.
    fn clock(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("{:2}:{:02}", seconds / 60, seconds % 60)
    }

    /// Says how far it is.
    pub fn tell(&self, what: &str) {
        println!("drill: {} {} {what}", self.clock(), self.drill.test);
    }

    /// Waits until the alert's message is there, and checks it.
    pub async fn notified(&mut self, alert: &'static str) -> Notice {
        let (proof, broken) = (self.proof(alert), self.broken[alert]);
        let sought = |notice: &Notice| {
            notice.name() == alert
                && notice.is_firing()
                && notice.at >= broken
                && proof.labels.iter().all(|(name, value)| notice.label(name) == *value)
        };
        let what = format!("{alert} at {}", proof.receiver);
        let notice = wait_for(&what, PATIENCE, async || {
            let found = self.sink.find(sought);
            self.attended();
            found
        })
        .await;
        let seconds = (notice.at - broken).as_secs_f64();
        self.check(proof, &notice).await;
        self.tell(&format!("{alert} reached {} after {seconds:.0} s", notice.path));
        self.arrived.insert(alert, notice.clone());
        notice
    }

    /// The same of all, in whichever order they come.
    pub async fn all_notified(&mut self) {
        for proof in self.drill.proves {
            if !self.arrived.contains_key(proof.alert) {
                self.notified(proof.alert).await;
            }
        }
    }

    /// That the message says what it should, to whom it should, and leads to what is there.
    async fn check(&self, proof: &Proof, notice: &Notice) {
        let Proof { alert, receiver, summary, says, value, .. } = proof;
        assert_eq!(notice.path, *receiver, "{alert}");
        let severity = match *receiver {
            "pages" => "page",
            "tickets" => "ticket",
            _ => "none",
        };
        assert_eq!((notice.label("severity"), notice.label("service")), (severity, "switchboard"), "{notice:?}");
        assert!(!notice.label("owner").is_empty(), "{notice:?}");
        for (annotation, part) in [("summary", summary), ("description", says)] {
            let text = notice.annotation(annotation);
            assert!(text.contains(part) && !text.contains('<'), "{alert}: {annotation} {text:?} without {part:?}");
        }
        for annotation in ["budget", "action"] {
            assert!(!notice.annotation(annotation).is_empty(), "{alert} has no {annotation}");
        }
        let runbook = notice.annotation("runbook_url");
        let served = runbook.split_once("/user/").unwrap_or_else(|| panic!("{alert}: {runbook}")).1;
        assert_eq!(served, format!("runbooks/{alert}.md"));
        assert!(root().join("docs").join(served).is_file(), "{alert}: {runbook}");
        let dashboard = notice.annotation("dashboard_url");
        let uid = dashboard.split_once("/d/").unwrap_or_else(|| panic!("{alert}: {dashboard}")).1;
        assert!(dashboards().contains(uid), "{alert}: {dashboard}");

        let alerts = self.api.alerts().await.unwrap();
        let mut values = alerts
            .iter()
            .filter(|of| of.name() == *alert && of.labels()["instance"] == notice.alert["labels"]["instance"])
            .map(crate::observers::Alert::value);
        assert!(values.any(|is| (value.0..=value.1).contains(&is)), "{alert} is not in {value:?}: {alerts:#?}");
    }

    /// Waits until each alert that is to be inhibited fires and is suppressed, and none has reached anybody.
    pub async fn suppressed(&self) {
        for name in self.drill.inhibits {
            let look = async || {
                let answer: Vec<Value> = reqwest::get(&self.alertmanager).await.ok()?.json().await.ok()?;
                let mut of = answer.iter().filter(|alert| alert["labels"]["alertname"] == *name).peekable();
                of.peek()?;
                let inhibited = |alert: &Value| !alert["status"]["inhibitedBy"].as_array().unwrap().is_empty();
                of.all(|alert| alert["status"]["state"] == "suppressed" && inhibited(alert)).then_some(())
            };
            wait_for(&format!("{name} is suppressed"), PATIENCE, look).await;
            let told = self.sink.find(|notice| notice.name() == *name);
            assert!(told.is_none(), "{name} reached somebody: {told:?}");
            self.tell(&format!("{name} fires and is suppressed"));
        }
    }

    /// Waits for the resolved messages of all that end live.
    pub async fn all_resolved(&mut self) {
        for proof in self.drill.proves {
            self.resolved(proof.alert).await;
        }
    }

    pub async fn resolved(&mut self, alert: &'static str) {
        let proof = self.proof(alert);
        if proof.ends != Ends::Live || self.rows.iter().any(|row| row["alert"] == alert) {
            return;
        }
        let fired = self.arrived[alert].clone();
        let what = format!("{alert} is resolved");
        let over = |notice: &Notice| notice.fingerprint() == fired.fingerprint() && !notice.is_firing();
        let notice = wait_for(&what, PATIENCE, async || {
            self.attended();
            self.sink.find(over)
        })
        .await;
        assert_eq!(notice.path, proof.receiver);
        let seconds = (notice.at - self.mended[alert]).as_secs_f64();
        self.tell(&format!("{alert} resolved after {seconds:.0} s"));
        self.row(proof, Some(seconds));
    }

    fn row(&mut self, proof: &Proof, resolved: Option<f64>) {
        let notified = (self.arrived[proof.alert].at - self.broken[proof.alert]).as_secs_f64();
        let how = match proof.ends {
            Ends::Live => "live".to_owned(),
            Ends::Case(file, case) => format!("fires live; ends in prometheus/tests/{file}, “{case}”"),
            Ends::Never => "live; it always fires".to_owned(),
        };
        self.rows.push(json!({
            "alert": proof.alert, "fault": proof.fault, "receiver": proof.receiver, "notified": notified.round(),
            "resolved": resolved.map(f64::round), "proof": how,
        }));
    }

    /// That nothing else has been pending or firing so far, or has arrived.
    pub fn attended(&self) {
        let Drill { proves, along, inhibits, test, .. } = self.drill;
        let may = |name: &str, fires: bool| {
            name == "Watchdog"
                || proves.iter().any(|proof| proof.alert == name)
                || inhibits.contains(&name)
                || (!fires && !proves.is_empty() && SHARED.contains(&name))
                || along.iter().any(|along| match along {
                    Along::Fires(alert, _) => *alert == name,
                    Along::Pends(alert, _) => *alert == name && !fires,
                })
        };
        let mut seen = self.seen.lock().unwrap().clone();
        seen.retain(|(name, state)| !may(name, state == "firing"));
        assert!(seen.is_empty(), "{test}: not expected: {seen:?}");
        let told = self.sink.find(|notice| !may(notice.name(), true));
        assert!(told.is_none(), "{test}: not expected: {told:?}");
    }

    /// All is proven: the rows, for the table.
    pub fn done(mut self) {
        self.attended();
        for proof in self.drill.proves {
            match proof.ends {
                Ends::Live => assert!(self.rows.iter().any(|row| row["alert"] == proof.alert), "{}", proof.alert),
                Ends::Case(..) | Ends::Never => self.row(proof, None),
            }
        }
        for Along::Pends(alert, reason) | Along::Fires(alert, reason) in self.drill.along {
            if self.seen.lock().unwrap().iter().any(|(name, _)| name == alert) {
                self.tell(&format!("{alert} came along: {reason}"));
            }
        }
        self.tell("is done");
        if let Some(dir) = std::env::var_os("SWITCHBOARD_DRILL_DIR") {
            let file = PathBuf::from(dir).join(format!("{}.json", self.drill.test.replace("::", "-")));
            std::fs::write(file, json!(self.rows).to_string()).unwrap();
        }
    }
}

/// The uids of the dashboards that ship.
fn dashboards() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("grafana/dashboards")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let boards = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let uid = |path: PathBuf| {
        let board: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        board["uid"].as_str().unwrap().to_owned()
    };
    boards.map(uid).collect()
}
