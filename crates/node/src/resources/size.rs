//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes; written and read with binary units: `4GiB`, `512 MiB`, `1.5g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A size that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a number and a unit, such as 512MiB or 4GiB")]
pub struct SizeError(String);

/// Every unit, smallest first; memory is counted in powers of two, whatever the unit is called.
const UNITS: [(&str, u32); 5] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError(text.to_owned());
        let (number, unit) = match text.find(|c: char| !c.is_ascii_digit() && c != '.') {
            Some(at) => text.split_at(at),
            // A bare number is as likely meant in gigabytes as in bytes: better to ask.
            None => return Err(error()),
        };
        let unit = unit.trim();
        // The whole name, its first letter, or that with a B.
        let named = |(name, _): &&(&str, u32)| {
            let short = &name[..1];
            let rest = unit.get(..1).filter(|first| first.eq_ignore_ascii_case(short)).map(|_| &unit[1..]);
            unit.eq_ignore_ascii_case(name)
                || rest.is_some_and(|rest| rest.is_empty() || rest.eq_ignore_ascii_case("B"))
        };
        let (_, shift) = UNITS.iter().find(named).ok_or_else(error)?;
        let number: f64 = number.parse().map_err(|_| error())?;
        let bytes = number * (1_u64 << shift) as f64;
        // Beyond 2^53 a float counts no single bytes, and nobody has that much.
        if bytes < (1_u64 << 53) as f64 { Ok(Self(bytes as u64)) } else { Err(error()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0).unwrap_or(&UNITS[0]);
        let scaled = self.0 as f64 / (1_u64 << shift) as f64;
        let digits = usize::from(*shift > 0 && scaled < 100.0 && !self.0.is_multiple_of(1 << shift));
        write!(f, "{scaled:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let good = [
            ("4GiB", 4 << 30),
            ("4 GiB", 4 << 30),
            ("512MiB", 512 << 20),
            ("512mb", 512 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("100k", 100 << 10),
            ("7B", 7),
        ];
        for (text, bytes) in good {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "4", "GiB", "4 apples", "-4GiB", "1.2.3GiB", "4GiBs", "99999999T", "nan", "4G 1M"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(SizeError(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_with_the_largest_unit_that_fits() {
        let cases = [(0, "0 B"), (1_023, "1023 B"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB"), (950 << 20, "950 MiB")];
        for (bytes, text) in cases {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
