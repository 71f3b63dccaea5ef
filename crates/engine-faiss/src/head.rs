//! The head of an index: what is in its other files. Small, read and verified whole when the index is opened.
//!
//! ```text
//! head   shape (24 bytes) | encoding u8 | zero | links u16 | upper levels u32
//!        for each upper level, the lowest first: number of rows u32
//!        unless compact: low, step and centre of the code space, f32 per dimension each
//! ```
//! All integers and floats are little endian.

use std::path::Path;

use sagitta_engine::index::{IndexError, IndexFile, IndexKind, IndexShape};
use sagitta_engine::mapped::{SealedFile, SealedFileWriter};

use crate::codes::CodeSpace;
use crate::kernels::Encoding;

/// Name of the file.
pub(crate) const HEAD: &str = "head";

/// More levels than a graph of 2^32 rows has, each being 16 times as large as the one above it.
const MAX_UPPER_LEVELS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) shape: IndexShape,
    pub(crate) encoding: Encoding,
    /// None for a compact index.
    pub(crate) codes: Option<CodeSpace>,
    /// Empty unless a graph.
    pub(crate) levels: Levels,
}

/// The sizes of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Links per row in the upper levels; twice as many in the lowest.
    pub(crate) links: usize,
    /// Rows in each upper level, the lowest first.
    pub(crate) upper: Vec<usize>,
}

impl Head {
    pub(crate) fn write(&self, dir: &Path) -> Result<IndexFile, IndexError> {
        let mut writer = SealedFileWriter::create(&dir.join(HEAD))?;
        writer.append(&self.to_bytes())?;
        Ok(IndexFile { name: HEAD.to_string(), digest: writer.finish()? })
    }

    pub(crate) fn read(file: &SealedFile) -> Result<Head, IndexError> {
        file.check(0..file.bytes().len())?;
        Head::from_bytes(file.bytes()).map_err(|reason| IndexError::Format { path: file.path().to_path_buf(), reason })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.shape.to_bytes().to_vec();
        bytes.extend([self.encoding as u8, 0]);
        bytes.extend((self.levels.links as u16).to_le_bytes());
        bytes.extend((self.levels.upper.len() as u32).to_le_bytes());
        for &rows in &self.levels.upper {
            bytes.extend((rows as u32).to_le_bytes());
        }
        if let Some(space) = &self.codes {
            for values in space.parts() {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Head, String> {
        let (shape, mut rest) = bytes.split_at_checked(IndexShape::ENCODED_BYTES).ok_or("it is too short")?;
        let shape = IndexShape::from_bytes(shape)?;
        let [encoding, _] = take(&mut rest)?;
        let encoding = match encoding {
            0 => Encoding::U8,
            1 => Encoding::F16,
            2 => Encoding::F32,
            other => return Err(format!("its rows are in an unknown encoding, {other}")),
        };
        let links = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        if count > MAX_UPPER_LEVELS {
            return Err(format!("it has {count} levels"));
        }
        let mut upper = Vec::new();
        for _ in 0..count {
            upper.push(u32::from_le_bytes(take(&mut rest)?) as usize);
        }
        let mut floats = || (0..shape.dim).map(|_| Ok(f32::from_le_bytes(take(&mut rest)?))).collect();
        let codes = match shape.kind {
            IndexKind::Compact => None,
            IndexKind::Flat | IndexKind::Graph => {
                let parts: [Result<Vec<f32>, String>; 3] = [floats(), floats(), floats()];
                let [low, step, centre] = parts;
                Some(CodeSpace::from_parts(shape.metric, [low?, step?, centre?]))
            }
        };
        if !rest.is_empty() {
            return Err(format!("it has {} bytes too many", rest.len()));
        }
        Ok(Head { shape, encoding, codes, levels: Levels { links, upper } })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (value, rest) = bytes.split_first_chunk().ok_or("it is cut short")?;
    *bytes = rest;
    Ok(*value)
}

#[cfg(test)]
mod tests {
    use sagitta_model::Metric;

    use super::*;

    fn example() -> Head {
        let shape = IndexShape { rows: 5, dim: 2, metric: Metric::L2, kind: IndexKind::Graph };
        let codes = CodeSpace::from_parts(Metric::L2, [vec![-1.0, 0.0], vec![0.5, 1.0], vec![0.0, 2.0]]);
        let levels = Levels { links: 16, upper: vec![3, 1] };
        Head { shape, encoding: Encoding::F16, codes: Some(codes), levels }
    }

    #[test]
    fn the_bytes_are_those_of_version_1() {
        let golden = concat!(
            "53475449",
            "01000000",
            "0500000000000000",
            "02000000",
            "02010000", // shape
            "01",
            "00",
            "1000",
            "02000000",
            "03000000",
            "01000000", // encoding, links, levels
            "000080bf00000000",
            "0000003f0000803f",
            "0000000000000040", // low, step, centre
        );
        let bytes = example().to_bytes();
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
        assert_eq!(Head::from_bytes(&bytes).unwrap(), example());
    }

    #[test]
    fn bytes_too_few_or_too_many_are_refused() {
        let bytes = example().to_bytes();
        for len in 0..bytes.len() {
            assert!(Head::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(Head::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }
}
