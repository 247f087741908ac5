//! A server behind TLS: who is trusted, and where the key comes from.

use std::{net::SocketAddr, process::Command, sync::Arc};

use backup_core::{BackupOptions, ErrorKind, RestoreOptions, Stores, archive::Archive};
use backup_qdrant::QdrantStore;
use qdrant_testserver::{Options, TestServer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::fixture::{Site, run, same};

/// Two authorities, and the certificate of a server that the first one signs.
struct Authorities(tempfile::TempDir);

impl Authorities {
    fn new() -> Self {
        let all = Self(tempfile::tempdir().expect("a folder"));
        for ca in ["ca", "other"] {
            let (key, cert) = (all.path(&format!("{ca}.key")), all.path(&format!("{ca}.crt")));
            all.openssl(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout {key} -out {cert}"
            ));
        }
        let (key, request) = (all.path("s.key"), all.path("s.csr"));
        all.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {key} -out {request}"
        ));
        std::fs::write(all.path("ext"), "subjectAltName=DNS:localhost").expect("written");
        all.openssl(&format!(
            "x509 -req -in {request} -CA {} -CAkey {} -CAcreateserial -days 2 -out {} -extfile {}",
            all.path("ca.crt"),
            all.path("ca.key"),
            all.path("s.crt"),
            all.path("ext"),
        ));
        all
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn pem(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a certificate")
    }

    fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl").args(arguments.split(' ')).output().expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Takes TLS on a port of its own, and hands on what comes.
    async fn before(&self, url: &str, protocol: &[u8]) -> String {
        let inside: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let certificate = CertificateDer::from_pem_slice(&self.pem("s.crt")).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&self.pem("s.key")).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate of this key");
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut outside = acceptor.accept(outside).await?;
                    let mut inside = TcpStream::connect(inside).await?;
                    copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        format!("https://localhost:{port}")
    }
}

#[test]
fn a_server_behind_tls_is_trusted_by_its_authority_only() {
    run(async {
        let authorities = Authorities::new();
        let site = Site::start().await;
        if site.faults().is_none() {
            // It says so: what a real server answers goes through no such door.
            return;
        }
        site.create("docs", json!({"vectors": {"size": 2, "distance": "Dot"}})).await;
        let point = |id: u64| json!({"id": id, "vector": [id, 1], "payload": {"n": u64::MAX - id}});
        site.upsert("docs", (1..=50).map(point).collect()).await;
        let before = site.all().await;
        let (grpc, rest) = site.addresses();
        let grpc = authorities.before(grpc, b"h2").await;
        let rest = authorities.before(rest, b"http/1.1").await;
        let at = || QdrantStore::options(&grpc).rest_url(&rest);
        let trusting = |ca: &str| at().root_certificate(authorities.pem(ca));

        // By both interfaces, there and back.
        let store = trusting("ca.crt").connect().await.expect("trusted");
        let memory = Stores::new("test", "1.0.0").with("vectors", store);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar.gz");
        memory.backup_to_file(&path, &BackupOptions::new()).await.expect("a backup");
        site.ask("DELETE", "/collections/docs", Value::Null).await;
        let archive = Archive::open(&path).expect("an archive");
        let bare = RestoreOptions::new().no_safety_backup();
        let plan = memory.plan_restore_with(&archive, &bare).await.expect("a plan");
        assert!(plan.execute().await.expect("a restore").restored());
        same(&site.all().await, &before);

        // Signed by somebody else, and by nobody whom the system trusts; each interface by itself.
        for wrong in [trusting("other.crt"), at()] {
            let error = wrong.connect().await.expect_err("not trusted");
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        }
        let half = QdrantStore::options(&grpc).rest_url(site.addresses().1);
        let store = half.root_certificate(authorities.pem("other.crt")).open().expect("a store");
        let memory = Stores::new("test", "1.0.0").with("vectors", store);
        let path = folder.path().join("b.tar.gz");
        let error = memory.backup_to_file(&path, &BackupOptions::new()).await.expect_err("gRPC");
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        assert!(!path.exists());

        for odd in [&b"no certificate"[..], &[]] {
            let error = at().root_certificate(odd).open().expect_err("no PEM");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        }
    });
}

#[test]
fn the_key_comes_from_a_variable_or_a_file_and_goes_through_tls() {
    run(async {
        let authorities = Authorities::new();
        // A variable that is set whoever runs the tests: its value serves as the key.
        let variable = "CARGO_MANIFEST_DIR";
        let key = std::env::var(variable).expect("set by cargo");
        let options = Options { api_key: Some(key.clone()), ..Options::default() };
        let server = TestServer::start_with(options).await.expect("a server");
        let grpc = authorities.before(&server.grpc_url(), b"h2").await;
        let rest = authorities.before(&server.rest_url(), b"http/1.1").await;
        let at = || {
            QdrantStore::options(&grpc).rest_url(&rest).root_certificate(authorities.pem("ca.crt"))
        };
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("{key}\n")).expect("written");
        for options in [
            at().api_key_env(variable).expect("a variable"),
            at().api_key_file(file.path()).expect("a file"),
        ] {
            assert!(!format!("{options:?}").contains(&key));
            let store = options.connect().await.expect("the right key");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.tar.gz");
            let memory = Stores::new("test", "1.0.0").with("vectors", store);
            memory.backup_to_file(&path, &BackupOptions::new()).await.expect("a backup");
        }
        let error = at().connect().await.expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    });
}
