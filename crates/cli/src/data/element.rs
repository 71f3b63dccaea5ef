//! Types of numbers in binary files.

use super::error::BadValue;

/// The type of one number in a binary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit signed integer.
    I16,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit signed integer.
    I32,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit signed integer.
    I64,
    /// 64-bit unsigned integer.
    U64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision; rounded to single when read as a vector.
    F64,
}

impl Element {
    /// Bytes per number.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// The name that numpy gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::U16 => "uint16",
            Self::I32 => "int32",
            Self::U32 => "uint32",
            Self::I64 => "int64",
            Self::U64 => "uint64",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Whether it is one of the integers.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Reads a row as a vector. Refuses NaN, infinities and integers that float32 cannot hold; the column
    /// of a refusal is the component's index in brackets.
    pub(crate) fn vector(self, bytes: &[u8], big_endian: bool) -> Result<Vec<f32>, BadValue> {
        let vector: Vec<f32> = match self {
            Self::I8 => numbers(bytes, big_endian, i8::from_le_bytes).map(f32::from).collect(),
            Self::U8 => numbers(bytes, big_endian, u8::from_le_bytes).map(f32::from).collect(),
            Self::I16 => numbers(bytes, big_endian, i16::from_le_bytes).map(f32::from).collect(),
            Self::U16 => numbers(bytes, big_endian, u16::from_le_bytes).map(f32::from).collect(),
            Self::I32 => exact(numbers(bytes, big_endian, i32::from_le_bytes).map(i128::from))?,
            Self::U32 => exact(numbers(bytes, big_endian, u32::from_le_bytes).map(i128::from))?,
            Self::I64 => exact(numbers(bytes, big_endian, i64::from_le_bytes).map(i128::from))?,
            Self::U64 => exact(numbers(bytes, big_endian, u64::from_le_bytes).map(i128::from))?,
            Self::F16 => numbers(bytes, big_endian, u16::from_le_bytes).map(widen_half).collect(),
            Self::F32 => numbers(bytes, big_endian, f32::from_le_bytes).collect(),
            Self::F64 => numbers(bytes, big_endian, f64::from_le_bytes).map(|x| x as f32).collect(),
        };
        check_finite(&vector)?;
        Ok(vector)
    }

    /// Reads a row of point ids, which are integers of at least 0.
    pub(crate) fn ids(self, bytes: &[u8], big_endian: bool) -> Result<Vec<u64>, BadValue> {
        match self {
            Self::I8 => unsigned(numbers(bytes, big_endian, i8::from_le_bytes)),
            Self::U8 => unsigned(numbers(bytes, big_endian, u8::from_le_bytes)),
            Self::I16 => unsigned(numbers(bytes, big_endian, i16::from_le_bytes)),
            Self::U16 => unsigned(numbers(bytes, big_endian, u16::from_le_bytes)),
            Self::I32 => unsigned(numbers(bytes, big_endian, i32::from_le_bytes)),
            Self::U32 => unsigned(numbers(bytes, big_endian, u32::from_le_bytes)),
            Self::I64 => unsigned(numbers(bytes, big_endian, i64::from_le_bytes)),
            Self::U64 => Ok(numbers(bytes, big_endian, u64::from_le_bytes).collect()),
            Self::F16 | Self::F32 | Self::F64 => {
                let fix = "name the file that holds ids (neighbours), not the one with scores or vectors";
                Err(BadValue::new("", "integers", self.name(), fix))
            }
        }
    }
}

/// Refuses a vector with a NaN or an infinity, naming the component.
pub(crate) fn check_finite(vector: &[f32]) -> Result<(), BadValue> {
    match vector.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(BadValue::new(
            format!("[{at}]"),
            "a finite float32",
            vector[at].to_string(),
            "mend the vector or leave its row out; NaN often comes from normalising a zero vector",
        )),
    }
}

fn numbers<const N: usize, T>(
    bytes: &[u8],
    big_endian: bool,
    from_le: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |&chunk| {
        let mut chunk = chunk;
        if big_endian {
            chunk.reverse();
        }
        from_le(chunk)
    })
}

fn exact(numbers: impl Iterator<Item = i128>) -> Result<Vec<f32>, BadValue> {
    let exactly = |(at, n): (usize, i128)| {
        let x = n as f32;
        if x as i128 == n {
            return Ok(x);
        }
        let fix = "these do not look like vectors; if they are, convert them to float32 and check the loss";
        Err(BadValue::new(format!("[{at}]"), "an integer that float32 holds exactly", n.to_string(), fix))
    };
    numbers.enumerate().map(exactly).collect()
}

fn unsigned<T: TryInto<u64> + Copy + ToString>(numbers: impl Iterator<Item = T>) -> Result<Vec<u64>, BadValue> {
    let one = |(at, n): (usize, T)| {
        let fix = "ids are unsigned; -1 often stands for `no neighbour`: write only real ids";
        n.try_into().map_err(|_| BadValue::new(format!("[{at}]"), "an id of at least 0", n.to_string(), fix))
    };
    numbers.enumerate().map(one).collect()
}

/// An IEEE 754 half as a single: 1 sign bit, 5 exponent bits, 10 fraction bits. Always exact.
pub(crate) fn widen_half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        // Zero and subnormals: a multiple of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        // The exponent's bias grows from 15 to 127.
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_to_the_value_that_its_bits_define() {
        for bits in 0..=u16::MAX {
            let exponent = i32::from(bits >> 10 & 0x1f);
            let fraction = f64::from(bits & 0x3ff) / 1024.0;
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-14),
                0x1f if fraction == 0.0 => f64::INFINITY,
                0x1f => f64::NAN,
                _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let expected = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
            let found = f64::from(widen_half(bits));
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:#06x}: {found}"
            );
        }
    }

    #[test]
    fn numbers_decode_in_both_byte_orders() {
        assert_eq!(Element::F32.vector(&1.5f32.to_be_bytes(), true), Ok(vec![1.5]));
        assert_eq!(Element::F64.vector(&(-2.0f64).to_le_bytes(), false), Ok(vec![-2.0]));
        assert_eq!(Element::I16.vector(&[0xff, 0xfe], true), Ok(vec![-2.0]));
        assert_eq!(Element::I8.vector(&[0x80, 0x7f], false), Ok(vec![-128.0, 127.0]));
        assert_eq!(Element::U32.ids(&7u32.to_be_bytes(), true), Ok(vec![7]));
    }

    #[test]
    fn what_a_float32_cannot_hold_is_refused_with_its_place() {
        let refused = |element: Element, bytes: &[u8]| element.vector(bytes, false).expect_err("refused");
        let row: Vec<u8> = [1.0, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(refused(Element::F32, &row).column, "[1]");
        assert_eq!(refused(Element::F64, &1e300f64.to_le_bytes()).found, "inf");
        assert_eq!(refused(Element::I32, &16_777_217i32.to_le_bytes()).found, "16777217");
        assert_eq!(Element::I32.vector(&16_777_218i32.to_le_bytes(), false), Ok(vec![16_777_218.0]));
        assert_eq!(Element::I32.ids(&(-1i32).to_le_bytes(), false).expect_err("negative").found, "-1");
        assert!(Element::F32.ids(&row, false).is_err());
    }
}
