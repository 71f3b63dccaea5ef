//! The side that connects.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use sagitta_env::Env;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::files::{self, Loaded, Seen, Setting, SettingError};
use crate::handshake::HandshakeError;
use crate::{ClientStream, Clock, HTTP2, provider};

/// How the side that connects sees to whom it speaks, and shows who it is. Names files, so nothing secret is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities whose certificates are believed, in PEM; by default those of the system.
    pub ca: Option<PathBuf>,
    /// The own certificate, with those that lead to its authority, in PEM; for servers that demand one.
    pub cert: Option<PathBuf>,
    /// The secret key of it, in PEM.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must be for, where it is another than that of the host.
    pub name: Option<String>,
}

impl ClientTls {
    /// The first thing that is set.
    pub fn first(&self) -> Option<Setting> {
        let Self { ca, cert, key, name } = self;
        let set = [
            (ca.is_some(), Setting::Ca),
            (cert.is_some(), Setting::Cert),
            (key.is_some(), Setting::Key),
            (name.is_some(), Setting::Name),
        ];
        set.into_iter().find_map(|(is_set, setting)| is_set.then_some(setting))
    }

    fn load(&self, env: &Env) -> Result<Loaded<Made>, SettingError> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(Arc::new(files::identity(cert, key)?)),
            (Some(_), None) => {
                return Err(SettingError::new(Setting::Cert, "a certificate is of no use without its key"));
            }
            (None, Some(_)) => {
                return Err(SettingError::new(Setting::Key, "a key is of no use without its certificate"));
            }
            (None, None) => None,
        };
        let roots = match &self.ca {
            Some(path) => files::authorities(Setting::Ca, path)?,
            None => files::authorities_of_system()?,
        };
        let seen = Seen::of(identity.as_deref(), Some(&roots));
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Clock(env.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("invariant: the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Loaded { made: Made { config, identity }, seen })
    }
}

/// Begins encrypted connections. Clones are the same one.
#[derive(Clone)]
pub struct Connector {
    settings: Arc<ClientTls>,
    name: Option<ServerName<'static>>,
    env: Env,
    loaded: Arc<ArcSwap<Loaded<Made>>>,
}

struct Made {
    config: ClientConfig,
    identity: Option<Arc<CertifiedKey>>,
}

/// A server that asks for a certificate says only after the handshake what it thinks of it, with the first bytes that it sends. One
/// that says nothing by itself is not waited for longer than this.
const VERDICT_WITHIN: Duration = Duration::from_secs(1);

impl Connector {
    /// Reads the files.
    pub fn new(settings: ClientTls, env: &Env) -> Result<Self, SettingError> {
        let name = settings.name.clone().map(|name| {
            let wrong =
                |_| SettingError::new(Setting::Name, format!("`{name}` is neither a name of a host nor an address"));
            ServerName::try_from(name.clone()).map_err(wrong)
        });
        let loaded = settings.load(env)?;
        let loaded = Arc::new(ArcSwap::from_pointee(loaded));
        Ok(Self { settings: Arc::new(settings), name: name.transpose()?, env: env.clone(), loaded })
    }

    /// Reads the files again, for the connections that are begun from now on; whether they hold something else than before. What was
    /// read before stays in force if they cannot be used.
    pub fn reload(&self) -> Result<bool, SettingError> {
        Ok(files::replace(&self.loaded, self.settings.load(&self.env)?))
    }

    /// What it was told.
    pub fn settings(&self) -> &ClientTls {
        &self.settings
    }

    /// Makes a connection to `host`, which may be an address, one of version 6 in brackets, encrypted.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<ClientStream<S>, HandshakeError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| HandshakeError::Failed(format!("`{host}` is no name that a certificate can be for")))?,
        };
        let loaded = self.loaded.load_full();
        let Made { config, identity } = &loaded.made;
        let show = Arc::new(Show { identity: identity.clone(), asked: AtomicBool::new(false) });
        let mut config = config.clone();
        config.client_auth_cert_resolver = show.clone();
        let failed = |error: io::Error| HandshakeError::of(&error, identity.is_some());
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(HandshakeError::NoHttp2);
        }
        if show.asked.load(Ordering::Relaxed)
            && let Ok(verdict) = self.env.timeout(VERDICT_WITHIN, stream.fill_buf()).await
            && verdict.map_err(failed)?.is_empty()
        {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(stream)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Shows the own certificate, if there is one, and notes whether it was asked for.
struct Show {
    identity: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        // It has to be asked in any case.
        true
    }
}

impl fmt::Debug for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Show")
    }
}
