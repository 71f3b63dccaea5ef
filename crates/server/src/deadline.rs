//! Until when a caller waits: the `grpc-timeout` of the call.

use std::time::Duration;

use sagitta_env::{Deadline, Env};
use tonic::metadata::MetadataMap;

/// For callers that name no deadline: work must end some time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is kept of a caller's time for the answer to travel, at most. An answer that comes when the caller's own clock has ended the
/// call tells nobody why there was none.
const MAX_MARGIN: Duration = Duration::from_millis(50);

/// The deadline of a call on the environment's clock.
pub(crate) fn deadline(metadata: &MetadataMap, env: &Env) -> Deadline {
    env.deadline(work_time(asked(metadata).unwrap_or(DEFAULT_TIMEOUT)))
}

/// How much of the time that a caller waits there is to work in.
fn work_time(timeout: Duration) -> Duration {
    timeout - (timeout / 20).min(MAX_MARGIN)
}

/// The deadline of a call from another node. One that names none has none: it ends with its caller.
pub(crate) fn forwarded(metadata: &MetadataMap, env: &Env) -> Deadline {
    asked(metadata).map_or(Deadline::NEVER, |timeout| env.deadline(timeout))
}

fn asked(metadata: &MetadataMap) -> Option<Duration> {
    metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?))
}

/// At most eight digits and a unit, as the gRPC protocol over HTTP/2 defines `Timeout`.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let n: u64 = if valid { digits.parse().ok()? } else { return None };
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_callers_time_is_kept_for_the_answer() {
        let millis = Duration::from_millis;
        for (timeout, work) in [(0, 0), (20, 19), (1_000, 950), (60_000, 59_950)] {
            assert_eq!(work_time(millis(timeout)), millis(work), "{timeout} ms");
        }
        assert_eq!(work_time(Duration::MAX), Duration::MAX - MAX_MARGIN);
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_defines_them() {
        let good =
            [("5S", 5_000_000), ("250m", 250_000), ("7u", 7), ("2M", 120_000_000), ("1H", 3_600_000_000), ("3000n", 3)];
        for (text, micros) in good {
            assert_eq!(parse(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
