//! What clients did to a cluster, and whether it can have been right.
//!
//! A test hands a [`Recorder`] to its clients, and then the [`History`] with a [`Model`] of what they talked to (their
//! [`Points`] or the [`Catalog`] of collections) to [`require`]: it panics unless every answer is explained by some
//! order of the operations in which each took effect between its call and its return, with what cannot be explained.
//! [`unsettled`] is the cheap check for very long histories: does the end agree with what was acknowledged?
//!
//! May not know: Sagitta. Histories are numbers and names, so that a simulation and real processes record alike.

mod catalog;
mod history;
mod model;
mod points;
mod recorder;
mod report;
mod search;
mod settled;

pub use catalog::{Catalog, CatalogInput, CatalogOutput};
pub use history::{Freshness, History, Operation, Outcome};
pub use model::Model;
pub use points::{PointInput, PointOutput, Points};
pub use recorder::{Call, Recorder};
pub use report::require;
pub use search::{BUDGET_STEPS, Verdict, Violation, check};
pub use settled::{Fault, Unsettled, unsettled};
