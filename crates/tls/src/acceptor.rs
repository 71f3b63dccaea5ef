//! The side that is connected to.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use sagitta_env::Env;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::files::{self, Loaded, Seen, Setting, SettingError};
use crate::{Clock, HTTP2, ServerStream, provider};

/// How the side that is connected to shows who it is, and whom it lets in. Names files, so nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The own certificate, with those that lead to its authority, in PEM.
    pub cert: PathBuf,
    /// The secret key of it, in PEM.
    pub key: PathBuf,
    /// Authorities, in PEM, by one of which callers must show a certificate; without them anybody may call.
    pub client_ca: Option<PathBuf>,
}

impl ServerTls {
    fn load(&self, env: &Env) -> Result<Loaded<Arc<ServerConfig>>, SettingError> {
        let identity = files::identity(&self.cert, &self.key)?;
        let authorities =
            self.client_ca.as_deref().map(|path| files::authorities(Setting::ClientCa, path)).transpose()?;
        let seen = Seen::of(Some(&identity), authorities.as_ref());
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(Clock(env.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("invariant: the provider has TLS 1.3");
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.expect("invariant: there is an authority and no revocation list"),
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![HTTP2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Loaded { made: Arc::new(config), seen })
    }
}

/// Takes encrypted connections. Clones are the same one.
#[derive(Clone)]
pub struct Acceptor {
    settings: Arc<ServerTls>,
    env: Env,
    loaded: Arc<ArcSwap<Loaded<Arc<ServerConfig>>>>,
}

/// How long a caller that was turned away may take to read why.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);
/// What it may still send meanwhile; more, and it is cut off.
const FAREWELL_BYTES: u64 = 64 << 10;

impl Acceptor {
    /// Reads the files.
    pub fn new(settings: ServerTls, env: &Env) -> Result<Self, SettingError> {
        let loaded = Arc::new(ArcSwap::from_pointee(settings.load(env)?));
        Ok(Self { settings: Arc::new(settings), env: env.clone(), loaded })
    }

    /// Reads the files again, for the connections that are taken from now on; whether they hold something else than before. What was
    /// read before stays in force if they cannot be used.
    pub fn reload(&self) -> Result<bool, SettingError> {
        Ok(files::replace(&self.loaded, self.settings.load(&self.env)?))
    }

    /// What it was told.
    pub fn settings(&self) -> &ServerTls {
        &self.settings
    }

    /// Takes a connection, encrypted. Takes as long as the caller likes.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<ServerStream<S>> {
        let acceptor = TlsAcceptor::from(self.loaded.load().made.clone());
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                // With bytes left unread, closing would take the reason back that is on its way.
                let _ = self.env.timeout(FAREWELL_WITHIN, Box::pin(farewell(stream))).await;
                Err(error)
            }
        }
    }
}

async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await;
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}
