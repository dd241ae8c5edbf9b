//! What a drill gets for itself: a company with two replicas behind a balancer, and everybody who watches it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    drill::SHARED,
    observers::{Alert, Alertmanager, Api, Exporter, Pace, Prometheus, target},
    sink::Sink,
    support::{
        actor::Actor,
        balancer::Balancer,
        files::TempDir,
        metrics::Scrape,
        process::{Server, free_addresses_of, own_loopback},
        site::Site,
        tls,
    },
    wait_for,
};

/// What differs from lab to lab.
#[derive(Default)]
pub struct Setup<'a> {
    pub pace: Option<Pace>,
    /// Settings of both replicas.
    pub settings: Vec<(&'static str, String)>,
    /// The replicas do TLS with these.
    pub tls: Option<&'a tls::Files>,
    /// Where to find what signed them.
    pub authority: Option<String>,
    /// Redis is reached through its proxy, so that it can be cut off. Otherwise directly: on a busy machine a proxy is
    /// late now and then, and replicas do without a Redis that is.
    pub redis_through_proxy: bool,
}

/// One of the two servers, which can go and come back.
pub struct Replica {
    /// The public address, and that of the ops listener.
    pub addresses: [SocketAddr; 2],
    settings: Vec<(&'static str, String)>,
    server: Option<Server>,
}

impl Replica {
    /// Starts it where it was, and waits until it is ready.
    pub async fn start(&mut self, site: &Site) {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.server = Some(site.server_at(self.addresses, &settings).await);
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.end(Signal::SIGKILL).await;
    }

    /// SIGTERM, and the end in good order.
    pub async fn stop(&mut self) {
        self.end(Signal::SIGTERM).await;
    }

    async fn end(&mut self, signal: Signal) {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(move || server.stop_with(signal)).await.unwrap();
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The base of URLs.
    pub fn base(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// As Prometheus calls it.
    pub fn instance(&self) -> String {
        self.addresses[1].to_string()
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::fetch(self.addresses[1]).await
    }
}

/// How long a lab may take to come to rest.
const PEACE: Duration = Duration::from_mins(4);

// Ended in this order: who watches first.
pub struct Lab {
    pub prometheus: Prometheus,
    pub alertmanager: Alertmanager,
    pub sink: Sink,
    _blackbox: Exporter,
    pub balancer: Balancer,
    pub replicas: [Replica; 2],
    pub site: Site,
    pub ip: IpAddr,
    pub dir: TempDir,
}

impl Lab {
    pub async fn open() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup<'_>) -> Self {
        let (site, dir, ip) = (Site::open().await, TempDir::create(), own_loopback());
        let mut settings = vec![
            ("SWITCHBOARD_REPLICAS", "2".to_owned()),
            // Open since a week, whatever the time is.
            ("SWITCHBOARD_BUSINESS_HOURS", "Mon-Sun 00:00-24:00 UTC".to_owned()),
            ("SWITCHBOARD_LOG_LEVEL", "warn,switchboard=info,switchboard::http=warn".to_owned()),
        ];
        if !setup.redis_through_proxy {
            settings.push(("REDIS_URL", site.redis_server.url()));
        }
        if let Some(files) = setup.tls {
            settings.push(("SWITCHBOARD_TLS_CERT_FILE", files.cert_file.clone()));
            settings.push(("SWITCHBOARD_TLS_KEY_FILE", files.key_file.clone()));
        }
        settings.extend(setup.settings);
        let replica = || Replica { addresses: free_addresses_of(ip), settings: settings.clone(), server: None };
        let [mut one, mut other] = [replica(), replica()];
        tokio::join!(one.start(&site), other.start(&site));
        let replicas = [one, other];
        let public = replicas.each_ref().map(|replica| replica.addresses[0]);
        let balancer = match setup.tls {
            None => Balancer::before(&public).await,
            Some(_) => Balancer::before_tls(&public).await,
        };

        let (path, pace, sink) = (dir.path(), setup.pace.unwrap_or(Pace::Drill), Sink::start().await);
        let alertmanager = Alertmanager::start(path, ip, pace, sink.address).await;
        let blackbox = Exporter::blackbox(path, ip, setup.authority).await;
        let targets = [
            ("alertmanager", vec![alertmanager.address]),
            ("blackbox", vec![blackbox.address]),
            ("switchboard", replicas.iter().map(|replica| replica.addresses[1]).collect()),
        ];
        let scheme = if setup.tls.is_some() { "https" } else { "http" };
        let ready = format!("{scheme}://{}/health/ready", balancer.address);
        target(path, "blackbox-ready", &[ready], &json!({ "__blackbox": blackbox.address.to_string() }));
        for (job, addresses) in targets {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            target(path, job, &addresses, &json!({}));
        }
        let prometheus = Prometheus::start(path, ip, pace).await;
        prometheus.target("prometheus", &[prometheus.address.to_string()]);
        Self { prometheus, alertmanager, sink, _blackbox: blackbox, balancer, replicas, site, ip, dir }
    }

    pub fn api(&self) -> Api {
        self.prometheus.api()
    }

    /// The administrator, signed in at the balancer.
    pub async fn boss(&self) -> Actor {
        Actor::sign_in(&format!("http://{}", self.balancer.address), 0, "boss").await
    }

    /// Nobody, at the balancer.
    pub fn stranger(&self) -> Actor {
        Actor::stranger(&format!("http://{}", self.balancer.address))
    }

    /// Waits until everything is watched, often enough that changes are seen, and only the Watchdog has come.
    pub async fn peace(&self) {
        let (api, begun) = (self.api(), Instant::now());
        let peaceful = async || {
            let alerts = api.alerts().await?;
            // A lab that has just begun has kept the machine busy.
            let others = alerts.iter().filter(|alert| !SHARED.contains(&alert.name()) || alert.state() == "firing");
            let names: Vec<&str> = others.map(Alert::name).collect();
            let told = self.sink.find(|notice| notice.name() == "Watchdog" && notice.path == "watchdog").is_some();
            let watched = api.all_up(3).await;
            assert!(
                begun.elapsed() < PEACE,
                "no peace: {names:?}; the Watchdog came: {told}; all is watched: {watched}"
            );
            (names == ["Watchdog"] && told && watched).then_some(())
        };
        wait_for("peace before the fault", PEACE, peaceful).await;
    }
}
