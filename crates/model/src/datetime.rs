//! Points in time as payload fields hold them: RFC 3339 text, compared as microseconds.

/// Microseconds since 1970-01-01T00:00:00Z of an RFC 3339 timestamp with offset (`2026-11-23T14:53:00Z`),
/// or `None` when the text is not one.
pub fn parse_micros(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

/// The RFC 3339 text, in UTC, of a number of microseconds since 1970; `None` outside the years -9999 to 9999.
pub fn format_micros(micros: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(micros).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_applied_and_text_without_one_is_refused() {
        assert_eq!(parse_micros("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(parse_micros("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_micros("1969-12-31T23:59:59.999999Z"), Some(-1));
        for bad in ["", "1970-01-01", "1970-01-01T00:00:00", "yesterday", "1970-13-01T00:00:00Z"] {
            assert_eq!(parse_micros(bad), None, "{bad}");
        }
        assert_eq!(format_micros(1_000_000).as_deref(), Some("1970-01-01T00:00:01Z"));
        assert_eq!(format_micros(i64::MAX), None);
    }
}
