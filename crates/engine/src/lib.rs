//! TODO

pub mod bitmap;
pub mod index;
pub mod mapped;
