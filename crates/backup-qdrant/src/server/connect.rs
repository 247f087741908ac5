//! How both interfaces are connected to: who is trusted, and which key is shown.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use prost::Message;
use qdrant_client::qdrant::points_client::PointsClient;
use reqwest::{Url, header::HeaderValue};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::{
    Request, Response, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Points over gRPC. Clones share the connection, which is made when it is needed, and again
/// where it broke.
#[derive(Clone)]
pub(super) struct Points(Service);

type Service = InterceptedService<Channel, Key>;

impl Points {
    /// The client that writes.
    pub(super) fn client(&self) -> PointsClient<Service> {
        PointsClient::new(self.0.clone())
    }

    /// Asks for points. A page has as many bytes as the server lets it have.
    pub(super) async fn read<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::from_static(path);
        grpc.unary(Request::new(request), path, codec).await.map(Response::into_inner)
    }
}

/// What every connection needs to know.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) key: Option<HeaderValue>,
    /// Certificates in PEM form that sign the server's; `None`: those that the system trusts.
    pub(super) roots: Option<Vec<u8>>,
    pub(super) timeout: Duration,
    /// For what takes long.
    pub(super) long: Duration,
}

/// Shows the API key.
#[derive(Clone)]
pub(super) struct Key(Option<MetadataValue<Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("api-key", key.clone());
        }
        Ok(request)
    }
}

impl Access {
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(10).min(self.timeout)
    }

    /// Within a Tokio runtime.
    pub(super) fn points(&self, url: &Url) -> Result<Points> {
        let invalid = |e: &dyn std::error::Error| {
            Error::new(ErrorKind::InvalidInput, "there is no client for this address")
                .because(e.to_string())
        };
        let mut endpoint = Endpoint::from_shared(url.as_str().to_owned())
            .map_err(|e| invalid(&e))?
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout())
            .keep_alive_while_idle(true);
        if url.scheme() == "https" {
            let tls = ClientTlsConfig::new();
            let tls = match &self.roots {
                Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                None => tls.with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).map_err(|e| invalid(&e))?;
        }
        let key = self.key.as_ref().map(|key| {
            let mut value = MetadataValue::try_from(key.as_bytes()).map_err(|e| invalid(&e))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let channel = endpoint.connect_lazy();
        Ok(Points(InterceptedService::new(channel, Key(key.transpose()?))))
    }

    /// TLS for REST.
    pub(super) fn tls(&self) -> Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.roots {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|e| no_certificate().because(e))?;
                    roots.add(certificate).map_err(|e| no_certificate().because(e))?;
                }
                if roots.is_empty() {
                    return Err(no_certificate());
                }
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(ErrorKind::Unsupported, "no TLS").because(e))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn no_certificate() -> Error {
    Error::new(ErrorKind::InvalidInput, "what is to be trusted is no certificate in PEM form")
}
