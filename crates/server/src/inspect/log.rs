//! The Raft log of a data folder.

use std::fs;

use sagitta_cluster::State;
use sagitta_consensus::{ClusterId, GroupId, GroupState, LogError, LogInspector, Membership, NodeId, Position};
use sagitta_coordinator::CONTROL_GROUP;

use super::Look;
use super::report::{GroupReport, LogReport, Seriousness};

/// What helps where a node does not start at all.
pub(super) const START_ANEW: &str = "put back what was moved away, or start a new node in its place: sagittad serve \
     --data EMPTY-FOLDER --join URL --join-token TOKEN";

/// Where a group's state machine stands, and its members.
#[derive(Default)]
struct Standing {
    applied: Option<Position>,
    installed: Option<Position>,
    membership: Option<Membership>,
}

impl Look<'_> {
    pub(super) fn open_log(&mut self) -> Option<LogInspector> {
        let dir = self.held.layout.log();
        if !dir.exists() {
            return None;
        }
        match LogInspector::open(&dir) {
            Ok(log) => Some(log),
            Err(error) => {
                self.log_problem(&error);
                None
            }
        }
    }

    pub(super) fn at_log(&mut self, state: Option<&State>, log: Option<&LogInspector>) {
        let Some(log) = log else { return self.at_no_log() };
        let groups = match log.groups() {
            Ok(groups) => groups,
            Err(error) => return self.log_problem(&error),
        };
        self.at_lost_groups(&groups);
        let files = fs::read_dir(self.held.layout.log()).into_iter().flatten().flatten();
        let bytes = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
        self.report.log = Some(LogReport { bytes, groups: Vec::new() });
        for group in groups {
            match log.state(group) {
                Ok(Some(held)) => self.at_group(state, log, group, &held),
                Ok(None) => {}
                Err(error) => self.log_problem(&error),
            }
        }
    }

    /// A log that is damaged has been told; one that is not there is missing where there is anything that it goes with. What is
    /// not flushed is in it alone, so that this holds for replicas that have nothing in their databases, too.
    fn at_no_log(&mut self) {
        let dir = self.held.layout.log();
        let has_state = !self.replicas.is_empty() || self.kept().is_ok_and(|kept| kept.is_some());
        if has_state && !dir.exists() {
            let what = format!(
                "the Raft log is missing: there is no {}, and with it went what was not flushed",
                dir.display()
            );
            self.problem(Seriousness::Damage, what, START_ANEW);
        }
    }

    /// A group that has had a log and has none any more is not founded a second time.
    fn at_lost_groups(&mut self, held: &[GroupId]) {
        // What cannot be listed has been told with the replicas.
        for group in self.held.layout.groups_with_log().unwrap_or_default() {
            if !held.contains(&group) {
                self.problem(Seriousness::Damage, format!("{group}: its Raft log is missing"), START_ANEW);
            }
        }
    }

    fn at_group(&mut self, state: Option<&State>, log: &LogInspector, group: GroupId, held: &GroupState) {
        if self.all
            && let Err(error) = log.verify(group)
        {
            self.log_problem(&error);
        }
        self.check_owner(group, held);
        let standing = self.standing(group);
        let goes_on = standing.applied.map(|applied| log.check_continuity(group, applied, standing.installed));
        match &goes_on {
            // A replica's is told with the replica.
            Some(Err(error)) if group == CONTROL_GROUP => {
                self.problem(Seriousness::Damage, format!("the control group: {error}"), START_ANEW);
            }
            _ => {}
        }
        let is_gone = |state: &State| state.has_placed(group.0) && state.shard(group.0).is_err();
        if group != CONTROL_GROUP && state.is_some_and(is_gone) && standing.applied.is_none() {
            let what = format!("the log holds shard {}, which is gone", group.0);
            self.problem(Seriousness::Note, what, "nothing needs to be done");
        }
        let members = standing.membership.unwrap_or_else(|| held.meta.founders.clone());
        let names = |nodes: &[NodeId]| nodes.iter().map(|node| node.0.to_string()).collect();
        let first = held.truncated.index + 1;
        let report = GroupReport {
            group: group.0,
            first_index: (held.last.index >= first).then_some(first),
            last_index: held.last.index,
            last_term: held.last.term,
            commit: held.hard_state.commit,
            term: held.hard_state.term,
            vote: (held.hard_state.vote != 0).then(|| held.hard_state.vote.to_string()),
            applied_index: standing.applied.map(|applied| applied.index),
            to_apply: standing
                .applied
                .map(|applied| held.last.index.saturating_sub(applied.index.max(held.truncated.index))),
            voters: names(&members.voters),
            founders: names(&held.meta.founders.voters),
            learners: names(&members.learners),
            continues: goes_on.map(|goes_on| goes_on.is_ok()),
        };
        if let Some(log) = &mut self.report.log {
            log.groups.push(report);
        }
    }

    /// A log that another node wrote, or of another cluster, is not opened.
    fn check_owner(&mut self, group: GroupId, held: &GroupState) {
        if let Some(cluster) = self.cluster.map(ClusterId).filter(|cluster| *cluster != held.meta.cluster) {
            let what = format!("{group}: the log belongs to {}, the folder to {cluster}", held.meta.cluster);
            self.problem(Seriousness::Damage, what, START_ANEW);
        }
        if let Some(me) = self.me.map(NodeId).filter(|me| *me != held.meta.node) {
            let what = format!("{group}: the log was written by {}, the folder is {me}", held.meta.node);
            self.problem(Seriousness::Damage, what, START_ANEW);
        }
    }

    fn standing(&self, group: GroupId) -> Standing {
        if group == CONTROL_GROUP {
            // A file that cannot be read has been told; one that is not there yet is everything in the log.
            let Ok(kept) = self.kept() else { return Standing::default() };
            return match kept {
                Some(kept) => {
                    Standing { applied: Some(kept.applied), installed: kept.installed, membership: kept.membership }
                }
                None => Standing { applied: Some(Position::default()), ..Standing::default() },
            };
        }
        self.replicas.get(&group.0).map_or_else(Standing::default, |seen| Standing {
            applied: seen.applied.map(|(index, term)| Position { index, term }),
            installed: seen.installed.map(|(index, term)| Position { index, term }),
            membership: seen.members.as_deref().and_then(Membership::decode),
        })
    }

    fn log_problem(&mut self, error: &LogError) {
        let help = match error {
            LogError::Corrupt { .. } | LogError::NoEntry { .. } => START_ANEW,
            _ => "give this user the right to read it, or look at its disk",
        };
        self.problem(Seriousness::Damage, format!("the Raft log: {error}"), help);
    }
}
