//! `switchboard health`: asks the server on this machine whether it is ready. For health checks of containers, in which
//! there may be nothing else that could ask.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use serde::Deserialize;

use crate::{config::Config, error::describe};

/// The server itself waits a second for the database.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Health {
    status: String,
}

/// Prints what readiness says; exit code 0 when that is `ok`, else 1.
///
/// # Errors
/// When nothing answers at the address of the ops listener.
pub async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let address = reachable(config.ops.addr);
    let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = async { http.get(format!("http://{address}/health/ready")).send().await?.json::<Health>().await };
    let nobody = |error: reqwest::Error| {
        anyhow::anyhow!("no Switchboard answers at {address}: {}", describe(&error.without_url()))
    };
    let Health { status } = answer.await.map_err(nobody)?;
    println!("{status}");
    Ok(if status == "ok" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where a listener on this address can be reached from here.
#[must_use]
pub fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(match listener {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    listener
}
