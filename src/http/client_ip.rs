//! The address of the client: that of the connection, unless it is a configured balancer's, whose
//! X-Forwarded-For is then read from the right up to the first address that is no balancer.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use ipnet::IpNet;

use crate::{app::App, error::AppError};

/// The client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl ClientIp {
    /// What a rate limit counts by: one IPv4 address, or an IPv6 /64, which is what one customer gets.
    #[must_use]
    pub fn bucket(self) -> String {
        match self.0.to_canonical() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

impl FromRequestParts<App> for ClientIp {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.ok_or_else(|| AppError::internal("the listener does not tell peer addresses"))?;
        let forwarded: Vec<&str> =
            parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        Ok(Self(resolve(peer, &forwarded.join(","), &app.config.http.trusted_proxies)))
    }
}

/// Whether it is a configured balancer's.
pub(super) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip.to_canonical()))
}

fn resolve(peer: IpAddr, forwarded: &str, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in forwarded.split(',').rev().map(str::trim) {
        if !is_trusted(client, trusted) {
            break;
        }
        // Garbage to the left of a balancer was written by a stranger: stop at what is known.
        let Ok(ip) = hop.parse() else { break };
        client = ip;
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_balancers_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let cases = [
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "nonsense", "10.0.0.1"),
            ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ];
        for (peer, forwarded, expected) in cases {
            assert_eq!(
                resolve(peer.parse().unwrap(), forwarded, &trusted),
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {forwarded}"
            );
        }
    }

    #[test]
    fn one_customer_is_one_bucket() {
        let bucket = |ip: &str| ClientIp(ip.parse().unwrap()).bucket();
        assert_eq!(bucket("2001:db8:1:2:3::4"), bucket("2001:db8:1:2:ffff::1"));
        assert_ne!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:3::1"));
        assert_eq!(bucket("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
