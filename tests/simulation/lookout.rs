//! What is proposed and what is agreed on in the control group, to the millisecond: as the disks of the nodes have it.

use std::collections::BTreeSet;
use std::rc::Rc;

use sagitta_cluster::{Command, State};

use crate::world::{Machine, World};

/// Looks at the disks of these nodes.
pub(crate) struct Lookout {
    nodes: Vec<Known>,
}

struct Known {
    machine: Rc<Machine>,
    /// The file of the control state as it was read last, and what is in it.
    bytes: Vec<u8>,
    state: Option<State>,
    /// The last entry of the control group's log that was looked at.
    logged: u64,
}

impl Lookout {
    /// Over the nodes that there are. What they have in their logs by now is not told any more.
    pub(crate) fn over(world: &World) -> Self {
        let known = |machine: &Rc<Machine>| {
            let (bytes, state, logged) = (Vec::new(), None, machine.disk.control_entries_after(u64::MAX).0);
            Known { machine: machine.clone(), bytes, state, logged }
        };
        Self { nodes: world.nodes.iter().map(known).collect() }
    }

    /// The control state that a node has followed last. A node keeps it before it acts by it.
    pub(crate) fn state(&mut self, at: usize) -> Option<&State> {
        let known = &mut self.nodes[at];
        let bytes = std::fs::read(known.machine.followed()).unwrap_or_default();
        if bytes != known.bytes {
            known.state = Some(State::decode(&bytes).expect("a state that was kept whole").0);
            known.bytes = bytes;
        }
        known.state.as_ref()
    }

    /// What has come into any log of the control group since this was asked last: that of its leader comes first.
    pub(crate) fn proposed(&mut self) -> Vec<Command> {
        let mut proposed = Vec::new();
        for known in &mut self.nodes {
            let (last, entries) = known.machine.disk.control_entries_after(known.logged);
            known.logged = last;
            // Entries of the group itself are no commands.
            proposed.extend(entries.iter().filter_map(|data| Command::decode(data).ok()));
        }
        proposed
    }

    /// The shards that a node should host by the state that it has followed.
    pub(crate) fn wanted(&mut self, at: usize, id: u64) -> BTreeSet<u64> {
        self.state(at).map_or_else(BTreeSet::new, |state| state.shards_on(id).map(|(_, shard)| shard.id).collect())
    }
}
