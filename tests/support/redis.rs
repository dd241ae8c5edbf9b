//! A Redis of a test's own, on a socket in a directory of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::sleep,
};

use super::{eventually, files::TempDir};

pub struct TestRedis {
    dir: TempDir,
    child: Option<Child>,
}

impl TestRedis {
    pub async fn start() -> Self {
        let mut redis = Self { dir: TempDir::create(), child: None };
        redis.restart().await;
        redis
    }

    /// As a REDIS_URL.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Starts it again, with what it saved, and waits until it answers.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(spawned.expect("redis-server is missing: install the package redis-server (make test does)"));
        eventually("Redis answers", async || self.ask::<String>(&["PING"]).await.ok()).await;
    }

    /// What it says to one command.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        tokio::time::timeout(Duration::from_secs(10), command.query_async(&mut connection)).await.unwrap()
    }

    /// Ends it, as a crash would.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// Ends it in good order, with all that it has saved for the next start.
    pub async fn stop_with_data(&mut self) {
        // It has no answer to this.
        let _ = self.ask::<()>(&["SHUTDOWN", "SAVE"]).await;
        assert!(self.child.take().unwrap().wait().unwrap().success());
        assert!(self.dir.path().join("dump.rdb").exists());
    }

    /// It stays, and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A long way to Redis: its answers arrive late, by turns as late as each of these.
pub struct LongWay {
    url: String,
    delays: watch::Sender<Vec<Duration>>,
}

impl LongWay {
    pub async fn to(redis: &TestRedis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (socket, delays) = (redis.socket(), watch::Sender::new(vec![Duration::ZERO]));
        let late = delays.subscribe();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(client, UnixStream::connect(&socket).await.unwrap(), late.clone()));
            }
        });
        Self { url, delays }
    }

    /// As a REDIS_URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn take(&self, milliseconds: &[u64]) {
        self.delays.send_replace(milliseconds.iter().copied().map(Duration::from_millis).collect());
    }
}

async fn carry(client: TcpStream, server: UnixStream, delays: watch::Receiver<Vec<Duration>>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = async move {
        let mut answer = vec![0; 1 << 16];
        for turn in 0_usize.. {
            let read = from_server.read(&mut answer).await?;
            let delay = {
                let delays = delays.borrow();
                delays[turn % delays.len()]
            };
            sleep(delay).await;
            to_client.write_all(&answer[..read]).await?;
            if read == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = back => {}
    }
}
