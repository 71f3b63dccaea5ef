//! What a history is compared with.

use std::fmt::Debug;
use std::hash::Hash;

/// A sequential object: what its operations do to a state when they come one after the other.
pub trait Model {
    /// Operations on different keys do not see each other. A history is linearizable when its part of each key is
    /// (Herlihy and Wing 1990, "locality"), so each is searched for itself.
    type Key: Ord + Debug;
    /// Of one key. What is not known yet (the identity that a lost answer would have told) is a state of its own,
    /// which a later output makes definite.
    type State: Clone + Eq + Hash + Debug;
    /// What a client asked for.
    type Input: Debug;
    /// What it was told.
    type Output: Debug;

    /// The key that an operation is about.
    fn key(&self, input: &Self::Input) -> Self::Key;

    /// The state of a key before any operation.
    fn initial(&self, key: &Self::Key) -> Self::State;

    /// The state after the operation, or `None` when it cannot have answered so in this state. Without an output any
    /// answer will do.
    fn step(&self, state: &Self::State, input: &Self::Input, output: Option<&Self::Output>) -> Option<Self::State>;

    /// The operation changes no state, whatever it answers. Such ones are taken as soon as they fit, which spares the
    /// search most of what it would try.
    fn is_read(&self, input: &Self::Input) -> bool;

    /// Whether this answer, or what follows from it, can depend on `lost` having taken effect. `true` is never wrong;
    /// `false` lets the search forget operations with unknown outcomes, which otherwise stay under way for ever.
    fn may_reveal(&self, _input: &Self::Input, _output: &Self::Output, _lost: &Self::Input) -> bool {
        true
    }
}
