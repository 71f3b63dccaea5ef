//! What lies between the nodes of a test, where packets can be lost: rules of the kernel's packet filter. Takes root.
//!
//! All nodes share the loopback interface, so that addresses do not tell who sends. The group of the sending process does,
//! and each connection is marked with the group of who began it, which tells to whom an answer goes.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Member, skipped};

/// Groups that no account of a machine has.
const GROUPS: u32 = 61_000;
/// Test processes, and nodes of each, that have groups of their own.
const PROCESSES: u32 = 250;
/// See [`PROCESSES`].
const NODES: u32 = 16;

/// The network of one test; all rules go with it.
pub(crate) struct Network {
    chain: String,
}

impl Network {
    /// Between nodes that [`Network::attach`] brings in. `None`, and a word about it, where the packet filter cannot be used.
    pub(crate) fn new() -> Option<Self> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Self { chain: format!("SAGITTA-{}-{number}", std::process::id()) };
        let rules = [
            vec!["-t", "mangle", "-N", &network.chain],
            vec!["-t", "mangle", "-A", "OUTPUT", "-o", "lo", "-p", "tcp", "-j", &network.chain],
            vec!["-N", &network.chain],
            vec!["-A", "OUTPUT", "-o", "lo", "-p", "tcp", "-j", &network.chain],
        ];
        match rules.iter().try_for_each(|rule| iptables(rule)) {
            Ok(()) => Some(network),
            Err(why) => {
                skipped(&format!("partitions need root and iptables: {why}"));
                None
            }
        }
    }

    /// Has a node that was not started yet send through this network.
    pub(crate) fn attach(&self, at: usize, member: &mut Member) {
        // Another test process beside this one has groups of its own: its nodes are not to be cut off.
        let group = GROUPS + std::process::id() % PROCESSES * NODES + at as u32;
        member.group = Some(group);
        let group = group.to_string();
        let owner = ["-t", "mangle", "-A", &self.chain, "-m", "owner", "--gid-owner", &group];
        let mark = ["-m", "conntrack", "--ctstate", "NEW", "-j", "CONNMARK", "--set-mark", &group];
        must(&[&owner[..], &mark].concat());
    }

    /// From now on nothing that one node sends reaches the other, on connections of either.
    pub(crate) fn cut(&self, from: &Member, to: &Member) {
        let group = |member: &Member| member.group.expect("it was attached").to_string();
        let (sender, receiver) = (group(from), group(to));
        let sends = ["-A", &self.chain, "-p", "tcp", "-m", "owner", "--gid-owner", &sender];
        for port in [&to.api, &to.peers] {
            must(&[&sends[..], &["--dport", &port.number.to_string(), "-j", "DROP"]].concat());
        }
        must(&[&sends[..], &["-m", "connmark", "--mark", &receiver, "-j", "DROP"]].concat());
    }

    /// From now on no connection that one node makes to the other brings it more than so many bytes: what is large stops in the
    /// middle, and what is small goes on.
    pub(crate) fn stall(&self, receiver: &Member, sender: &Member, bytes: u64) {
        let group = |member: &Member| member.group.expect("it was attached").to_string();
        let (sender, receiver, more) = (group(sender), group(receiver), format!("{bytes}:"));
        let sends = ["-A", &self.chain, "-p", "tcp", "-m", "owner", "--gid-owner", &sender];
        let made = ["-m", "connmark", "--mark", &receiver, "-m", "connbytes", "--connbytes", &more];
        let drop = ["--connbytes-dir", "reply", "--connbytes-mode", "bytes", "-j", "DROP"];
        must(&[&sends[..], &made, &drop].concat());
    }

    /// Cuts both ways between some nodes and all others.
    pub(crate) fn split(&self, members: &[Member], apart: &[usize]) {
        self.cut_out(members, apart);
        self.cut_in(members, apart);
    }

    /// Nothing that these nodes send reaches the others.
    pub(crate) fn cut_out(&self, members: &[Member], apart: &[usize]) {
        for (from, to) in across(members, apart) {
            self.cut(from, to);
        }
    }

    /// Nothing that the others send reaches these nodes.
    pub(crate) fn cut_in(&self, members: &[Member], apart: &[usize]) {
        for (to, from) in across(members, apart) {
            self.cut(from, to);
        }
    }

    /// Whether packets were lost since the last cut: a partition that nobody noticed proves nothing.
    pub(crate) fn has_dropped(&self) -> bool {
        let output = Command::new("iptables").args(["-w", "-vxn", "-L", &self.chain]).output().expect("iptables runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rules = text.lines().filter(|line| line.contains("DROP"));
        rules.any(|line| line.split_whitespace().next() != Some("0"))
    }

    /// Everybody reaches everybody.
    pub(crate) fn heal(&self) {
        must(&["-F", &self.chain]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for table in ["filter", "mangle"] {
            // Whatever of it was made.
            let _ = iptables(&["-t", table, "-D", "OUTPUT", "-o", "lo", "-p", "tcp", "-j", &self.chain]);
            let _ = iptables(&["-t", table, "-F", &self.chain]);
            let _ = iptables(&["-t", table, "-X", &self.chain]);
        }
    }
}

/// Each of these nodes with each of the others.
fn across<'a>(members: &'a [Member], apart: &'a [usize]) -> impl Iterator<Item = (&'a Member, &'a Member)> {
    let others = move || (0..members.len()).filter(|at| !apart.contains(at));
    apart.iter().flat_map(move |at| others().map(move |other| (&members[*at], &members[other])))
}

fn must(rule: &[&str]) {
    iptables(rule).expect("a rule of the packet filter");
}

fn iptables(rule: &[&str]) -> Result<(), String> {
    let output = Command::new("iptables").arg("-w").args(rule).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{rule:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
