//! Real servers, each on a free port and in a folder of its own.

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server, which ends with this value.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
    options: Vec<String>,
    sentinel: bool,
}

/// `REDIS_SERVER` names another one than the system's: a newer one has types that are tested, too.
fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Whether there is a server to test with; says so where there is none.
pub(crate) fn available() -> bool {
    let found = Command::new(program()).arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    said_aloud("redis-server is not there: install it with .ci/setup");
    false
}

/// Says that a test was skipped, and fails where that is not allowed.
pub(crate) fn said_aloud(why: &str) {
    assert!(std::env::var_os("BACKUP_KIT_REQUIRE").is_none(), "{why}");
    #[expect(clippy::print_stderr, reason = "a skip is said aloud")]
    {
        eprintln!("SKIPPED: {why}");
    }
}

impl Server {
    /// A server without persistence, with these lines in its configuration.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            child: None,
            port: free_port(),
            folder,
            options: options.iter().map(|line| (*line).to_owned()).collect(),
            sentinel: false,
        };
        server.restart();
        server
    }

    /// A sentinel.
    pub(crate) fn start_sentinel(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options.iter().map(|line| (*line).to_owned()).collect();
        let mut server = Self { child: None, port: free_port(), folder, options, sentinel: true };
        server.restart();
        server
    }

    /// Starts it again after [`kill`](Self::kill), on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let config = self.folder.path().join("redis.conf");
        let mut lines = vec![
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            "enable-debug-command yes".to_owned(),
            "repl-diskless-sync yes".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        // With RedisJSON its documents are among the types.
        if let Ok(module) = std::env::var("REDIS_JSON") {
            lines.push(format!("loadmodule {module}"));
        }
        if self.sentinel {
            lines.clear();
        }
        lines.push(format!("dir {}", self.folder.path().display()));
        if !self.options.iter().any(|line| line.starts_with("bind ")) {
            lines.push("bind 127.0.0.1".to_owned());
        }
        if !self.options.iter().any(|line| line.starts_with("port ")) {
            lines.push(format!("port {}", self.port));
        }
        lines.extend(self.options.iter().cloned());
        fs::write(&config, lines.join("\n")).unwrap();
        let mut command = Command::new(program());
        command.arg(&config);
        if self.sentinel {
            command.arg("--sentinel");
        }
        let child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.log()).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not start: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it wrote to its log.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free now, and whose cluster bus would be below 65536.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Replies to commands, one after the other, over a plain connection.
pub(crate) struct Raw(redis::Connection);

impl Raw {
    pub(crate) fn to(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match client.get_connection() {
                Ok(connection) => return Self(connection),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn try_run(&mut self, command: &[&[u8]]) -> redis::RedisResult<redis::Value> {
        let mut cmd = redis::Cmd::new();
        for part in command {
            cmd.arg(*part);
        }
        cmd.query(&mut self.0)
    }

    pub(crate) fn bytes(&mut self, command: &[&[u8]]) -> redis::Value {
        self.try_run(command).unwrap_or_else(|e| {
            let words: Vec<_> = command.iter().map(|w| String::from_utf8_lossy(w)).collect();
            panic!("{words:?}: {e}")
        })
    }

    /// A command in words.
    pub(crate) fn run(&mut self, command: &str) -> redis::Value {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.bytes(&words)
    }

    pub(crate) fn strings(&mut self, command: &[&[u8]]) -> Vec<Vec<u8>> {
        redis::from_redis_value(self.bytes(command)).unwrap()
    }

    pub(crate) fn text(&mut self, command: &str) -> String {
        redis::from_redis_value(self.run(command)).unwrap()
    }
}

impl Server {
    pub(crate) fn raw(&self) -> Raw {
        Raw::to(&self.url())
    }
}

/// Whether a server has a command.
pub(crate) fn has(raw: &mut Raw, command: &str) -> bool {
    raw.run(&format!("COMMAND INFO {command}")) != redis::Value::Array(vec![redis::Value::Nil])
}

/// Every key of the database with its digest and deadline, in order.
pub(crate) fn content(raw: &mut Raw) -> Vec<String> {
    let mut keys = raw.strings(&[b"KEYS", b"*"]);
    keys.retain(|key| !key.starts_with(b"backup-kit:"));
    keys.sort();
    keys.iter()
        .map(|key| {
            let digest: Vec<String> =
                redis::from_redis_value(raw.bytes(&[b"DEBUG", b"DIGEST-VALUE", key])).unwrap();
            let at: i64 = redis::from_redis_value(raw.bytes(&[b"PEXPIRETIME", key])).unwrap();
            format!("{:?} {digest:?} {at}", String::from_utf8_lossy(key))
        })
        .collect()
}

/// Names of all that restores leave in any database, and which databases hold something.
pub(crate) fn leftovers(raw: &mut Raw) -> Vec<String> {
    let keyspace = raw.text("INFO keyspace");
    let mut found = Vec::new();
    for line in keyspace.lines().filter(|line| line.starts_with("db")) {
        let db = line[2..].split(':').next().unwrap().to_owned();
        raw.run(&format!("SELECT {db}"));
        for key in raw.strings(&[b"KEYS", b"backup-kit:*"]) {
            found.push(format!("{db}: {}", String::from_utf8_lossy(&key)));
        }
        if db != "0" {
            found.push(format!("database {db}"));
        }
    }
    raw.run("SELECT 0");
    found.sort();
    found
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
