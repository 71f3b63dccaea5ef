//! Durations as people write them.

use std::time::Duration;

/// A duration: seconds, or a number with `ms`, `s`, `m` or `h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST_SECONDS: f64 = 30.0 * 86_400.0;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = digits.parse::<f64>().unwrap_or(f64::NAN) * unit;
    if seconds > 0.0 && seconds <= LONGEST_SECONDS {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err("expected seconds or a number with ms, s, m or h, such as 500ms or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("30"), Ok(30.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("1.5m"), Ok(90.0));
        for bad in ["", "0", "-1s", "5 s", "5d", "ms", "inf", "1e9h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
