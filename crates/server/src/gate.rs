//! What a coordinator does with nodes that come, and with what they tell.

use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{Command, NodeStatus, Report, State};
use sagitta_consensus::{ClusterId, NodeId};
use sagitta_coordinator::{Coordinator, Error, NodeClient};
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::control::{Join, Joined};
use sagitta_wire::peer::refusal;
use tokio::sync::watch;

use crate::Seen;
use crate::data_plane::Membership;
use crate::failure::failure;
use crate::peers::Guests;

/// How long the cluster may take to decide whether a node comes in.
const DECIDE_WITHIN: Duration = Duration::from_secs(8);

/// The coordinator of this process, for nodes.
pub(crate) struct Gate<C> {
    coordinator: Arc<Coordinator<C>>,
    states: watch::Receiver<Option<Seen>>,
    guests: Arc<Guests>,
}

impl<C: NodeClient> Gate<C> {
    pub(crate) fn new(
        coordinator: Arc<Coordinator<C>>,
        states: watch::Receiver<Option<Seen>>,
        guests: Arc<Guests>,
    ) -> Self {
        Self { coordinator, states, guests }
    }
}

impl<C: NodeClient> Membership for Gate<C> {
    async fn join(&self, join: Join) -> Result<Joined, Failure> {
        let env = self.coordinator.env();
        let deadline = env.deadline(DECIDE_WITHIN);
        let told = |error: Error| failure(error, None);
        // Before the token, which a folder that was copied need not know to be told that it is one.
        self.guests.check(NodeId(join.node), join.incarnation, &join.run)?;
        // A token that was replaced a moment ago is worth nothing here either.
        self.coordinator.catch_up(deadline).await.map_err(told)?;
        if !knows_token(&self.coordinator.control().state(), &join.token) {
            let what = "the join token is not this cluster's: `sagitta cluster rotate-token` makes a new one";
            return Err(Failure::new(ErrorKind::Denied, what));
        }
        let Join { token: _, node: id, incarnation, place, cluster, run } = join;
        let ours = ClusterId(self.coordinator.control().state().cluster_id());
        // Before anything is decided: a node that would refuse to come in then must not stay behind in the state.
        if let Some(theirs) = cluster.map(ClusterId).filter(|theirs| *theirs != ours) {
            let what = format!(
                "the data folder of {} belongs to {theirs}, and this is {ours}: name coordinators of {theirs} with --join, or start a new node \
                 with an empty data folder",
                NodeId(id)
            );
            return Err(Failure::new(ErrorKind::Denied, what).with_reason(refusal::OTHER_CLUSTER));
        }
        let (run, unix_micros) = (run.number, env.unix_micros());
        let join = Command::Join { id, incarnation, run, place, unix_micros };
        self.coordinator.decide(join, deadline).await.map_err(told)?;
        let state = self.coordinator.control().state();
        Ok(Joined { cluster: state.cluster_id(), coordinators: coordinators(&state) })
    }

    fn states(&self) -> watch::Receiver<Option<Seen>> {
        self.states.clone()
    }

    fn reported(&self, node: NodeId, report: Report) {
        let seen = self.states.borrow().clone();
        let known = seen.as_ref().and_then(|seen| seen.state.nodes().get(&node.0));
        // It is told the control state, by which it learns that it was; what it says of itself nobody is to go by, above all that it leads.
        if known.is_some_and(|known| known.status == NodeStatus::Removed) {
            return;
        }
        self.coordinator.reports().heard(node.0, report);
    }
}

/// Ids and peer addresses of the coordinators.
pub(crate) fn coordinators(state: &State) -> Vec<(u64, String)> {
    let present = state.nodes().values().filter(|node| node.place.roles.coordinator);
    let present = present.filter(|node| node.status != NodeStatus::Removed && !node.place.peer_address.is_empty());
    present.map(|node| (node.id, node.place.peer_address.clone())).collect()
}

/// Compares digests, in a time that does not tell how much of them is the same.
fn knows_token(state: &State, token: &str) -> bool {
    state.join_token().is_some_and(|digest| blake3::hash(token.as_bytes()) == *digest)
}

/// A new join token and its digest, which is all that the cluster keeps of it.
pub(crate) fn new_join_token(env: &Env) -> (String, [u8; 32]) {
    let random: String = (0..4).map(|_| format!("{:016x}", env.random_u64())).collect();
    let token = format!("sgj_{random}");
    let digest = *blake3::hash(token.as_bytes()).as_bytes();
    (token, digest)
}
