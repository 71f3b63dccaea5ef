//! What a process encrypts, as its flags say.

use sagitta_env::Env;
use sagitta_tls::{Acceptor, ClientTls, Connector, ServerTls, Setting, SettingError, rehearse};

use crate::config::{ClusterConfig, Config, PeerTls};
use crate::start::StartError;

/// What encrypts the connections of a process.
pub(crate) struct Encryption {
    /// Those of the API, if they are.
    pub(crate) api: Option<Acceptor>,
    /// Those between nodes, if they are.
    pub(crate) peers: Option<PeerEncryption>,
}

/// Both sides of the connections between nodes.
#[derive(Clone)]
pub(crate) struct PeerEncryption {
    pub(crate) connector: Connector,
    pub(crate) acceptor: Acceptor,
}

impl Encryption {
    /// Reads all files.
    pub(crate) async fn of(config: &Config, env: &Env) -> Result<Self, StartError> {
        let api = config.tls.clone().map(|tls| Acceptor::new(tls, env)).transpose();
        let api = api.map_err(|SettingError { setting, why }| wrong("tls", setting, why))?;
        let peers = match &config.cluster {
            Some(ClusterConfig { peer_tls: Some(tls), peer_listen, .. }) => {
                let peers = PeerEncryption::new(tls, env);
                let peers = peers.map_err(|SettingError { setting, why }| wrong("peer-tls", setting, why))?;
                peers.check(tls, &peer_listen.ip().to_string()).await?;
                Some(peers)
            }
            _ => None,
        };
        Ok(Self { api, peers })
    }
}

impl PeerEncryption {
    fn new(tls: &PeerTls, env: &Env) -> Result<Self, SettingError> {
        let PeerTls { cert, key, ca } = tls.clone();
        let shown = ClientTls { ca: Some(ca.clone()), cert: Some(cert.clone()), key: Some(key.clone()), name: None };
        let demanded = ServerTls { cert, key, client_ca: Some(ca) };
        Ok(Self { connector: Connector::new(shown, env)?, acceptor: Acceptor::new(demanded, env)? })
    }

    /// A certificate that the other nodes would not believe is better noticed now.
    async fn check(&self, tls: &PeerTls, address: &str) -> Result<(), StartError> {
        rehearse(&self.connector, &self.acceptor, address).await.map_err(|error| {
            let why = format!("{}: no node would believe this one at {address}: {error}", tls.cert.display());
            wrong("peer-tls", Setting::Cert, why)
        })
    }

    /// Reads the files again; whether they hold something else than before.
    pub(crate) fn reload(&self) -> Result<bool, SettingError> {
        // One after the other: what can be used by one side can be used by the other.
        Ok(self.acceptor.reload()? | self.connector.reload()?)
    }
}

fn wrong(flags: &str, setting: Setting, why: String) -> StartError {
    // Nodes have one file of authorities for both sides.
    let setting = if flags == "peer-tls" && setting == Setting::ClientCa { Setting::Ca } else { setting };
    StartError::Tls { flag: format!("{flags}-{}", setting.name()), why }
}
