//! The real binary as a child process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const STARTUP: Duration = Duration::from_secs(60);
/// A child that does not stop by then is killed and the test fails.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// `switchboard` with a clean environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    // Coverage runs say where children write their counts.
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Ok(value) = std::env::var(name) {
            command.env(name, value);
        }
    }
    command
}

/// A server in a process of its own, on free ports.
pub struct Server {
    pub public: SocketAddr,
    pub ops: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts `switchboard serve …` and waits until it is ready.
    pub fn start(arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let mut command = command(&[&["serve"], arguments].concat());
        command.env("SWITCHBOARD_HTTP_ADDR", "127.0.0.1:0").env("SWITCHBOARD_OPS_ADDR", "127.0.0.2:0");
        command.env("SWITCHBOARD_LOG_FORMAT", "json").env("SWITCHBOARD_SHUTDOWN_DELAY_MS", "0");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, stdout) = (lines.clone(), child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let unknown = "0.0.0.0:0".parse().unwrap();
        let mut server = Self { public: unknown, ops: unknown, child, lines, reader: Some(reader) };
        let ready = server.wait_for_line("ready", |line| line["message"] == "ready");
        server.public = ready["public_addr"].as_str().unwrap().parse().unwrap();
        server.ops = ready["ops_addr"].as_str().unwrap().parse().unwrap();
        server
    }

    /// The log so far, each line parsed: a line that is no JSON object fails the test.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    pub fn wait_for_line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + STARTUP;
        while Instant::now() < deadline {
            if let Some(line) = self.log().into_iter().find(|line| wanted(line)) {
                return line;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the server ended with {status} before {what}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no log line {what}: {:#?}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, then the whole log and the exit code.
    pub fn stop(mut self) -> (Vec<Value>, Option<i32>) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + SHUTDOWN;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(50));
        };
        self.reader.take().unwrap().join().unwrap();
        (self.log(), status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
