//! Servers of Qdrant and Redis, each on a free port and as long as its value.

use std::{
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::world::skipped;

/// Of the user `backup` of [`Redis`].
pub(super) const PASSWORD: &str = "of the tests";

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The test server, with the engine of the real one.
pub(super) struct Qdrant {
    _process: Process,
    pub(super) grpc: String,
    pub(super) rest: String,
}

impl Qdrant {
    pub(super) fn start() -> Option<Self> {
        // Not a dependency of these tests: its engine takes minutes to compile, and who builds
        // them all has it beside the tool.
        let program =
            Path::new(env!("CARGO_BIN_EXE_backup-kit")).with_file_name("qdrant-testserver");
        if !program.exists() {
            skipped("four stores at once: cargo build -p qdrant-testserver");
            return None;
        }
        let mut command = Command::new(program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (grpc, rest) = line.trim().split_once(' ').expect("two addresses");
        Some(Self { _process: Process(child), grpc: grpc.to_owned(), rest: rest.to_owned() })
    }

    /// The result of a request.
    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", method, "-H", "content-type: application/json"]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let output = curl.arg(format!("{}{path}", self.rest)).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let mut answer: Value = serde_json::from_str(&text).expect(&text);
        assert_eq!(answer["status"], "ok", "{method} {path}: {text}");
        answer["result"].take()
    }
}

pub(super) struct Redis {
    _process: Process,
    _folder: tempfile::TempDir,
    pub(super) port: u16,
}

impl Redis {
    /// One with the user `backup`, who may do everything.
    pub(super) fn start() -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if found.is_err() {
            skipped("four stores at once: redis-server is not there");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--enable-debug-command", "yes"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { _process: Process(child), _folder: folder, port };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "redis-server did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let rights = ["on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
        redis.ask(&[&["ACL", "SETUSER", "backup"], &rights[..]].concat());
        Some(redis)
    }

    /// What the server answers, as its command line prints it.
    pub(super) fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(["-e", "-p", &self.port.to_string()]).args(command).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }
}
