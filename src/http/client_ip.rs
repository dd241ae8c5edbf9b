//! The address of the client: that of the connection, unless it is a configured balancer's, whose
//! X-Forwarded-For is then read from the right up to the first address that is no balancer.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, HeaderValue, request::Parts},
};
use ipnet::IpNet;

use crate::{app::App, error::AppError, telemetry::Seldom};

const FORWARDED_FOR: &str = "x-forwarded-for";

static UNREADABLE: Seldom = Seldom::new();

/// The client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl ClientIp {
    /// Of the request with these.
    ///
    /// # Errors
    /// When the listener does not tell who its peers are.
    pub(super) fn of(extensions: &Extensions, headers: &HeaderMap, app: &App) -> Result<Self, AppError> {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.ok_or_else(|| AppError::internal("the listener does not tell peer addresses"))?;
        Ok(Self(resolve(peer, headers, &app.config.http.trusted_proxies)))
    }

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
        Self::of(&parts.extensions, &parts.headers, app)
    }
}

/// Whether it is a configured balancer's.
pub(super) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip.to_canonical()))
}

fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    // As bytes, and whole: whatever a stranger wrote, what the balancer has written stands to the right of it.
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in lines.join(&b',').rsplit(|byte| *byte == b',') {
        if !is_trusted(client, trusted) {
            break;
        }
        // Garbage to the left of a balancer was written by a stranger: stop at what is known.
        let Some(ip) = address(hop) else {
            if client == peer && UNREADABLE.is_due() {
                tracing::warn!(%peer, "a balancer writes no address into X-Forwarded-For: all its clients count as one");
            }
            break;
        };
        client = ip;
    }
    client
}

/// An address as balancers write it: `ip`, `ip:port`, `[ipv6]` or `[ipv6]:port`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let bare = || hop.parse().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn headers(lines: &[impl AsRef<[u8]>]) -> HeaderMap {
        let line = |line: &[u8]| (HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_bytes(line).unwrap());
        lines.iter().map(|bytes| line(bytes.as_ref())).collect()
    }

    /// What somebody may send as a line of a header: any bytes that HTTP lets through, and what looks real.
    fn claim() -> impl Strategy<Value = Vec<u8>> {
        let address = "(10\\.[0-9]\\.[0-9]\\.[0-9](:80)?,? ?|203\\.0\\.113\\.[0-9],? ?|\\[::1\\],){0,3}";
        prop_oneof![
            vec(prop_oneof![Just(b'\t'), 0x20..0x7f_u8, 0x80..=0xff_u8], 0..40),
            address.prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn nobody_writes_their_own_address(
            claims in vec(claim(), 0..3), client: IpAddr, port: Option<u16>, has_line: bool,
        ) {
            let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
            prop_assume!(!is_trusted(client, &trusted));
            let balancer = "10.0.0.1".parse().unwrap();
            // Straight to us, what they claim counts for nothing,
            prop_assert_eq!(resolve(client, &headers(&claims), &trusted), client);
            // and through a balancer only what the balancer has seen, however it writes that.
            let seen = match (client, port) {
                (_, Some(port)) => SocketAddr::new(client, port).to_string(),
                (IpAddr::V6(ip), None) if has_line => format!("[{ip}]"),
                _ => client.to_string(),
            };
            let mut lines = claims.clone();
            match lines.last_mut() {
                Some(last) if !has_line => last.extend_from_slice(format!(", {seen}").as_bytes()),
                _ => lines.push(seen.into_bytes()),
            }
            prop_assert_eq!(resolve(balancer, &headers(&lines), &trusted), client);
            // Whatever it comes to has a bucket, which says nothing but the address.
            let claimed = ClientIp(resolve(balancer, &headers(&claims), &trusted));
            prop_assert!(claimed.bucket().chars().all(|c| c.is_ascii_hexdigit() || ".:/".contains(c)));
        }
    }

    #[test]
    fn only_configured_balancers_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let cases: [(&str, &[&[u8]], &str); 15] = [
            ("203.0.113.9", &[b"198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &[b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1", b"10.0.0.2:443"], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[b""], "10.0.0.1"),
            ("10.0.0.1", &[b"nonsense"], "10.0.0.1"),
            ("10.0.0.1", &[b"6.6.6.6", b"\xff"], "10.0.0.1"),
            ("10.0.0.1", &[b"\xff, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"6.6.6.6", b"\xff, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"6.6.6.6, \xff, 10.0.0.2"], "10.0.0.2"),
            ("::ffff:10.0.0.1", &[b"2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &[b"[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &[b"[2001:db8::1]:40000"], "2001:db8::1"),
        ];
        for (peer, lines, expected) in cases {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(resolve(peer.parse().unwrap(), &headers(lines), &trusted), expected, "{peer} {lines:?}");
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
