//! What other coordinators may ask of the leader of the control group.

use sagitta_cluster::NodeStatus;
use sagitta_consensus::{Role, States};
use sagitta_env::Env;

use super::*;
use crate::agent::tests::{ME, join, node};

#[tokio::test]
async fn other_coordinators_may_ask_for_what_callers_ask_for_and_not_for_what_the_leader_finds() {
    let (env, dir) = (Env::real(), tempfile::tempdir().unwrap());
    let (host, node) = node(dir.path());
    let handle = host.handle();
    let control = dir.path().join("control");
    let control = Control::open(&env, &control, 1, vec![NodeId(ME)], &handle, States::default()).await.unwrap();
    let mut group = control.group().clone();
    while group.status().role != Role::Leader {
        group.changed().await.unwrap();
    }
    let own = OwnNode::new(node.clone(), Placed::default(), Some(control.clone()));
    let propose = |command: Command| own.propose(ME, command.encode().into(), Deadline::NEVER);
    propose(join()).await.unwrap();
    let status = Command::SetNodeStatus { id: ME, status: NodeStatus::Lost };
    let replicas = Command::SetReplicas { shard: 16, epoch: 1, replicas: vec![ME] };
    for command in [status, Command::SetVoters { voters: vec![ME] }, replicas] {
        let before = control.state();
        let error = propose(command.clone()).await.unwrap_err();
        assert_eq!((error.kind, error.in_doubt), (ErrorKind::Denied, false), "{command:?}: {error}");
        assert_eq!(control.state(), before, "{command:?}");
    }
    let error = own.propose(ME, "no command".into(), Deadline::NEVER).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    node.close().await;
}
