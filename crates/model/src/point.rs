//! Points: what users store.

use std::collections::BTreeMap;

use crate::value::Object;
use crate::{PointId, Schema, Violation};

/// A point's vectors by name.
pub type NamedVectors = BTreeMap<String, Vec<f32>>;

/// One stored thing: an id, a vector for each of the collection's names, and a payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Identity within the collection.
    pub id: PointId,
    /// Vectors by name; in a stored point exactly those of the schema.
    pub vectors: NamedVectors,
    /// Anything else about the point.
    pub payload: Object,
}

impl Point {
    /// Checks the point against a schema: every vector present and sound, the payload's declared fields typed.
    ///
    /// An unnamed vector (empty name) stands for the only one; it must have been renamed before
    /// ([`Point::name_vector`]).
    pub fn validate(&self, schema: &Schema) -> Result<(), Violation> {
        for (name, spec) in &schema.vectors {
            let at = format!("vectors[\"{name}\"]");
            let vector = self.vectors.get(name).ok_or_else(|| Violation::new(at.clone(), "is missing"))?;
            spec.check(vector).map_err(|v| v.within(&at))?;
        }
        if let Some(unknown) = self.vectors.keys().find(|name| !schema.vectors.contains_key(*name)) {
            let violation = schema.vector(unknown).expect_err("invariant: the name is not in the schema");
            return Err(Violation::new(format!("vectors[\"{unknown}\"]"), violation.reason));
        }
        schema.check_payload(&self.payload)
    }

    /// Gives a vector without a name the name that the schema's only vector has.
    pub fn name_vector(&mut self, schema: &Schema) -> Result<(), Violation> {
        if let Some(vector) = self.vectors.remove("") {
            let (name, _) = schema.vector("").map_err(|v| Violation::new("vectors", v.reason))?;
            self.vectors.insert(name.to_owned(), vector);
        }
        Ok(())
    }
}
