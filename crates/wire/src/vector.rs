//! Vectors.

use bytes::Bytes;
use sagitta_model::{Violation, limits};

use crate::common::Convert;
use crate::v1;

const COMPONENT_BYTES: usize = size_of::<f32>();

/// A vector's components. Whether they suit a collection is for `VectorSpec::check` to say.
impl Convert for Vec<f32> {
    type Proto = v1::Vector;
    type Error = Violation;

    fn from_proto(proto: v1::Vector) -> Result<Self, Violation> {
        let components = match proto.data {
            Some(v1::vector::Data::Dense(dense)) => dense.values,
            Some(v1::vector::Data::Packed(packed)) => unpack(&packed)?,
            None => return Err(Violation::new("", "is empty: set `packed` or `dense`")),
        };
        check_dimension(components.len())?;
        Ok(components)
    }

    fn into_proto(self) -> v1::Vector {
        v1::Vector { data: Some(v1::vector::Data::Packed(pack(&self))) }
    }
}

pub(crate) fn check_dimension(components: usize) -> Result<(), Violation> {
    match components {
        0 => Err(Violation::new("", "has no components")),
        n if n > limits::MAX_DIMENSION => {
            let reason = format!("has {n} dimensions, at most {} are allowed", limits::MAX_DIMENSION);
            Err(Violation::new("", reason))
        }
        _ => Ok(()),
    }
}

pub(crate) fn unpack(packed: &Bytes) -> Result<Vec<f32>, Violation> {
    let (components, rest) = packed.as_chunks::<COMPONENT_BYTES>();
    if !rest.is_empty() {
        let reason = format!("has {} bytes, expected a multiple of {COMPONENT_BYTES}", packed.len());
        return Err(Violation::new("packed", reason));
    }
    Ok(components.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

pub(crate) fn pack(components: &[f32]) -> Bytes {
    let mut packed = vec![0; components.len() * COMPONENT_BYTES];
    for (bytes, component) in packed.chunks_exact_mut(COMPONENT_BYTES).zip(components) {
        bytes.copy_from_slice(&component.to_le_bytes());
    }
    packed.into()
}
