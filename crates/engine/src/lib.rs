//! TODO

pub mod bitmap;
pub mod index;
pub mod kv;
pub mod mapped;
