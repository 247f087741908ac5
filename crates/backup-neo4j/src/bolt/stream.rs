//! The bytes below the messages: TCP, or TLS over it.

use std::{io, sync::Arc, time::Duration};

use backup_core::{Error, ErrorKind, Result};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(20);

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) async fn connect(host: &str, port: u16, tls: bool) -> Result<Self> {
        let connected = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            if !tls {
                return Ok::<_, io::Error>(Self::Plain(stream));
            }
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(config()?));
            Ok(Self::Tls(Box::new(connector.connect(name, stream).await?)))
        };
        match timeout(CONNECT, connected).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => Err(unreachable("Neo4j cannot be reached").because(e)),
            Err(_) => Err(unreachable("Neo4j did not answer in time")),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = async {
            match self {
                Self::Plain(stream) => stream.write_all(bytes).await,
                Self::Tls(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
            }
        };
        written.await.map_err(broken)
    }

    /// Reads more: at least one byte.
    pub(super) async fn read(&mut self, to: &mut BytesMut, patience: Duration) -> Result<()> {
        let read = async {
            match self {
                Self::Plain(stream) => stream.read_buf(to).await,
                Self::Tls(stream) => stream.read_buf(to).await,
            }
        };
        match timeout(patience, read).await {
            Ok(Ok(0)) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(broken(e)),
            Err(_) => Err(unreachable("Neo4j did not answer in time")),
        }
    }
}

fn unreachable(what: &str) -> Error {
    Error::new(ErrorKind::Unreachable, what)
}

fn broken(error: io::Error) -> Error {
    unreachable("the connection to Neo4j broke").because(error)
}

fn config() -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
