//! How a process with an empty data folder comes to belong to a cluster: it is told to found one, or it is let in by one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sagitta_cluster::Place;
use sagitta_consensus::ClusterId;
use sagitta_env::{Env, JoinHandle};
use sagitta_model::{ErrorKind, NewCluster, PointId};
use sagitta_wire::Failure;
use sagitta_wire::control::{Join, Joined};
use sagitta_wire::peer::{Run, refusal};
use tokio::sync::oneshot;
use tonic::transport::Uri;

use crate::agent::{Followed, Seen};
use crate::config::ClusterConfig;
use crate::data_dir::DataDir;
use crate::data_plane::join;
use crate::gate::new_join_token;
use crate::net::{Door, Net};
use crate::serve::serve_unfounded;
use crate::services::Founding;
use crate::start::{StartError, raft_id};

/// How long to wait before all addresses are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A coordinator that takes an earlier run of this folder for connected learns within so long if it is not: a ping, and the wait for
/// its answer.
const GONE_WITHIN: Duration = Duration::from_secs(12);

/// A token that no cluster has.
const NO_TOKEN: &str = "none";

const NO_COORDINATOR: &str =
    "it has not the role coordinator, and names no coordinators: give it the role, or give it --join and --join-token";

/// A process before the entrance.
pub(crate) struct Entrance<'a> {
    pub(crate) env: &'a Env,
    pub(crate) net: &'a Net,
    pub(crate) cluster: &'a ClusterConfig,
    pub(crate) place: Place,
    pub(crate) run: Run,
}

/// How a process came in.
#[derive(Default)]
pub(crate) struct Entered {
    /// The coordinators that are known then.
    pub(crate) known: Vec<(u64, String)>,
    /// Who waits for the cluster that is being founded.
    pub(crate) asked: Option<Asked>,
}

/// Somebody has asked this process to found a cluster, and waits for its join token.
pub(crate) struct Asked {
    /// BLAKE3 of the token, for the cluster to know.
    pub(crate) digest: [u8; 32],
    new: NewCluster,
    answer: oneshot::Sender<NewCluster>,
    door: Unfounded,
}

/// The server of a process that belongs to no cluster yet.
struct Unfounded {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Passes the first request to found a cluster on; the others are told that there is one.
struct Desk {
    cluster: u128,
    first: Mutex<Option<oneshot::Sender<oneshot::Sender<NewCluster>>>>,
}

impl Founding for Desk {
    async fn found(&self) -> Result<NewCluster, Failure> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(first) = first else { return Err(Failure::cluster_exists(PointId::Uuid(self.cluster))) };
        let (answer, founded) = oneshot::channel();
        let ended = || {
            Failure::new(ErrorKind::Unavailable, "the process ended before the cluster was founded; its log says why")
        };
        first.send(answer).map_err(|_| ended())?;
        founded.await.map_err(|_| ended())
    }
}

impl Asked {
    /// Says that the cluster is there, and gives the address back.
    pub(crate) async fn answer(self) {
        // Whoever went away can have another token.
        let _ = self.answer.send(self.new);
        let _ = self.door.stop.send(());
        let _ = self.door.serving.await;
    }
}

/// Whether two places are the same one. That the API is encrypted now, or is no more, moves nobody.
fn is_same(noted: &Place, place: &Place) -> bool {
    let address = |place: &Place| place.api_address.split_once("://").map(|(_, address)| address.to_owned());
    address(noted) == address(place) && Place { api_address: place.api_address.clone(), ..noted.clone() } == *place
}

impl Entrance<'_> {
    /// Makes the data folder belong to a cluster, if it does not yet: one that it is told to found by a call to `listener`, or
    /// the one that it asks to be let in by.
    pub(crate) async fn enter(
        &self,
        data: &mut DataDir,
        listener: Door,
    ) -> Result<(Entered, Option<Door>), StartError> {
        if data.cluster_id().is_none() && self.cluster.join.is_empty() {
            let asked = self.wait_for_init(data, listener).await?;
            return Ok((Entered { asked: Some(asked), ..Entered::default() }, None));
        }
        // A node that was let in and stopped before it learned anything asks once more, and so does one that has moved.
        self.look_where_it_was(data).await?;
        let known = data.founder() || data.layout().followed().exists();
        if known && !self.has_moved(data)? {
            return Ok((Entered::default(), Some(listener)));
        }
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
        Ok((Entered { known: joined.coordinators, asked: None }, Some(listener)))
    }

    /// Whether the cluster, as this node last knew it, expects it elsewhere or in other roles. The only voter has itself noted.
    fn has_moved(&self, data: &DataDir) -> Result<bool, StartError> {
        let followed = Followed::open(data.layout().followed())?;
        let Some(Seen { state, .. }) = followed.last() else { return Ok(false) };
        let me = raft_id(data.node_id()).0;
        let alone = state.voters() == [me] || data.founder() && state.voters().iter().all(|voter| *voter == me);
        Ok(!alone && state.nodes().get(&me).is_some_and(|node| !is_same(&node.place, &self.place)))
    }

    /// Refuses to start while another run of this node is where it was: one of the two folders is a copy. Only a coordinator can tell;
    /// for others those do whom this node asks to be let in by.
    async fn look_where_it_was(&self, data: &DataDir) -> Result<(), StartError> {
        let followed = Followed::open(data.layout().followed())?;
        let noted = followed.last().and_then(|seen| seen.state.nodes().get(&raft_id(data.node_id()).0));
        let Some(address) = noted.map(|node| &node.place.peer_address).filter(|at| **at != self.place.peer_address)
        else {
            return Ok(());
        };
        let Ok(address) = address.parse::<Uri>() else { return Ok(()) };
        // Nothing is asked for that could be granted without the token: whoever is there only looks who calls.
        match join(self.env, self.net, &address, self.request(data, NO_TOKEN)).await {
            Err(failure) if failure.reason == refusal::OTHER_RUN => Err(StartError::NotLetIn(failure.message)),
            // Nobody, another node by now, or one that does not take part in the control plane.
            _ => Ok(()),
        }
    }

    fn request(&self, data: &DataDir, token: &str) -> Join {
        let (node, incarnation) = (raft_id(data.node_id()).0, data.node_id());
        let (place, cluster, run) = (self.place.clone(), data.cluster_id(), self.run);
        Join { token: token.to_owned(), node, incarnation, place, cluster, run }
    }

    /// Waits until somebody says that this process is the first of a cluster.
    async fn wait_for_init(&self, data: &mut DataDir, listener: Door) -> Result<Asked, StartError> {
        if !self.cluster.roles.coordinator {
            return Err(StartError::NotLetIn(NO_COORDINATOR.to_owned()));
        }
        let cluster = self.env.uuid();
        let (first, asked) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let desk = Desk { cluster, first: Mutex::new(Some(first)) };
        let service = serve_unfounded(desk, self.env, listener, async {
            let _ = stopped.await;
        });
        let mut serving = self.env.spawn(service);
        tracing::info!(api = self.place.api_address, "belongs to no cluster: waiting for `sagitta cluster init`");
        let answer = tokio::select! {
            answer = asked => answer.map_err(|_| StartError::NotLetIn("nobody can ask any more".to_owned()))?,
            served = &mut serving => {
                served.unwrap_or(Ok(()))?;
                return Err(StartError::NotLetIn("the API ended".to_owned()));
            }
        };
        data.enter(cluster, true)?;
        let (join_token, digest) = new_join_token(self.env);
        let new = NewCluster { id: cluster, join_token };
        Ok(Asked { digest, new, answer, door: Unfounded { stop, serving } })
    }

    /// Asks the coordinators at the given addresses, one after the other, until one lets this node in or says that none ever will.
    pub(crate) async fn be_let_in(&self, data: &DataDir) -> Result<Joined, StartError> {
        let addresses = self.addresses()?;
        if addresses.is_empty() {
            let what = "the cluster does not know it here and in these roles: give it --join and --join-token once more, or start it where and as it was";
            return Err(StartError::NotLetIn(what.to_owned()));
        }
        let token = self.cluster.join_token.clone().unwrap_or_default();
        let (mut said, since) = (false, self.env.now());
        loop {
            for address in &addresses {
                let failure = match join(self.env, self.net, address, self.request(data, &token)).await {
                    Ok(joined) => return Ok(joined),
                    Err(failure) => failure,
                };
                let may_be_gone = self.env.now().saturating_sub(since) < GONE_WITHIN;
                match failure.kind {
                    ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::NotFound => {}
                    ErrorKind::Conflict if failure.reason == refusal::OTHER_RUN && may_be_gone => {}
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
                Some("https") if !self.net.is_encrypted() => {
                    Err(wrong("nodes are reached so with --peer-tls-cert, --peer-tls-key and --peer-tls-ca".to_owned()))
                }
                // It is those that say whether connections are encrypted.
                Some("http" | "https") if uri.port().is_some() => Ok(uri),
                _ => Err(wrong("it has no scheme or no port".to_owned())),
            }
        };
        self.cluster.join.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use sagitta_cluster::Roles;

    use super::*;

    #[test]
    fn a_node_whose_api_is_encrypted_now_has_not_moved() {
        let roles = Roles { coordinator: true, shard: true };
        let place = |api: &str, zone: &str| Place {
            peer_address: "http://10.0.0.7:6381".to_owned(),
            api_address: api.to_owned(),
            zone: zone.to_owned(),
            roles,
        };
        let noted = place("http://10.0.0.7:6380", "a");
        assert!(is_same(&noted, &place("https://10.0.0.7:6380", "a")));
        assert!(!is_same(&noted, &place("https://10.0.0.7:6390", "a")));
        assert!(!is_same(&noted, &place("https://10.0.0.7:6380", "b")));
    }
}
