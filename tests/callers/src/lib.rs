//! What test clients of a cluster say and how they read its answers, whether it is simulated or made of real processes.
//!
//! Chance from a seed ([`Dice`]), points of which each can be told from any other, and operations on collections. Knows the client and what
//! judges histories. May not know: how a cluster is run.

pub mod catalog;
mod dice;
mod points;
mod steady;

pub use dice::{Dice, number, seed};
pub use points::{DIM, agreed, contents, everything, get, id_of, name, point, schema, search, told};
pub use steady::{Look, Steady};
