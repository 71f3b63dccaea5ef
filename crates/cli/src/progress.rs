//! Progress of long commands on the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sagitta_env::Env;

use crate::humane;

/// A bar on standard error with rows, rate and the time that is left; where that is not a terminal, a line of the same
/// every half a minute, so that a log shows that a long import is alive.
pub struct Progress {
    env: Env,
    bar: ProgressBar,
    started: Duration,
    first: u64,
    first_fraction: f64,
    now: u64,
    /// When the latest line was written, where there is no bar.
    said: Duration,
}

/// Steps of the bar.
const STEPS: u64 = 10_000;

/// Redraws per second.
const REDRAWS: u8 = 8;

/// Time between lines where there is no bar.
const SAY_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    /// Begins at a row that may not be the first, when `fraction` of the whole, from 0 to 1, was done before.
    pub fn begin(env: &Env, first: u64, fraction: f64) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}");
        let style = style.expect("invariant: the template is valid").progress_chars("━╸ ");
        let bar = ProgressBar::with_draw_target(Some(STEPS), target).with_style(style);
        let started = env.now();
        Self { env: env.clone(), bar, started, first, first_fraction: fraction, now: first, said: started }
    }

    /// Notes that all rows before `row` are done, which are `fraction` of the whole.
    pub fn advance(&mut self, row: u64, fraction: f64) {
        self.now = row;
        let fraction = fraction.clamp(0.0, 1.0);
        if !self.bar.is_hidden() {
            self.bar.set_position((fraction * STEPS as f64) as u64);
            self.bar.set_message(self.message(fraction));
        } else if self.env.now().saturating_sub(self.said) >= SAY_EVERY {
            self.said = self.env.now();
            eprintln!("{:.0} %  {}", 100.0 * fraction, self.message(fraction));
        }
    }

    fn message(&self, fraction: f64) -> String {
        let mut message = format!("{}  {} rows/s", humane::count(self.now, "row"), humane::number(self.rate()));
        if let Some(left) = self.time_left(fraction) {
            message += &format!("  {} left", humane::rough_duration(left));
        }
        message
    }

    /// Writes a line above the bar, or to standard error where there is none.
    pub fn note(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Rows done since the beginning.
    pub fn rows(&self) -> u64 {
        self.now - self.first
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.env.now().saturating_sub(self.started)
    }

    /// Rows per second since the beginning.
    pub fn rate(&self) -> f64 {
        self.rows() as f64 / self.elapsed().as_secs_f64().max(1e-9)
    }

    fn time_left(&self, fraction: f64) -> Option<Duration> {
        let done = fraction - self.first_fraction;
        let seconds = self.elapsed().as_secs_f64() * (1.0 - fraction) / done;
        (done > 0.001).then(|| Duration::try_from_secs_f64(seconds.max(0.0)).ok()).flatten()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
