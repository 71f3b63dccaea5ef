//! Many short waits of which few come to their end, for the price of few timers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Elapsed, Env};

/// Waits for what is usually over before the time has come, such as an answer that may be late.
///
/// A timer of the runtime that is the next to fire makes the runtime wake itself up, to wait anew: 12 us of a query's 135 us, if each
/// query sets one. Here a timer stays set when its wait is over, and is set again only when it has fired and others wait, or when a wait
/// ends sooner than it.
#[derive(Debug)]
pub struct Alarm {
    env: Env,
    waits: Arc<Mutex<Waits>>,
}

#[derive(Debug, Default)]
struct Waits {
    waiting: BTreeMap<Place, Waker>,
    begun: u64,
    /// When the timer fires.
    set: Option<Instant>,
}

/// The end of a wait, and a number to tell it from others that end with it.
type Place = (Instant, u64);

/// Ends when its time has come.
#[derive(Debug)]
#[must_use = "waits only while it is polled"]
pub struct Wait {
    place: Place,
    waits: Arc<Mutex<Waits>>,
}

impl Env {
    /// An alarm of its own.
    pub fn alarm(&self) -> Alarm {
        Alarm { env: self.clone(), waits: Arc::default() }
    }
}

impl Alarm {
    /// A wait for a duration from now. To be called within the async runtime.
    pub fn after(&self, duration: Duration) -> Wait {
        let end = Instant::now() + duration;
        let mut waits = lock(&self.waits);
        waits.begun += 1;
        let place = (end, waits.begun);
        waits.waiting.insert(place, Waker::noop().clone());
        if waits.set.is_none_or(|set| end < set) {
            waits.set = Some(end);
            self.env.spawn(ring(self.waits.clone(), end));
        }
        drop(waits);
        Wait { place, waits: self.waits.clone() }
    }

    /// Waits for a future, at most for a duration.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let (mut wait, mut future) = (self.after(duration), pin!(future));
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(&mut wait).poll(context).map(|()| Err(Elapsed)),
        })
        .await
    }
}

/// Ends waits in their order, until there are none or another timer fires sooner than this one.
async fn ring(waits: Arc<Mutex<Waits>>, mut end: Instant) {
    loop {
        tokio::time::sleep_until(end).await;
        let (due, next) = {
            let mut waits = lock(&waits);
            if waits.set != Some(end) {
                return;
            }
            let later = waits.waiting.split_off(&(end, u64::MAX));
            let due = std::mem::replace(&mut waits.waiting, later);
            waits.set = waits.waiting.keys().next().map(|(end, _)| *end);
            (due, waits.set)
        };
        due.into_values().for_each(Waker::wake);
        match next {
            Some(next) => end = next,
            None => return,
        }
    }
}

fn lock(waits: &Mutex<Waits>) -> MutexGuard<'_, Waits> {
    waits.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match lock(&self.waits).waiting.get_mut(&self.place) {
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        lock(&self.waits).waiting.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    impl Alarm {
        /// When the timer fires, and how many wait.
        fn state(&self) -> (Option<Instant>, usize) {
            let waits = lock(&self.waits);
            (waits.set, waits.waiting.len())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_end_at_their_time_in_any_order_and_none_keeps_a_timer() {
        let alarm = Env::real().alarm();
        let began = Instant::now();
        let after = |ms| {
            let wait = alarm.after(ms * MS);
            async move {
                wait.await;
                Instant::now() - began
            }
        };
        let (c, a, d, b) = tokio::join!(after(30), after(10), after(30), after(20));
        assert_eq!([a, b, c, d], [10 * MS, 20 * MS, 30 * MS, 30 * MS]);
        assert_eq!(alarm.state(), (None, 0));
        assert_eq!(after(5).await, 35 * MS, "and again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_leaves_its_timer_to_the_next_ones() {
        let alarm = Env::real().alarm();
        let began = Instant::now();
        drop(alarm.after(10 * MS));
        let (set, _) = alarm.state();
        for _ in 0..5 {
            tokio::time::advance(MS).await;
            let wait = alarm.after(10 * MS);
            assert_eq!(alarm.state(), (set, 1), "it ends later than the timer");
            drop(wait);
        }
        assert_eq!(alarm.state(), (set, 0));
        alarm.after(10 * MS).await;
        assert_eq!(Instant::now() - began, 15 * MS, "not when the old timer fires");
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_is_waited_for_until_the_time_has_come() {
        let alarm = Env::real().alarm();
        assert_eq!(alarm.timeout(10 * MS, async { 7 }).await, Ok(7));
        let began = Instant::now();
        assert_eq!(alarm.timeout(10 * MS, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(Instant::now() - began, 10 * MS);
    }
}
