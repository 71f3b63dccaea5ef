//! Who is not let in is told why, and ends.

use crate::harness::{Cluster, Role};

#[test]
fn a_node_that_cannot_come_in_says_why_and_ends() {
    let mut cluster = Cluster::start(1, 1);
    let join = cluster.join_addresses();

    let mut stranger = cluster.new_member(Role::Shard, "stranger");
    let mut command = cluster.command(&stranger, Some(join.clone()));
    command.env("SAGITTA_JOIN_TOKEN", "sgj_of_nobody");
    stranger.must_refuse(command, "the join token is not this cluster's");

    let mut second = cluster.new_member(Role::Shard, "second");
    second.data.clone_from(&cluster.members[1].data);
    let command = cluster.command(&second, Some(join.clone()));
    second.must_refuse(command, "is in use by another process");

    let mut twin = cluster.new_member(Role::Shard, "twin");
    std::mem::swap(&mut twin.api, &mut cluster.members[1].api);
    let command = cluster.command(&twin, Some(join));
    twin.must_refuse(command, "cannot listen on");
    std::mem::swap(&mut twin.api, &mut cluster.members[1].api);
}
