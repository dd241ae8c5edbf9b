//! The network between a server and what it stands on, which a test can cut, darken, slow down and mend.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{database::TestDatabase, eventually, redis::TestRedis};

/// What becomes of the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// They take so much longer, each piece in each direction.
    Slow(Duration),
    /// So many pass in a second.
    Narrow(u32),
    /// None pass, though connections are taken. Those that were open in the dark stay in it for ever, and nobody is
    /// told: so it is when a firewall has forgotten them.
    Dark,
}

/// Who is on the other side.
#[derive(Clone, Debug)]
enum Upstream {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    weather: watch::Sender<Weather>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Between a server and its database: [`options_over`] say how to reach it.
    pub async fn before(database: &TestDatabase) -> Self {
        let options = database.options();
        let socket = options.get_socket().unwrap().join(format!(".s.PGSQL.{}", options.get_port()));
        Self::to(Upstream::Unix(socket)).await
    }

    pub async fn before_redis(redis: &TestRedis) -> Self {
        Self::to(Upstream::Unix(redis.socket())).await
    }

    pub async fn before_address(address: SocketAddr) -> Self {
        Self::to(Upstream::Tcp(address)).await
    }

    async fn to(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self { address, upstream, weather: watch::Sender::new(Weather::Fair), listening: None };
        proxy.listen(listener);
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach this database through it.
    pub fn options_over(&self, database: &TestDatabase) -> PgConnectOptions {
        let options = database.options();
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.address.port())
            .username(options.get_username())
            .database(options.get_database().unwrap())
    }

    /// The same as a DATABASE_URL.
    pub fn url_over(&self, database: &TestDatabase) -> String {
        let options = database.options();
        format!("postgres://{}@{}/{}", options.get_username(), self.address, options.get_database().unwrap())
    }

    /// Breaks every connection and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            assert!(listening.await.unwrap_err().is_cancelled());
        }
    }

    /// From here on, for connections that are open too.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Goes dark: connections stay, new ones are taken, and nothing comes through.
    pub fn freeze(&self) {
        self.turn(Weather::Dark);
    }

    /// As at the start, for new connections.
    pub async fn mend(&mut self) {
        self.turn(Weather::Fair);
        if self.listening.is_none() {
            let bind = async || TcpListener::bind(self.address).await.ok();
            let listener = eventually("the port is free again", bind).await;
            self.listen(listener);
        }
    }

    fn listen(&mut self, listener: TcpListener) {
        let (upstream, weather) = (self.upstream.clone(), self.weather.subscribe());
        self.listening = Some(tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(forward(client, upstream.clone(), weather.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

async fn forward(client: TcpStream, upstream: Upstream, mut weather: watch::Receiver<Weather>) {
    let seen = weather.clone();
    // Else small pieces wait for each other.
    let _ = client.set_nodelay(true);
    let through = async {
        match upstream {
            Upstream::Unix(path) => exchange(client, UnixStream::connect(path).await?, &seen).await,
            Upstream::Tcp(address) => exchange(client, TcpStream::connect(address).await?, &seen).await,
        }
    };
    tokio::pin!(through);
    tokio::select! {
        biased;
        _ = weather.wait_for(|weather| *weather == Weather::Dark) => {}
        _ = &mut through => return,
    }
    // Until whoever listens is no more, it holds the connection, and what it has of it.
    std::future::pending::<()>().await;
}

async fn exchange(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    weather: &watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    // Whichever side ends first ends both.
    tokio::select! {
        ended = pump(&mut from_client, &mut to_server, weather) => ended,
        ended = pump(&mut from_server, &mut to_client, weather) => ended,
    }
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    weather: &watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let weather = *weather.borrow();
        match weather {
            Weather::Fair | Weather::Dark => {}
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Narrow(rate) => {
                let bytes = u32::try_from(count).unwrap();
                tokio::time::sleep(Duration::from_secs(1) * bytes / rate).await;
            }
        }
        to.write_all(&buffer[..count]).await?;
    }
}
