//! Three primaries on loopback.

use std::time::{Duration, Instant};

use crate::server::{Raw, Server};

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let options = ["cluster-enabled yes", "cluster-node-timeout 2000"];
        let servers: Vec<Server> = (0..3).map(|_| Server::start(&options)).collect();
        for (server, range) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            server.raw().run(&format!("CLUSTER ADDSLOTSRANGE {range}"));
        }
        for (epoch, server) in servers.iter().enumerate() {
            server.raw().run(&format!("CLUSTER SET-CONFIG-EPOCH {}", epoch + 1));
        }
        for other in &servers[1..] {
            servers[0].raw().run(&format!("CLUSTER MEET 127.0.0.1 {}", other.port));
        }
        let cluster = Self { servers };
        cluster.wait();
        cluster
    }

    /// Until every server knows every slot.
    pub(crate) fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for server in &self.servers {
            while !server.raw().text("CLUSTER INFO").contains("cluster_state:ok") {
                assert!(Instant::now() < deadline, "the cluster did not come up");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        self.servers[0].url()
    }

    pub(crate) fn raws(&self) -> Vec<Raw> {
        self.servers.iter().map(Server::raw).collect()
    }

    /// Runs a command where its key is.
    pub(crate) fn bytes(&self, command: &[&[u8]], raws: &mut [Raw]) {
        for raw in raws.iter_mut() {
            match raw.try_run(command) {
                Err(error) if error.code() == Some("MOVED") => {}
                done => return drop(done.unwrap()),
            }
        }
        panic!("no server took {command:?}");
    }
}
