//! haproxy before two servers, as a site has it: it asks each once a second whether it is ready.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{eventually, files::TempDir, process::free_addresses_of};

pub struct Balancer {
    pub address: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Balancer {
    /// Before these, which it calls s0, s1 …
    pub async fn before(servers: &[SocketAddr]) -> Self {
        Self::start(servers, "http", "").await
    }

    /// Before servers that do TLS themselves: it passes on what it cannot read.
    pub async fn before_tls(servers: &[SocketAddr]) -> Self {
        Self::start(servers, "tcp", " check-ssl verify none").await
    }

    async fn start(servers: &[SocketAddr], mode: &str, options: &str) -> Self {
        let (dir, [address]) = (TempDir::create(), free_addresses_of(servers[0].ip()));
        let lines: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(n, server)| format!("    server s{n} {server} check{options}\n"))
            .collect();
        let file = dir.file(
            "haproxy.cfg",
            &format!(
                "global\n    stats socket {}/haproxy.sock\n\
                 defaults\n    mode {mode}\n    timeout connect 1s\n    timeout client 30s\n    timeout server 30s\n\
                 frontend public\n    bind {address}\n    default_backend api\n\
                 backend api\n    balance roundrobin\n    option httpchk GET /health/ready\n    \
                 default-server inter 1s fall 2 rise 1\n{}",
                dir.text(),
                lines.concat()
            ),
        );
        let spawned = Command::new("haproxy").args(["-db", "-q", "-f", &file]).stdin(Stdio::null()).spawn();
        let child = spawned.expect("haproxy is missing: install the package haproxy (make faults does)");
        let balancer = Self { address, dir, child };
        for server in 0..servers.len() {
            balancer.wait_until(server, "UP").await;
        }
        balancer
    }

    /// It stays, and serves nobody.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until it takes a server for this.
    pub async fn wait_until(&self, server: usize, status: &str) {
        let name = format!("api,s{server},");
        let says = async || {
            let mut socket = UnixStream::connect(self.dir.path().join("haproxy.sock")).await.ok()?;
            socket.write_all(b"show stat\n").await.ok()?;
            let mut text = String::new();
            socket.read_to_string(&mut text).await.ok()?;
            // The eighteenth column.
            text.lines().find(|line| line.starts_with(&name))?.split(',').nth(17).filter(|is| *is == status).map(drop)
        };
        eventually(&format!("haproxy has s{server} {status}"), says).await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
