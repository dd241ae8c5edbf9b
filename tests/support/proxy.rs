//! The network between the server and PostgreSQL, which a test can cut, freeze and mend.

use std::{net::SocketAddr, path::PathBuf};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{database::TestDatabase, eventually};

pub struct Proxy {
    address: SocketAddr,
    upstream: PathBuf,
    options: PgConnectOptions,
    frozen: watch::Sender<bool>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    pub async fn before(database: &TestDatabase) -> Self {
        let options = database.options();
        let socket = options.get_socket().unwrap().join(format!(".s.PGSQL.{}", options.get_port()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self { address, upstream: socket, options, frozen: watch::Sender::new(false), listening: None };
        proxy.listen(listener);
        proxy
    }

    /// How to reach the database through it.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.address.port())
            .username(self.options.get_username())
            .database(self.options.get_database().unwrap())
    }

    /// Breaks every connection and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            assert!(listening.await.unwrap_err().is_cancelled());
        }
    }

    /// Goes dark: connections stay, new ones are taken, and nothing comes through.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// As at the start. Connections that were frozen break.
    pub async fn mend(&mut self) {
        self.frozen.send_replace(false);
        if self.listening.is_none() {
            let bind = async || TcpListener::bind(self.address).await.ok();
            let listener = eventually("the port is free again", bind).await;
            self.listen(listener);
        }
    }

    fn listen(&mut self, listener: TcpListener) {
        let (upstream, frozen) = (self.upstream.clone(), self.frozen.subscribe());
        self.listening = Some(tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(forward(client, upstream.clone(), frozen.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

async fn forward(mut client: TcpStream, upstream: PathBuf, mut frozen: watch::Receiver<bool>) {
    let through = async {
        let mut server = UnixStream::connect(upstream).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        biased;
        _ = frozen.wait_for(|frozen| *frozen) => {}
        _ = through => return,
    }
    let _ = frozen.wait_for(|frozen| !*frozen).await;
}
