//! Listeners: bound before anything slow happens, so that a taken port is known at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use axum::Router;
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use tokio::net::TcpSocket;

use super::{
    guard,
    stall::StallGuard,
    turns::{Patience, TakingTurns},
};
use crate::config;

/// Longer than balancers keep a connection that they do not use (a minute, commonly): one that they send a
/// request on must not be closed at that moment.
const IDLE: Duration = Duration::from_secs(75);
/// Connections that wait to be accepted. Of a burst of more, some would wait for seconds, and others would
/// never learn that there is nobody on the other side.
const BACKLOG: u32 = 4096;
/// What the kernel holds of an answer for a client that does not read; by itself it would go up to
/// megabytes. The kernel doubles it, which is enough for 2 MB/s to a client 50 ms away; and the less it is, the
/// slower a line may be without looking like a client that does not read (`stall`).
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// What a connection may buffer in each direction. Beyond this and the next, hyper answers 431 itself; below,
/// `guard::framing` does, as the API answers.
const BUFFER_BYTES: usize = 2 * guard::MAX_HEAD_BYTES;
const MAX_HEADERS: usize = 2 * guard::MAX_HEADERS;

/// Binds `addr`. Only within a runtime.
///
/// # Errors
/// Names the address and, when it is taken, what to do.
pub fn bind(addr: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Else nothing can listen here for a minute after a restart.
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)?.into_std()
    };
    listen().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{setting}: {addr} is in use by another process; stop it or choose another address")
        }
        _ => anyhow::anyhow!("{setting}: cannot listen on {addr}: {error}"),
    })
}

impl Patience {
    /// As the settings have it.
    #[must_use]
    pub fn of(settings: &config::Http) -> Self {
        let (head, stall) = (settings.header_timeout_ms, settings.stall_timeout_ms);
        Self { head: Duration::from_millis(head), idle: IDLE, stall: Duration::from_millis(stall) }
    }
}

/// Serves `router` on a bound listener, over TLS if there is one, until `handle` shuts it down.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    handle: Handle<SocketAddr>,
    patience: Patience,
    tls: Option<RustlsConfig>,
) -> io::Result<()> {
    // HTTP/2 would want limits of its own; without TLS only balancers speak it.
    let mut server = axum_server::from_tcp(listener)?.handle(handle).http1_only().accept_error_handler(not_accepted);
    server
        .http_builder()
        .http1()
        // Kept by TakingTurns, which tells a head from an idle connection.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let plain = StallGuard(patience.stall);
    match tls {
        None => server.acceptor(TakingTurns { inner: plain, patience }).serve(service).await,
        Some(config) => {
            let inner = RustlsAcceptor::new(config).handshake_timeout(patience.head).acceptor(plain);
            server.acceptor(TakingTurns { inner, patience }).serve(service).await
        }
    }
}

fn not_accepted(peer: Option<&SocketAddr>, error: &io::Error) {
    if let Some(peer) = peer {
        // A handshake that failed is the client's affair, and anybody can make any number of them.
        tracing::debug!(%peer, %error, "a connection was not accepted");
    } else {
        tracing::warn!(%error, "no connection can be accepted");
    }
}
