//! What has to be looked after: disks, backups, certificates, releases, the collector of traces.

use std::{fmt::Write, fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use axum::{Router, extract::State, routing::get};
use switchboard::clock::Clock;
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::watch, time::sleep};

use crate::{
    drill::{Drill, Proof, TICKET},
    faults::answered,
    lab::{Lab, Replica, Setup},
    observers::Program,
    support::{
        files::TempDir,
        otlp::Collector,
        process,
        proxy::Proxy,
        tls::{Authority, Files},
    },
    wait_for,
};

const FULL: Proof =
    Proof { alert: "DiskFilling", fault: "a small disk is filled", says: "below 10 %", value: (0.0, 0.1), ..TICKET };
const UNSAVED: Proof = Proof {
    alert: "BackupStale",
    fault: "the last backup is 27 hours old",
    summary: "There is no backup of the last 26 hours",
    says: "The last backup was finished 1d 3h",
    value: (93_600.0, 100_000.0),
    ..TICKET
};

pub const BACKUPS: Drill =
    Drill { test: "upkeep::backups", minutes: 18, proves: &[FULL, UNSAVED], along: &[], inhibits: &[] };

#[tokio::test(flavor = "multi_thread")]
async fn backups() {
    let lab = Lab::open().await;
    let disk = Disk::mount(&lab);
    lab.prometheus.target("node", &[disk.address.to_string()]);
    let free = format!("node_filesystem_avail_bytes{{mountpoint=\"{}\"}}", disk.place.display());
    lab.api().until(&free, |bytes| bytes > 8e6).await;
    let mut run = BACKUPS.begin(&lab).await;
    run.breaks(&[]);
    let file = disk.path().join("dump");
    fs::write(&file, vec![7; 13_000_000]).unwrap();
    let database = &lab.site.database;
    let old = "INSERT INTO maintenance_runs (kind, started_at, finished_at, bytes)
               SELECT 'backup', now() - interval '27 h', now() - interval '27 h', 1";
    database.execute(old).await;
    let ticket = run.notified("DiskFilling").await;
    assert_eq!(ticket.label("mountpoint"), disk.place.to_str().unwrap());
    run.all_notified().await;
    run.mends(&[]);
    fs::remove_file(&file).unwrap();
    let to = TempDir::create();
    let mut environment = lab.site.environment();
    environment.push(("DATABASE_URL", database.url()));
    environment.push(("SWITCHBOARD_DATA_DIR", lab.dir.text()));
    process::run_beside(&["backup", "--to", &to.text()], &environment).await.success();
    run.all_resolved().await;
    run.done();
}

/// A disk of sixteen megabytes that only its node_exporter sees. Mounting one takes root.
struct Disk {
    address: SocketAddr,
    place: PathBuf,
    exporter: Program,
}

impl Disk {
    fn mount(lab: &Lab) -> Self {
        let place = lab.dir.path().join("disk");
        fs::create_dir(&place).unwrap();
        let image = lab.dir.path().join("disk.img");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let formatted = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
        assert!(formatted.expect("mkfs.ext4 is missing: make drill installs it").success());
        let [address] = process::free_addresses_of(lab.ip);
        // The machine's own disks are no part of the drill.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let others: Vec<String> =
            mounts.lines().filter_map(|line| Some(format!("\\Q{}\\E", line.split(' ').nth(1)?))).collect();
        let others = format!("--collector.filesystem.mount-points-exclude=^({})$", others.join("|"));
        let mut command = if nix::unistd::getuid().is_root() { Command::new("unshare") } else { Command::new("sudo") };
        if !nix::unistd::getuid().is_root() {
            command.args(["-n", "unshare"]);
        }
        // Its own first process, too: that one's mounts are what node_exporter reads.
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        command.arg("mount -o loop \"$1\" \"$2\" && exec prometheus-node-exporter --web.listen-address=\"$3\" \"$4\"");
        command.arg("sh").arg(&image).arg(&place).arg(address.to_string()).arg(others);
        let exporter = Program::spawn(lab.dir.path(), "node", command).unwrap();
        Self { address, place, exporter }
    }

    /// As this process gets there.
    fn path(&self) -> PathBuf {
        let parent = self.exporter.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let inside = children.split_whitespace().next().unwrap_or_else(|| panic!("{}", self.exporter.log()));
        PathBuf::from(format!("/proc/{inside}/root{}", self.place.display()))
    }
}

pub const CERTIFICATE: Drill = Drill {
    test: "upkeep::certificate",
    minutes: 18,
    proves: &[Proof {
        alert: "CertificateExpiring",
        fault: "the certificate is replaced by one that is good for ten days",
        summary: "expires soon",
        says: "expires in 9d 23h",
        value: (863_000.0, 864_000.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn certificate() {
    let authority = Authority::new();
    let good_for = |days: i64| {
        let until = Clock::System.now().timestamp() + days * 86_400;
        let until = OffsetDateTime::from_unix_timestamp(until).unwrap();
        authority.issue_for(&[process::own_loopback().to_string()], until)
    };
    let files = Files::new(&good_for(90));
    let trusted = files.dir.file("authority.crt", &authority.certificate());
    let setup = Setup { tls: Some(&files), authority: Some(trusted), ..Setup::default() };
    let lab = Lab::with(setup).await;
    let mut run = CERTIFICATE.begin(&lab).await;
    run.breaks(&[]);
    files.write(&good_for(10));
    run.all_notified().await;
    // As clients see it at the balancer, and as each replica has it.
    let sees = async || {
        let all = lab.sink.notices();
        let mut instances: Vec<&str> =
            all.iter().filter(|of| of.name() == "CertificateExpiring").map(|of| of.label("instance")).collect();
        instances.sort_unstable();
        instances.dedup();
        (instances.len() == 3).then_some(())
    };
    wait_for("three tell of it", Duration::from_mins(1), sees).await;
    run.mends(&[]);
    files.write(&good_for(90));
    run.all_resolved().await;
    run.done();
}

const MANY: Proof = Proof {
    alert: "CardinalityHigh",
    fault: "/metrics of one replica has 36,000 series more",
    summary: "exposes too many series",
    says: "the ceiling is 45000",
    value: (36_000.0, 80_000.0),
    ..TICKET
};
const MIXED: Proof = Proof {
    alert: "VersionSkew",
    fault: "one replica shows another revision",
    summary: "Replicas run different releases",
    says: "2 releases have been running side by side",
    value: (2.0, 2.0),
    ..TICKET
};

pub const RELEASE: Drill =
    Drill { test: "upkeep::release", minutes: 18, proves: &[MANY, MIXED], along: &[], inhibits: &[] };

/// What a relay before /metrics changes.
#[derive(Clone, Copy, Debug, Default)]
struct Distortion {
    more: usize,
    another_revision: bool,
}

#[derive(Clone)]
struct Relay {
    replica: SocketAddr,
    distortion: watch::Receiver<Distortion>,
}

async fn distorted(State(Relay { replica, distortion }): State<Relay>) -> String {
    let Distortion { more, another_revision } = *distortion.borrow();
    let mut text = reqwest::get(format!("http://{replica}/metrics")).await.unwrap().text().await.unwrap();
    if another_revision {
        text = text.replace("revision=\"", "revision=\"another-");
    }
    if more > 0 {
        text += "# TYPE drill_series gauge\n";
        for n in 0..more {
            writeln!(text, "drill_series{{n=\"{n}\"}} 1").unwrap();
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn release() {
    let lab = Lab::open().await;
    let distortion = watch::Sender::new(Distortion::default());
    let listener = TcpListener::bind((lab.ip, 0)).await.unwrap();
    let relay = listener.local_addr().unwrap().to_string();
    let state = Relay { replica: lab.replicas[1].addresses[1], distortion: distortion.subscribe() };
    let router = Router::new().route("/metrics", get(distorted)).with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    lab.prometheus.target("switchboard", &[lab.replicas[0].instance(), relay.clone()]);
    let mut run = RELEASE.begin(&lab).await;
    run.breaks(&[]);
    distortion.send_replace(Distortion { more: 36_000, another_revision: true });
    let ticket = run.notified("CardinalityHigh").await;
    assert_eq!(ticket.label("instance"), relay);
    run.mends(&[MANY.alert]);
    distortion.send_modify(|distortion| distortion.more = 0);
    run.all_notified().await;
    run.mends(&[MIXED.alert]);
    distortion.send_replace(Distortion::default());
    run.all_resolved().await;
    run.done();
}

pub const TRACES: Drill = Drill {
    test: "upkeep::traces",
    minutes: 13,
    proves: &[Proof {
        alert: "TracesDropped",
        fault: "the collector of traces takes connections and answers nothing",
        summary: "Spans do not reach the collector of traces",
        says: "sampled spans were dropped within 10 minutes",
        value: (100.0, 100_000.0),
        ..TICKET
    }],
    along: &[],
    inhibits: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn traces() {
    let (_collector, address) = Collector::start().await;
    let mut proxy = Proxy::before_address(address).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", proxy.address())),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "512".to_owned()),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000".to_owned()),
    ];
    let lab = Lab::with(Setup { settings: settings.into(), ..Setup::default() }).await;
    let bases = lab.replicas.each_ref().map(Replica::base);
    let mut run = TRACES.begin(&lab).await;
    run.breaks(&[]);
    proxy.freeze();
    answered(401, 4_000, move |client, n| client.get(format!("{}/api/v1/requests", bases[n % 2]))).await;
    sleep(Duration::from_secs(10)).await;
    run.mends(&[]);
    // What went into the dark stays there, until it is given up.
    proxy.cut().await;
    proxy.mend().await;
    run.all_notified().await;
    run.all_resolved().await;
    run.done();
}
