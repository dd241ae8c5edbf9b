//! Listeners: bound before anything slow happens, so that a taken port is known at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use hyper_util::rt::TokioTimer;

use super::stall::StallGuard;

/// A client that has not sent a whole head by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes nothing of its answer for so long is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds `addr`.
///
/// # Errors
/// Names the address and, when it is taken, what to do.
pub fn bind(addr: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{setting}: {addr} is in use by another process; stop it or choose another address")
        }
        _ => anyhow::anyhow!("{setting}: cannot listen on {addr}: {error}"),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("{setting}: {addr}"))?;
    Ok(listener)
}

/// Serves `router` on a bound listener until `handle` shuts it down.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, router: Router, handle: Handle<SocketAddr>) -> io::Result<()> {
    // HTTP/2 without TLS is only ever spoken to balancers, and would escape the limits below.
    let mut server = axum_server::from_tcp(listener)?
        .handle(handle)
        .http1_only()
        .first_request_timeout(HEADER_TIMEOUT)
        .acceptor(StallGuard(WRITE_TIMEOUT));
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_headers(64);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}
