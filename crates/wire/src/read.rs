//! What reads have in common: which parts to return, and how fresh.

use sagitta_model::limits;
use sagitta_model::{
    Consistency, FieldPath, PayloadSelection, Schema, Selection, VectorSelection, VersionToken, Violation,
};

use crate::common::{Convert, count, each};
use crate::error::{TokenFault, WireError};
use crate::v1;
use crate::v1::{payload_selection, read_consistency, vector_selection};
use crate::version;

/// Paths in one list of paths: more than any sensible schema has fields, and cheap to look up per point.
pub(crate) const MAX_PATHS: usize = 256;
/// Version tokens in one read: the writes of a busy session, if it never merges them.
pub(crate) const MAX_VERSION_TOKENS: usize = 64;

/// Reads the two fields `payload` and `vectors`.
pub(crate) fn selection_from(
    payload: Option<v1::PayloadSelection>,
    vectors: Option<v1::VectorSelection>,
) -> Result<Selection, Violation> {
    let payload = payload.map(payload_from).transpose().map_err(|v| v.within("payload"))?;
    let vectors = vectors.map(vectors_from).transpose().map_err(|v| v.within("vectors"))?;
    Ok(Selection { payload: payload.unwrap_or_default(), vectors: vectors.unwrap_or_default() })
}

pub(crate) fn selection_into(selection: Selection) -> (Option<v1::PayloadSelection>, Option<v1::VectorSelection>) {
    use payload_selection::Selection as P;
    use vector_selection::Selection as V;
    let payload = match selection.payload {
        PayloadSelection::None => None,
        PayloadSelection::All => Some(P::All(true)),
        PayloadSelection::Include(paths) => Some(P::Include(paths_into(&paths))),
        PayloadSelection::Exclude(paths) => Some(P::Exclude(paths_into(&paths))),
    };
    let vectors = match selection.vectors {
        VectorSelection::None => None,
        VectorSelection::All => Some(V::All(true)),
        VectorSelection::Names(names) => Some(V::Include(v1::VectorNameList { names })),
    };
    (
        payload.map(|selection| v1::PayloadSelection { selection: Some(selection) }),
        vectors.map(|selection| v1::VectorSelection { selection: Some(selection) }),
    )
}

/// Checks that the collection has the selected vectors.
pub(crate) fn check_selection(selection: &Selection, schema: &Schema) -> Result<(), Violation> {
    let VectorSelection::Names(names) = &selection.vectors else { return Ok(()) };
    for (at, name) in names.iter().enumerate() {
        let known = schema.vector(name);
        known.map_err(|v| Violation::new(format!("vectors.include.names[{at}]"), v.reason))?;
    }
    Ok(())
}

fn payload_from(proto: v1::PayloadSelection) -> Result<PayloadSelection, Violation> {
    match proto.selection {
        Some(payload_selection::Selection::All(true)) => Ok(PayloadSelection::All),
        Some(payload_selection::Selection::All(false)) | None => Ok(PayloadSelection::None),
        Some(payload_selection::Selection::Include(list)) => {
            paths_from(list).map(PayloadSelection::Include).map_err(|v| v.within("include"))
        }
        Some(payload_selection::Selection::Exclude(list)) => {
            paths_from(list).map(PayloadSelection::Exclude).map_err(|v| v.within("exclude"))
        }
    }
}

fn vectors_from(proto: v1::VectorSelection) -> Result<VectorSelection, Violation> {
    match proto.selection {
        Some(vector_selection::Selection::All(true)) => Ok(VectorSelection::All),
        Some(vector_selection::Selection::All(false)) | None => Ok(VectorSelection::None),
        Some(vector_selection::Selection::Include(list)) => {
            count("include.names", list.names.len(), 0, limits::MAX_VECTORS)?;
            Ok(VectorSelection::Names(list.names))
        }
    }
}

/// Reads a list of paths into payloads.
pub(crate) fn paths_from(proto: v1::FieldPathList) -> Result<Vec<FieldPath>, Violation> {
    count("paths", proto.paths.len(), 0, MAX_PATHS)?;
    each("paths", proto.paths, |path| path.parse())
}

pub(crate) fn paths_into(paths: &[FieldPath]) -> v1::FieldPathList {
    v1::FieldPathList { paths: paths.iter().map(|path| path.as_str().to_owned()).collect() }
}

impl Convert for Consistency {
    type Proto = v1::ReadConsistency;
    type Error = WireError;

    fn from_proto(proto: v1::ReadConsistency) -> Result<Self, WireError> {
        match proto.level {
            Some(read_consistency::Level::Eventual(v1::EventualConsistency {})) | None => Ok(Self::Eventual),
            Some(read_consistency::Level::Strong(v1::StrongConsistency {})) => Ok(Self::Strong),
            Some(read_consistency::Level::Session(session)) => {
                let tokens = session_from(session).map_err(|error| error.within("session"))?;
                Ok(Self::Session(tokens))
            }
        }
    }

    fn into_proto(self) -> v1::ReadConsistency {
        let level = match self {
            Self::Eventual => read_consistency::Level::Eventual(v1::EventualConsistency {}),
            Self::Strong => read_consistency::Level::Strong(v1::StrongConsistency {}),
            Self::Session(tokens) => {
                let version_tokens = if tokens.is_empty() { Vec::new() } else { vec![version::encode(tokens)] };
                read_consistency::Level::Session(v1::SessionConsistency { version_tokens })
            }
        };
        v1::ReadConsistency { level: Some(level) }
    }
}

/// Reads a request's optional field `consistency`.
pub(crate) fn consistency_from(proto: Option<v1::ReadConsistency>) -> Result<Consistency, WireError> {
    let consistency = proto.map(Consistency::from_proto).transpose();
    consistency.map(Option::unwrap_or_default).map_err(|error| error.within("consistency"))
}

fn session_from(proto: v1::SessionConsistency) -> Result<Vec<VersionToken>, WireError> {
    let field = "version_tokens";
    count(field, proto.version_tokens.len(), 0, MAX_VERSION_TOKENS)?;
    let lists = each(field, proto.version_tokens, |token| {
        version::decode(&token).map_err(|fault| WireError::VersionToken { field: String::new(), fault })
    })?;
    let places = version::newest(lists.concat());
    if places.len() > version::MAX_PLACES {
        return Err(WireError::VersionToken { field: field.to_owned(), fault: TokenFault::TooLong });
    }
    Ok(places)
}
