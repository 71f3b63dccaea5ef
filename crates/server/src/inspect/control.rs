//! The control states of a data folder.

use sagitta_cluster::State;
use sagitta_coordinator::{ControlError, Kept};
use sagitta_model::ErrorKind;

use super::report::{CollectionReport, MemberReport, Seriousness, StateReport};
use super::{Look, RUN_NEWER};
use crate::agent::Followed;
use crate::data_dir::DataDirError;

impl Look<'_> {
    /// Reads both states, and returns the newer one.
    pub(super) fn at_control(&mut self) -> Option<State> {
        let applied = match self.kept() {
            Ok(kept) => kept.map(|kept| (kept.applied.index, kept.state)),
            Err(error) => {
                let help = match error.kind() {
                    ErrorKind::Corrupt => super::log::START_ANEW,
                    _ => "give this user the right to read it",
                };
                self.problem(Seriousness::Damage, error.to_string(), help);
                None
            }
        };
        let path = self.held.layout.followed();
        let followed = match Followed::open(path.clone()) {
            Ok(followed) => followed.last().map(|seen| (seen.entry(), State::clone(&seen.state))),
            Err(error) => {
                let help = match error {
                    DataDirError::Damaged { .. } => {
                        format!("rm {}  (while a coordinator can be reached)", path.display())
                    }
                    _ => RUN_NEWER.to_owned(),
                };
                self.problem(Seriousness::Damage, error.to_string(), help);
                None
            }
        };
        self.report.control.applied = applied.as_ref().map(report);
        self.report.control.followed = followed.as_ref().map(report);
        for (index, state) in applied.iter().chain(&followed) {
            if let Some(cluster) = self.cluster.filter(|cluster| *cluster != state.cluster_id()) {
                let (found, own) = (state.cluster_id(), cluster);
                let what =
                    format!("the control state of entry {index} is of cluster {found:032x}, the folder of {own:032x}");
                self.problem(Seriousness::Damage, what, super::log::START_ANEW);
            }
        }
        let newer = applied.into_iter().chain(followed).max_by_key(|(index, state)| (state.era(), *index));
        newer.map(|(_, state)| state)
    }

    /// What the control group has applied here, if this is a coordinator's folder.
    pub(super) fn kept(&self) -> Result<Option<Kept>, ControlError> {
        Kept::read(&self.held.layout.control())
    }
}

fn report((index, state): &(u64, State)) -> StateReport {
    StateReport {
        index: *index,
        voters: state.voters().iter().map(u64::to_string).collect(),
        nodes: state.nodes().values().map(|node| MemberReport::of(node)).collect(),
        collections: state.collections().values().map(|collection| CollectionReport::of(collection)).collect(),
    }
}
