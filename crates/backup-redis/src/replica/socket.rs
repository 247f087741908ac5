//! A connection that blocks: plain, through TLS, or over a Unix socket.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backup_core::{Error, ErrorKind, Result};
use redis::ConnectionAddr;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::client::Peer;

/// A connection.
pub(crate) struct Socket {
    stream: Box<dyn Stream>,
    raw: Raw,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// The system's own half of a connection.
enum Raw {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    pub(super) fn connect(peer: &Peer, stop: &Stop) -> Result<Self> {
        let failed = |e: io::Error| {
            Error::new(ErrorKind::Unreachable, "the Redis server cannot be reached")
                .on(&peer.addr)
                .because(e)
        };
        let (stream, raw): (Box<dyn Stream>, Raw) = match &peer.addr {
            ConnectionAddr::Tcp(host, port) => {
                let tcp = dial(host, *port, peer.timeout).map_err(failed)?;
                (Box::new(tcp.try_clone().map_err(failed)?), Raw::Tcp(tcp))
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                let tcp = dial(host, *port, peer.timeout).map_err(failed)?;
                let raw = Raw::Tcp(tcp.try_clone().map_err(failed)?);
                let name = ServerName::try_from(host.clone()).map_err(|e| {
                    Error::new(ErrorKind::InvalidInput, "a server has no name for TLS").because(e)
                })?;
                let config = Arc::new(tls(peer.root_certificate.as_deref())?);
                let tls =
                    ClientConnection::new(config, name).map_err(|e| failed(io::Error::other(e)))?;
                (Box::new(StreamOwned::new(tls, tcp)), raw)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                let unix = std::os::unix::net::UnixStream::connect(path).map_err(failed)?;
                (Box::new(unix.try_clone().map_err(failed)?), Raw::Unix(unix))
            }
            other => {
                let what = "a snapshot cannot be had over this kind of connection";
                return Err(Error::new(ErrorKind::Unsupported, what).on(other));
            }
        };
        stop.hold(&raw)?;
        let socket = Self { stream, raw };
        socket.wait(peer.timeout).map_err(failed)?;
        Ok(socket)
    }

    /// How long the server may be silent.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match &self.raw {
            Raw::Tcp(tcp) => tcp.set_read_timeout(timeout),
            #[cfg(unix)]
            Raw::Unix(unix) => unix.set_read_timeout(timeout),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn dial(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_write_timeout(Some(timeout))?;
                return Ok(tcp);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// As the client's other connections have it: the certificate that is given, or those of the
/// system.
fn tls(root_certificate: Option<&[u8]>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match root_certificate {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(pem) => {
            let bad = "the root certificate cannot be read";
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate
                    .map_err(|e| Error::new(ErrorKind::InvalidInput, bad).because(e))
                    .map(|certificate| roots.add(certificate))?;
                added.map_err(|e| Error::new(ErrorKind::InvalidInput, bad).because(e))?;
            }
        }
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Ends whatever connection is under way, from another thread.
#[derive(Default)]
pub(crate) struct Stop(Mutex<Held>);

#[derive(Default)]
struct Held {
    stopped: bool,
    raw: Option<Raw>,
}

impl Stop {
    fn hold(&self, raw: &Raw) -> Result<()> {
        let raw = match raw {
            Raw::Tcp(tcp) => tcp.try_clone().map(Raw::Tcp),
            #[cfg(unix)]
            Raw::Unix(unix) => unix.try_clone().map(Raw::Unix),
        };
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.raw = Some(raw.map_err(|e| Error::io("a connection cannot be kept", e))?);
        if held.stopped {
            return Err(Error::new(ErrorKind::Cancelled, "nobody waits for the snapshot any more"));
        }
        Ok(())
    }

    /// Ends it; one that is made later ends at once.
    pub(crate) fn end(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.stopped = true;
        // One that is over already cannot be ended.
        match held.raw.take() {
            Some(Raw::Tcp(tcp)) => drop(tcp.shutdown(Shutdown::Both)),
            #[cfg(unix)]
            Some(Raw::Unix(unix)) => drop(unix.shutdown(Shutdown::Both)),
            None => {}
        }
    }
}
