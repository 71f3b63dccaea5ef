//! The collections of a cluster: a map from names to identities.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Model;

/// All collections as one object, because a list shows them all as of one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Catalog;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogInput {
    /// Create, unless the name is taken.
    Create(String),
    /// Delete.
    Delete(String),
    /// Look one up.
    Get(String),
    /// Look at all.
    List,
}

/// What it is told. Identities are numbers that tell collections apart which had the same name one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogOutput {
    /// Created, with this identity.
    Created(u64),
    /// Not created: the name is taken.
    Taken,
    /// Deleted.
    Deleted,
    /// There is none of that name.
    Missing,
    /// It exists, with this identity.
    Found(u64),
    /// These exist.
    Listed(BTreeMap<String, u64>),
}

impl Model for Catalog {
    type Key = ();
    /// The identity is unknown where the answer of the creation was lost, until somebody reads it.
    type State = BTreeMap<String, Option<u64>>;
    type Input = CatalogInput;
    type Output = CatalogOutput;

    fn key(&self, _: &CatalogInput) {}

    fn initial(&self, (): &()) -> Self::State {
        BTreeMap::new()
    }

    fn step(&self, state: &Self::State, input: &CatalogInput, output: Option<&CatalogOutput>) -> Option<Self::State> {
        use {CatalogInput as In, CatalogOutput as Out};
        let mut next = state.clone();
        match (input, output) {
            (In::Create(name), None) => {
                next.entry(name.clone()).or_insert(None);
            }
            (In::Create(name), Some(Out::Created(id))) => {
                let fresh = !state.contains_key(name) && !state.values().any(|taken| taken == &Some(*id));
                fresh.then(|| next.insert(name.clone(), Some(*id)))?;
            }
            (In::Create(name), Some(Out::Taken)) => {
                state.get(name)?;
            }
            (In::Delete(name), None) => {
                next.remove(name);
            }
            (In::Delete(name), Some(Out::Deleted)) => {
                next.remove(name)?;
            }
            (In::Delete(name) | In::Get(name), Some(Out::Missing)) => {
                (!state.contains_key(name)).then_some(())?;
            }
            (In::Get(_) | In::List, None) => {}
            (In::Get(name), Some(Out::Found(id))) => identify(&mut next, name, *id)?,
            (In::List, Some(Out::Listed(listed))) => {
                (state.len() == listed.len()).then_some(())?;
                listed.iter().try_for_each(|(name, id)| identify(&mut next, name, *id))?;
            }
            _ => return None,
        }
        Some(next)
    }

    fn is_read(&self, input: &CatalogInput) -> bool {
        matches!(input, CatalogInput::Get(_) | CatalogInput::List)
    }

    /// Names do not depend on each other, but a list shows all, and an identity can be free again.
    fn may_reveal(&self, input: &CatalogInput, output: &CatalogOutput, lost: &CatalogInput) -> bool {
        match (input.name(), lost.name(), output) {
            (Some(_), Some(_), CatalogOutput::Created(_)) => true,
            (Some(name), Some(lost), _) => name == lost,
            _ => true,
        }
    }
}

impl CatalogInput {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Create(name) | Self::Delete(name) | Self::Get(name) => Some(name),
            Self::List => None,
        }
    }
}

/// The collection exists and has this identity, or gets it if nobody knew it.
fn identify(state: &mut BTreeMap<String, Option<u64>>, name: &str, id: u64) -> Option<()> {
    let known = state.get_mut(name)?;
    (*known.get_or_insert(id) == id).then_some(())
}
