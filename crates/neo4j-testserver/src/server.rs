//! One server: its folder, its process.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{artifacts, http};

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The password of the user `neo4j`; `None`: the server asks for none.
    pub password: Option<String>,
    /// The heap, as Java has it: `512m`.
    pub heap: String,
    /// More lines of `neo4j.conf`.
    pub settings: Vec<(String, String)>,
    /// Compiles quickly and not well: starts twice as fast, and is not for measuring.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { password: None, heap: "512m".to_owned(), settings: Vec::new(), quick: true }
    }
}

/// A server, or one that can be started again. Its folder goes with it.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    options: Options,
    ports: (u16, u16),
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    /// Ends Java as soon as its standard input ends.
    shell: Child,
    java: u32,
}

/// Starts Java, says which process it is, waits for the end of its input, and ends it. The folder
/// goes if it lies there with nobody left to remove it: this process died without dropping.
const SHELL: &str = r#"
    exec 2>/dev/null; folder=$1 log=$2; shift 2
    "$@" >>"$log" 2>&1 </dev/null & java=$!
    echo $java
    if read -r how && [ "$how" = stop ]; then
        kill $java 2>/dev/null; wait $java
    else
        kill -9 $java 2>/dev/null; wait $java; rm -rf "$folder"
    fi
"#;

const JAVA: [&str; 4] = [
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "-XX:+UseSerialGC",
];
const QUICK: &str = "-XX:TieredStopAtLevel=1";
const START: Duration = Duration::from_secs(180);

impl Server {
    /// Starts an empty server on free ports, and waits until it answers.
    ///
    /// # Errors
    /// No artifacts, or a server that does not start: the end of its log.
    pub fn start(options: Options) -> io::Result<Self> {
        // Memory: a store is many small synced files.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        Self::start_in(folder, options)
    }

    /// Starts a server whose folder lies below `place`, such as a small or slow file system.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_below(place: &Path, options: Options) -> io::Result<Self> {
        Self::start_in(tempfile::tempdir_in(place)?, options)
    }

    fn start_in(folder: TempDir, options: Options) -> io::Result<Self> {
        let ports = (free_port()?, free_port()?);
        let mut server = Self { folder, options, ports, process: None };
        server.configure()?;
        if let Some(password) = server.options.password.clone() {
            server.admin(["dbms", "set-initial-password", &password])?;
        }
        server.start_again()?;
        Ok(server)
    }

    /// Where the Bolt protocol is spoken: `bolt://127.0.0.1:…`.
    #[must_use]
    pub fn bolt_url(&self) -> String {
        format!("bolt://127.0.0.1:{}", self.ports.0)
    }

    /// The same without the scheme.
    #[must_use]
    pub fn bolt_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.0)
    }

    /// The folder that holds `conf`, `data` and `logs`.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The process that is the server, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.java)
    }

    /// Runs a statement over HTTP and returns its rows, each an array of typed values:
    /// `{"$type":"Integer","_value":"1"}`. Parameters are plain JSON.
    ///
    /// # Errors
    /// What the server says.
    pub fn cypher(&self, statement: &str, parameters: Value) -> io::Result<Vec<Value>> {
        self.query(statement, &parameters, false)
    }

    /// As [`cypher`](Self::cypher), with parameters that are typed values as well: so they can be
    /// bytes, or NaN.
    ///
    /// # Errors
    /// What the server says.
    pub fn cypher_typed(&self, statement: &str, parameters: Value) -> io::Result<Vec<Value>> {
        self.query(statement, &parameters, true)
    }

    fn query(&self, statement: &str, parameters: &Value, typed: bool) -> io::Result<Vec<Value>> {
        let credentials = self.options.password.as_deref().map(|password| ("neo4j", password));
        http::query(self.ports.1, credentials, statement, parameters, typed)
    }

    /// Removes all nodes, relationships, constraints and indexes but those of a new database.
    ///
    /// # Errors
    /// What the server says.
    pub fn clear(&self) -> io::Result<()> {
        let none = || serde_json::json!({});
        self.cypher("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS", none())?;
        for what in ["CONSTRAINT", "INDEX"] {
            let names = match what {
                "CONSTRAINT" => "SHOW CONSTRAINTS YIELD name",
                _ => "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name",
            };
            for row in self.cypher(names, none())? {
                let name = row[0]["_value"].as_str().unwrap_or_default().replace('`', "``");
                self.cypher(&format!("DROP {what} `{name}`"), none())?;
            }
        }
        for (name, pattern, what) in
            [("node", "(n)", "labels(n)"), ("relationship", "()-[r]-()", "type(r)")]
        {
            self.cypher(
                &format!(
                    "CREATE LOOKUP INDEX {name}_lookup IF NOT EXISTS FOR {pattern} ON EACH {what}"
                ),
                none(),
            )?;
        }
        Ok(())
    }

    /// Stops the server as an operator does.
    ///
    /// # Errors
    /// A process that cannot be waited for.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if let Some(mut input) = process.shell.stdin.take() {
            io::Write::write_all(&mut input, b"stop\n")?;
        }
        process.shell.wait().map(drop)
    }

    /// Kills the server, as a power failure would.
    ///
    /// # Errors
    /// A process that cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        Command::new("kill").args(["-9", &process.java.to_string()]).status()?;
        // Now it finds nothing to end, and keeps the folder.
        if let Some(mut input) = process.shell.stdin.take() {
            io::Write::write_all(&mut input, b"stop\n")?;
        }
        process.shell.wait().map(drop)
    }

    /// Starts a server that was stopped or killed, in the same folder and on the same ports.
    ///
    /// # Errors
    /// A server that does not start: the end of its log.
    pub fn start_again(&mut self) -> io::Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "sh"]).arg(self.home()).arg(self.log());
        command.arg(artifacts::java()).arg(format!("-Xmx{}", self.options.heap));
        command.args(JAVA).args(self.options.quick.then_some(QUICK));
        command.arg("-cp").arg(artifacts::class_path()?);
        command.arg("org.neo4j.server.CommunityEntryPoint").args(self.places());
        // An interrupt of the tests goes to their group; the pipe's end is what counts here.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut shell = command.spawn()?;
        let mut line = String::new();
        if let Some(output) = shell.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let java = line.trim().parse().map_err(io::Error::other)?;
        self.process = Some(Process { shell, java });
        let until = Instant::now() + START;
        while self.cypher("RETURN 1", serde_json::json!({})).is_err() {
            let runs = Path::new(&format!("/proc/{java}")).exists();
            if !runs || Instant::now() > until {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let end = log.lines().rev().take(20).collect::<Vec<_>>();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(io::Error::other(format!("Neo4j does not start:\n{end}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs `neo4j-admin` in the server's folder: `["database", "dump", …]`.
    ///
    /// # Errors
    /// What it prints, where it fails.
    pub fn admin<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> io::Result<Output> {
        let mut command = self.admin_command()?;
        let output = command.args(arguments).output()?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        Err(io::Error::other(String::from_utf8_lossy(&said).into_owned()))
    }

    /// The command that is `neo4j-admin` for this server's folder, without arguments.
    ///
    /// # Errors
    /// No artifacts.
    pub fn admin_command(&self) -> io::Result<Command> {
        let mut command = Command::new(artifacts::java());
        command.args(JAVA).arg(QUICK).arg("-cp").arg(artifacts::class_path()?);
        command.arg("org.neo4j.cli.AdminTool");
        command.env("NEO4J_HOME", self.home()).env("NEO4J_CONF", self.home().join("conf"));
        Ok(command)
    }

    fn places(&self) -> [String; 2] {
        let home = self.home().display();
        [format!("--home-dir={home}"), format!("--config-dir={home}/conf")]
    }

    fn log(&self) -> PathBuf {
        self.home().join("console.log")
    }

    fn configure(&self) -> io::Result<()> {
        let (bolt, http) = self.ports;
        let authentication = self.options.password.is_some();
        let mut lines = format!(
            "server.default_listen_address=127.0.0.1\n\
             server.bolt.listen_address=127.0.0.1:{bolt}\n\
             server.http.listen_address=127.0.0.1:{http}\n\
             server.https.enabled=false\n\
             server.memory.pagecache.size=64m\n\
             dbms.security.auth_enabled={authentication}\n\
             dbms.usage_report.enabled=false\n\
             db.tx_log.preallocate=false\n"
        );
        for (name, value) in &self.options.settings {
            lines.push_str(&format!("{name}={value}\n"));
        }
        let folder = self.home().join("conf");
        fs::create_dir_all(&folder)?;
        File::create(self.log())?;
        fs::write(folder.join("neo4j.conf"), lines)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        drop(process.shell.stdin.take());
        drop(process.shell.wait());
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
