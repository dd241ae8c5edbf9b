//! The real binary as a child process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{JWT_SECRET, PEPPER, watch};

const STARTUP: Duration = Duration::from_mins(1);
/// How long a command may take that ends by itself.
const COMMAND: Duration = Duration::from_mins(5);
/// A child that does not stop by then is killed and the test fails.
const SHUTDOWN: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "these functions block by nature; callers give them a thread")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// What no server starts without.
pub fn secrets() -> [(&'static str, String); 2] {
    [("SWITCHBOARD_JWT_SECRET", JWT_SECRET.to_owned()), ("SWITCHBOARD_PASSWORD_PEPPER", PEPPER.to_owned())]
}

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

/// `switchboard serve` with a file system of its own in `dir`, mounted with these options. Linux only.
fn on_a_mount(dir: &str, options: &str) -> Command {
    let mut command = Command::new("unshare");
    // Who is not root may mount in a namespace of users where they are.
    command.arg(if nix::unistd::getuid().is_root() { "-m" } else { "-rm" });
    let mount = "mount -t tmpfs -o \"$1\" switchboard \"$2\" && exec \"$0\" serve";
    command.args(["sh", "-c", mount, env!("CARGO_BIN_EXE_switchboard"), options, dir]);
    command.env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::var("PATH").unwrap());
    command
}

/// How it ends when it cannot even start.
pub fn run_on_a_mount(dir: &str, options: &str, environment: &[(&str, String)]) -> Outcome {
    let mut command = on_a_mount(dir, options);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    end(command, "serve", b"")
}

/// Addresses that nobody listens on.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    free_addresses_of(Ipv4Addr::LOCALHOST.into())
}

/// The same on another address of this machine.
pub fn free_addresses_of<const N: usize>(ip: IpAddr) -> [SocketAddr; N] {
    // Held together, so that they differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((ip, 0)).unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap())
}

/// An address of loopback that no other process uses, so that what is stopped for minutes finds its port free when it
/// comes back. Linux has sixteen million of them.
pub fn own_loopback() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // 127.0 is where everybody else is.
    Ipv4Addr::new(127, high | 128, middle, low).into()
}

/// The settings of where a server listens.
pub fn addresses(public: SocketAddr, ops: SocketAddr) -> [(&'static str, String); 2] {
    [("SWITCHBOARD_HTTP_ADDR", public.to_string()), ("SWITCHBOARD_OPS_ADDR", ops.to_string())]
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Checks that it ended well; what it printed.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Checks that it failed with this code and one line; the line.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "not one line: {self:#?}");
        assert!(self.stderr.starts_with("switchboard: "), "{self:#?}");
        self.stderr.trim_end().to_owned()
    }
}

/// Runs `switchboard` to its end.
pub fn run(arguments: &[&str], environment: &[(&str, String)], input: &[u8]) -> Outcome {
    let mut command = command(arguments);
    // Whoever debugs has this set; it must not turn a sentence into a backtrace.
    command.env("RUST_BACKTRACE", "1").envs(environment.iter().map(|(name, value)| (name, value)));
    end(command, &arguments.join(" "), input)
}

fn end(mut command: Command, what: &str, input: &[u8]) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input);
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let Ok(output) = receiver.recv_timeout(COMMAND) else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("{what} does not end: {:?}", receiver.recv());
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// As [`run`], off the asynchronous threads, which serve the database and the other side.
pub async fn run_beside(arguments: &[&str], environment: &[(&'static str, String)]) -> Outcome {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let environment = environment.to_vec();
    let work = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&arguments, &environment, b"")
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A server in a process of its own, on free ports.
pub struct Server {
    pub public: SocketAddr,
    pub ops: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// What went to standard error.
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts `switchboard serve …` and waits until it is ready.
    pub fn start(arguments: &[&str], environment: &[(&str, String)]) -> Self {
        Self::launch(command(&[&["serve"], arguments].concat()), environment)
    }

    /// The same, where no file may grow beyond a megabyte or two: writing on fails, as on a full disk.
    pub fn start_on_a_small_disk(environment: &[(&str, String)]) -> Self {
        let mut shell = Command::new("sh");
        // What a shell ignores, the program that takes its place ignores too.
        shell.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" serve", env!("CARGO_BIN_EXE_switchboard")]);
        shell.env_clear().stdin(Stdio::null());
        Self::launch(shell, environment)
    }

    /// The same with a file system of its own in `dir`, mounted with these options, which nobody else sees.
    pub fn start_on_a_mount(dir: &str, options: &str, environment: &[(&str, String)]) -> Self {
        Self::launch(on_a_mount(dir, options), environment)
    }

    fn launch(command: Command, environment: &[(&str, String)]) -> Self {
        let mut server = Self::spawn(command, environment);
        let ready = server.wait_for_line("ready", |line| line["message"] == "ready");
        server.public = ready["public_addr"].as_str().unwrap().parse().unwrap();
        server.ops = ready["ops_addr"].as_str().unwrap().parse().unwrap();
        server
    }

    /// Starts `switchboard serve …` on addresses that are known, and does not wait for anything.
    pub fn begin(arguments: &[&str], [public, ops]: [SocketAddr; 2], environment: &[(&str, String)]) -> Self {
        let addresses = addresses(public, ops);
        let mut server = Self::spawn(command(&[&["serve"], arguments].concat()), &[environment, &addresses].concat());
        (server.public, server.ops) = (public, ops);
        server
    }

    fn spawn(mut command: Command, environment: &[(&str, String)]) -> Self {
        command.env("SWITCHBOARD_HTTP_ADDR", "127.0.0.1:0").env("SWITCHBOARD_OPS_ADDR", "127.0.0.2:0");
        command.env("SWITCHBOARD_LOG_FORMAT", "json").env("SWITCHBOARD_SHUTDOWN_DELAY_MS", "0");
        if watch::on() {
            command.env("SWITCHBOARD_LOG_LEVEL", "trace");
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, errors) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (sink, stdout) = (lines.clone(), child.stdout.take().unwrap());
        let out = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                watch::note(watch::LOGS, &line);
                sink.lock().unwrap().push(line);
            }
        });
        let (sink, mut stderr) = (errors.clone(), child.stderr.take().unwrap());
        let err = std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                watch::note(watch::LOGS, &text);
                sink.lock().unwrap().push_str(&text);
            }
        });
        let unknown = "0.0.0.0:0".parse().unwrap();
        Self { public: unknown, ops: unknown, child, lines, errors, readers: vec![out, err] }
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
                panic!("the server ended with {status} before {what}: {}", self.errors());
            }
            pause();
        }
        panic!("no log line {what}: {:#?}", self.log());
    }

    /// Standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, then the whole log and the exit code.
    pub fn stop(self) -> (Vec<Value>, Option<i32>) {
        self.stop_with(Signal::SIGTERM)
    }

    /// The signal, then the whole log and the exit code; none when the signal ended it.
    pub fn stop_with(mut self, signal: Signal) -> (Vec<Value>, Option<i32>) {
        self.signal(signal);
        let deadline = Instant::now() + SHUTDOWN;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not stop");
            pause();
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (self.log(), status.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
