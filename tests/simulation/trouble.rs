//! Faults one after the other, of which the cluster must get over each.

use std::time::Duration;

use crate::world::World;

/// An hour.
const HOUR_MICROS: i64 = 3_600_000_000;

/// Troubles these nodes, of which a majority stays well.
pub(crate) struct Trouble {
    nodes: Vec<usize>,
    /// What to do about the present fault.
    remedy: Option<(Remedy, usize)>,
}

#[derive(Clone, Copy)]
enum Remedy {
    Reconnect,
    Release,
    Restart,
}

impl Trouble {
    pub(crate) fn among(nodes: Vec<usize>) -> Self {
        Self { nodes, remedy: None }
    }

    /// Ends the present fault or begins another one, and lets some time pass.
    pub(crate) fn stir(&mut self, world: &mut World) {
        if self.remedy.is_some() {
            self.end(world);
            let calm = 200 + world.dice.below(800);
            world.run_for(Duration::from_millis(calm));
            return;
        }
        let at = world.dice.pick(&self.nodes);
        let remedy = match world.dice.below(9) {
            0 => {
                world.isolate(at);
                Remedy::Reconnect
            }
            1 => {
                world.mute(at);
                Remedy::Reconnect
            }
            2 => {
                world.deafen(at);
                Remedy::Reconnect
            }
            3 | 4 => {
                world.hold(at);
                Remedy::Release
            }
            5 => {
                world.kill(at);
                Remedy::Restart
            }
            6 => {
                let other = world.dice.pick(&self.nodes);
                if other != at {
                    world.part(at, other);
                }
                Remedy::Reconnect
            }
            7 => {
                world.hold_from_peers(at);
                Remedy::Release
            }
            _ => {
                let by = world.dice.pick(&[HOUR_MICROS, -HOUR_MICROS]);
                world.jump(at, by);
                return;
            }
        };
        self.remedy = Some((remedy, at));
        let lasts = 300 + world.dice.below(2_500);
        world.run_for(Duration::from_millis(lasts));
    }

    /// Ends the present fault.
    pub(crate) fn end(&mut self, world: &mut World) {
        match self.remedy.take() {
            Some((Remedy::Reconnect, at)) => world.reconnect(at),
            Some((Remedy::Release, at)) => world.release(at),
            Some((Remedy::Restart, at)) => world.restart(at),
            None => {}
        }
    }
}
