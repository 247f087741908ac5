//! What the other tests rely on.

use std::{path::Path, process::Command, thread, time::Duration};

use neo4j_testserver::{Options, Server, available, shared, skip};
use serde_json::json;

const NAMES: &str = "MATCH (n:Person) RETURN n.name";

#[test]
fn a_shared_server_is_empty_for_each() {
    for name in ["Ada", "Grace"] {
        let Some(server) = shared() else { return };
        assert!(server.cypher(NAMES, json!({})).expect("rows").is_empty());
        server
            .cypher("CREATE CONSTRAINT c FOR (p:Person) REQUIRE p.name IS UNIQUE", json!({}))
            .expect("made");
        server.cypher("CREATE (:Person {name: $name})", json!({ "name": name })).expect("made");
        let rows = server.cypher(NAMES, json!({})).expect("rows");
        assert_eq!(rows, [json!([{"$type": "String", "_value": name}])]);
    }
}

#[test]
fn a_server_is_killed_stopped_dumped_and_started_again() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let options = Options { password: Some("correct horse".to_owned()), ..Options::default() };
    let mut server = Server::start(options).expect("a server");
    server.cypher("CREATE (:Person {name: 'Ada'})", json!({})).expect("made");
    server.kill().expect("killed");
    assert!(server.cypher(NAMES, json!({})).is_err());
    server.start_again().expect("started");
    assert_eq!(server.cypher(NAMES, json!({})).expect("rows").len(), 1);
    let refused = server.admin(["database", "dump", "neo4j", "--to-path=/nowhere"]);
    assert!(refused.is_err(), "a database in use is not dumped");
    server.stop().expect("stopped");
    let to = format!("--to-path={}", server.home().display());
    server.admin(["database", "dump", "neo4j", &to]).expect("dumped");
    assert!(server.home().join("neo4j.dump").is_file());
}

/// Set where this very test is the process that dies.
const DIES: &str = "NEO4J_TESTSERVER_DIES";

#[test]
fn a_server_ends_with_its_process() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    if let Some(say) = std::env::var_os(DIES) {
        let server = Server::start(Options::default()).expect("a server");
        let said = format!("{}\n{}", server.process_id().expect("runs"), server.home().display());
        std::fs::write(say, said).expect("written");
        std::process::abort();
    }
    let say = tempfile::NamedTempFile::new().expect("a file");
    let died = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_server_ends_with_its_process"])
        .env(DIES, say.path())
        .output()
        .expect("it ran");
    assert!(!died.status.success());
    let said = std::fs::read_to_string(say.path()).expect("said");
    let (java, home) = said.split_once('\n').expect("two lines");
    for _ in 0..100 {
        if !Path::new(&format!("/proc/{java}")).exists() && !Path::new(home).exists() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the server outlives its process");
}
