//! Numbers as people read them.

use std::time::Duration;

/// A number with its thousands separated: 1,234,567.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes: `512 B`, `1.5 KiB`, `12 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A duration with three digits: `850 µs`, `1.23 ms`, `45.6 s`, `3 m 20 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.000_999_5 => format!("{:.0} µs", s * 1e6),
        s if s < 0.999_5 => format!("{} ms", three_digits(s * 1e3)),
        s if s < 119.5 => format!("{} s", three_digits(s)),
        s => {
            let whole = s.round() as u64;
            let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
            if hours > 0 { format!("{hours} h {minutes:02} m") } else { format!("{minutes} m {seconds:02} s") }
        }
    }
}

/// A duration that is not known better than to the second: `3 s`, `3 m 20 s`.
pub fn rough_duration(about: Duration) -> String {
    let seconds = about.as_secs_f64().ceil();
    if seconds < 120.0 { format!("{seconds} s") } else { duration(Duration::from_secs_f64(seconds)) }
}

/// A rate or another positive number with three digits, grouped when it is large: `0.012`, `3.14`, `12,345`.
pub fn number(x: f64) -> String {
    if x >= 1000.0 { grouped(x.round() as u64) } else { three_digits(x) }
}

/// A count and its noun in the right number: `1 row`, `2,000 rows`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// The same for a noun with a plural of its own: `1 search`, `2 searches`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

fn three_digits(x: f64) -> String {
    let decimals = match x.abs() {
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        x if x >= 0.9995 || x == 0.0 => 2,
        _ => 3,
    };
    format!("{x:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn numbers_read_easily() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 20, "10 MiB"), (u64::MAX, "16 EiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
        let cases = [
            (0, "0 µs"),
            (850, "850 µs"),
            (999_999, "1.00 s"),
            (1_234, "1.23 ms"),
            (45_600, "45.6 ms"),
            (119_000_000, "119 s"),
            (200_000_000, "3 m 20 s"),
            (7_320_000_000, "2 h 02 m"),
        ];
        for (micros, text) in cases {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
        assert_eq!(
            [number(12_345.4), number(3.1449), number(0.0123), number(0.0)],
            ["12,345", "3.14", "0.012", "0.00"]
        );
        let rough = [0, 300, 18_600, 119_100, 200_000].map(|millis| rough_duration(Duration::from_millis(millis)));
        assert_eq!(rough, ["0 s", "1 s", "19 s", "2 m 00 s", "3 m 20 s"]);
        assert_eq!([count(1, "row"), count(2000, "row")], ["1 row", "2,000 rows"]);
        assert_eq!([1, 0].map(|n| counted(n, "search", "searches")), ["1 search", "0 searches"]);
    }
}
