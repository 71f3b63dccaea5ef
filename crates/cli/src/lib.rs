//! The command line of Sagitta: everything behind the binary `sagitta`.
//!
//! May not know: wire types, storage, the insides of a server. It speaks to a cluster through the client crate only.

pub mod data;
pub mod failure;
pub mod filter;
pub mod humane;
pub mod output;
pub mod table;
