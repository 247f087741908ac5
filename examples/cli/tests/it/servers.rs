//! Stores at servers: what is said where the tool was built without them, and where none answers.

use crate::world::{CONFIG, World};

fn world(kind: &str, more: &str) -> World {
    // Nothing listens there: the port is taken, and given back.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let scheme = match kind {
        "qdrant" => "http",
        "redis" => "redis",
        _ => "bolt",
    };
    let store = format!("[[store]]\nname = \"far\"\nkind = \"{kind}\"\n");
    World::with(&format!("{CONFIG}\n{store}url = \"{scheme}://127.0.0.1:{port}\"\n{more}"))
}

/// The kinds, and whether the tool was built with them.
const KINDS: [(&str, bool); 3] = [
    ("qdrant", cfg!(feature = "qdrant")),
    ("redis", cfg!(feature = "redis")),
    ("neo4j", cfg!(feature = "neo4j")),
];

#[test]
fn a_kind_that_is_not_built_in_names_its_feature() {
    for (kind, _) in KINDS.into_iter().filter(|(_, built)| !built) {
        let world = world(kind, "");
        let ran = world.run(&["create"]);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.err.contains(&format!("has no stores of kind {kind}")), "{ran:#?}");
        assert!(ran.err.contains("(far)"), "{ran:#?}");
        assert!(ran.err.contains(&format!("--features {kind}")), "{ran:#?}");
        assert_eq!(world.list("backups"), [""; 0], "{kind}");
        // What needs no store works.
        world.good(&["list"]);
    }
}

#[test]
fn a_server_that_does_not_answer_is_named_and_secrets_are_not() {
    let key = |kind| if kind == "qdrant" { "api_key" } else { "password" };
    for (kind, _) in KINDS.into_iter().filter(|(_, built)| *built) {
        let secret = format!("{} = {{ command = [\"echo\", \"hunter2\"] }}\n", key(kind));
        let needed = world(kind, &secret);
        let ran = needed.run(&["create"]);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.err.contains("far"), "{ran:#?}");
        assert!(!ran.err.contains("hunter2"), "{ran:#?}");
        assert_eq!(needed.list("backups").len(), 1, "only the lock: {:?}", needed.list("backups"));

        let optional = world(kind, &format!("optional = true\n{secret}"));
        let ran = optional.run(&["create", "--json"]);
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        assert_eq!(ran.document()["missing"][0], "far", "{ran:#?}");
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:#?}");

        let without = world(kind, &format!("{} = {{ env = \"NO_SUCH_VARIABLE\" }}\n", key(kind)));
        let ran = without.run(&["create"]);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.err.contains("NO_SUCH_VARIABLE"), "{ran:#?}");
    }
}
