//! How a process with an empty data folder comes to belong to a cluster: it is told to found one, or it is let in by one.

use std::time::Duration;

use sagitta_cluster::Place;
use sagitta_consensus::ClusterId;
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::control::{Join, Joined};
use tonic::transport::Uri;

use crate::config::ClusterConfig;
use crate::data_dir::DataDir;
use crate::data_plane::join;
use crate::start::{StartError, raft_id};

/// How long to wait before all addresses are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A process before the entrance.
pub(crate) struct Entrance<'a> {
    pub(crate) env: &'a Env,
    pub(crate) cluster: &'a ClusterConfig,
    pub(crate) place: Place,
}

impl Entrance<'_> {
    /// Makes the data folder belong to a cluster, if it does not yet. Returns the coordinators that are known then.
    pub(crate) async fn enter(&self, data: &mut DataDir) -> Result<Vec<(u64, String)>, StartError> {
        let waits = data.cluster_id().is_none() && self.cluster.join.is_empty();
        if waits {
            data.enter(self.env.uuid(), true)?;
        }
        if data.founder() || data.followed().exists() {
            return Ok(Vec::new());
        }
        // A node that was let in and stopped before it learned anything asks once more.
        let joined = self.be_let_in(data).await?;
        match data.cluster_id() {
            None => data.enter(joined.cluster, false)?,
            Some(cluster) if cluster == joined.cluster => {}
            Some(cluster) => {
                let (ours, theirs) = (ClusterId(cluster), ClusterId(joined.cluster));
                let what = format!("the data folder belongs to {ours}, the addresses of --join to {theirs}");
                return Err(StartError::NotLetIn(what));
            }
        }
        Ok(joined.coordinators)
    }

    /// Asks the coordinators at the given addresses, one after the other, until one lets this node in or says that none ever will.
    pub(crate) async fn be_let_in(&self, data: &DataDir) -> Result<Joined, StartError> {
        let addresses = self.addresses()?;
        let token = self.cluster.join_token.clone().unwrap_or_default();
        let mut said = false;
        loop {
            for address in &addresses {
                let (node, incarnation) = (raft_id(data.node_id()).0, data.node_id());
                let request = Join { token: token.clone(), node, incarnation, place: self.place.clone() };
                let failure = match join(self.env, address, request).await {
                    Ok(joined) => return Ok(joined),
                    Err(failure) => failure,
                };
                match failure.kind {
                    ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::NotFound => {}
                    _ => return Err(StartError::NotLetIn(failure.message)),
                }
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%address, why = failure.message, "not let in yet; asking on");
                }
            }
            self.env.sleep(ASK_AGAIN).await;
        }
    }

    fn addresses(&self) -> Result<Vec<Uri>, StartError> {
        let parse = |address: &String| {
            let wrong = |why: String| StartError::JoinAddress { address: address.clone(), why };
            let uri: Uri = address.parse().map_err(|_| wrong("it is no address".to_owned()))?;
            match uri.scheme_str() {
                Some("http") if uri.port().is_some() => Ok(uri),
                _ => Err(wrong("it has no scheme or no port".to_owned())),
            }
        };
        self.cluster.join.iter().map(parse).collect()
    }
}
