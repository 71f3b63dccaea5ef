//! What a write asks for.

use crate::value::Object;
use crate::{FieldPath, Filter, Point, PointId};

/// A change of a collection's points.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Inserts points, or replaces them whole where the id exists. No id occurs twice.
    Upsert(Vec<Point>),
    /// Deletes these points; ids that do not exist have no effect.
    Delete(Vec<PointId>),
    /// Deletes every point that the filter passes when the change is applied.
    DeleteByFilter(Filter),
    /// Changes payloads and leaves vectors alone.
    UpdatePayload {
        /// Which points.
        target: Target,
        /// What becomes of their payloads.
        change: PayloadChange,
    },
}

/// Which points a payload change is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// These; ids that do not exist have no effect.
    Ids(Vec<PointId>),
    /// Every point that the filter passes when the change is applied.
    Filter(Filter),
}

/// What becomes of a payload.
#[derive(Clone, Debug, PartialEq)]
pub enum PayloadChange {
    /// These top-level fields are set, each as a whole; the others stay.
    Merge(Object),
    /// This is the whole payload.
    Replace(Object),
    /// These fields, of any depth, are removed.
    Delete(Vec<FieldPath>),
}

/// What a write waits for before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Durable, and visible to searches.
    #[default]
    Committed,
    /// In a sealed segment, too.
    Indexed,
}

impl Change {
    /// Whether applying it takes memory and disk. A change of payloads does even where it removes fields: the points
    /// are written anew.
    pub fn adds_data(&self) -> bool {
        match self {
            Self::Upsert(_) | Self::UpdatePayload { .. } => true,
            Self::Delete(_) | Self::DeleteByFilter(_) => false,
        }
    }

    /// Whether it is of the points that pass a filter.
    pub fn is_by_filter(&self) -> bool {
        matches!(self, Self::DeleteByFilter(_) | Self::UpdatePayload { target: Target::Filter(_), .. })
    }
}

impl PayloadChange {
    /// Makes the change.
    pub fn apply(&self, payload: &mut Object) {
        match self {
            Self::Merge(fields) => payload.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone()))),
            Self::Replace(new) => payload.clone_from(new),
            Self::Delete(paths) => paths.iter().for_each(|path| path.remove(payload)),
        }
    }
}
