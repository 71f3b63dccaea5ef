//! Which format a file is in.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::error::{DataError, quoted};
use super::npy;

/// A format of data files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A numpy array.
    Npy,
    /// TEXMEX rows of floats.
    Fvecs,
    /// TEXMEX rows of bytes.
    Bvecs,
    /// TEXMEX rows of integers.
    Ivecs,
    /// A big-ann matrix of floats.
    Fbin,
    /// A big-ann matrix of unsigned bytes.
    U8bin,
    /// A big-ann matrix of signed bytes.
    I8bin,
    /// A big-ann matrix of integers.
    Ibin,
    /// HDF5 in the layout of ann-benchmarks.
    Hdf5,
    /// One JSON object per line, plain or gzipped.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Self; 11] = [
        Self::Npy,
        Self::Fvecs,
        Self::Bvecs,
        Self::Ivecs,
        Self::Fbin,
        Self::U8bin,
        Self::I8bin,
        Self::Ibin,
        Self::Hdf5,
        Self::Jsonl,
        Self::Parquet,
    ];

    /// Its name and the usual ending of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Fvecs => "fvecs",
            Self::Bvecs => "bvecs",
            Self::Ivecs => "ivecs",
            Self::Fbin => "fbin",
            Self::U8bin => "u8bin",
            Self::I8bin => "i8bin",
            Self::Ibin => "ibin",
            Self::Hdf5 => "hdf5",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// Recognises a file by its first bytes, or, for the formats that have no mark, by its name.
    pub fn detect(path: &Path) -> Result<Self, DataError> {
        let head = head(path)?;
        if let Some(format) = by_mark(&head) {
            return Ok(format);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let ending = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.').map_or("", |(_, ending)| ending);
        match Self::by_ending(ending) {
            // Of no rows there are no lines; every other format has a header, or cannot say that there are none.
            format if head.is_empty() && format != Some(Self::Jsonl) => {
                let fix = "the file is empty: copy, download or write it again";
                Err(DataError::file(path, "size", "at least one row", "0 bytes", fix))
            }
            // Their mark is missing although their name claims them.
            Some(format @ (Self::Npy | Self::Hdf5 | Self::Parquet)) => Err(DataError::file(
                path,
                "first bytes",
                format!("those of a {} file", format.name()),
                shown(&head),
                "check that the file is what its name says; a web page saved instead of the data is a common cause",
            )),
            Some(format) if name.ends_with(".gz") && format != Self::Jsonl => {
                let fix = "only JSON lines are read compressed: gunzip the file first";
                Err(DataError::file(path, "format", "an uncompressed file", format!("gzipped {}", format.name()), fix))
            }
            Some(format) => Ok(format),
            None => Err(DataError::file(
                path,
                "format",
                format!("one of {}", Self::ALL.map(Self::name).join(", ")),
                format!("{} and first bytes {}", quoted(&name), shown(&head)),
                "rename the file, or say what it is with --format",
            )),
        }
    }

    /// The format whose files are named with this ending.
    pub fn by_ending(ending: &str) -> Option<Self> {
        match ending {
            "h5" | "hdf" => Some(Self::Hdf5),
            "ndjson" | "json" => Some(Self::Jsonl),
            "pq" => Some(Self::Parquet),
            "bin" => Some(Self::Ibin),
            _ => Self::ALL.into_iter().find(|format| format.name() == ending),
        }
    }
}

/// First bytes of every gzip stream.
pub(crate) const GZIP_MARK: &[u8] = b"\x1f\x8b";

const HEAD_BYTES: u64 = 64;

/// The first bytes of a file, unpacked if it is gzipped.
fn head(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = |mut source: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        (&mut source).take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(head)
    };
    let mut file = File::open(path).map_err(DataError::io(path, "open the file"))?;
    let head = read(&mut file).map_err(DataError::io(path, "read the file"))?;
    if !head.starts_with(GZIP_MARK) {
        return Ok(head);
    }
    let file = File::open(path).map_err(DataError::io(path, "open the file"))?;
    read(&mut MultiGzDecoder::new(file)).map_err(DataError::io(path, "unpack the file"))
}

fn by_mark(head: &[u8]) -> Option<Format> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match head {
        _ if head.starts_with(npy::MAGIC) => Some(Format::Npy),
        _ if head.starts_with(b"\x89HDF\r\n\x1a\n") => Some(Format::Hdf5),
        _ if head.starts_with(b"PAR1") => Some(Format::Parquet),
        // A binary file could begin with `{` by chance, but not with an object's first key as well.
        _ if text.starts_with(b"{") && text[1..].trim_ascii_start().starts_with(b"\"") => Some(Format::Jsonl),
        _ => None,
    }
}

fn shown(head: &[u8]) -> String {
    quoted(&head.iter().take(8).flat_map(|&byte| std::ascii::escape_default(byte)).map(char::from).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    #[test]
    fn formats_are_known_by_their_first_bytes_before_their_names() {
        let folder = Folder::new();
        let detect = |name: &str, bytes: &[u8]| Format::detect(&folder.write(name, bytes)).map_err(|e| e.to_string());
        assert_eq!(detect("a.fvecs", b"\x93NUMPY\x01\x00"), Ok(Format::Npy));
        assert_eq!(detect("b", b"PAR1...."), Ok(Format::Parquet));
        assert_eq!(detect("c.dat", b"\x89HDF\r\n\x1a\n..."), Ok(Format::Hdf5));
        assert_eq!(detect("d.txt", b"\xef\xbb\xbf { \"id\": 1}"), Ok(Format::Jsonl));
        assert_eq!(detect("e.u8bin", &[1, 0, 0, 0]), Ok(Format::U8bin));
        assert_eq!(detect("f.jsonl.gz", &folder.gzipped(b"{\"id\": 1}")), Ok(Format::Jsonl));
        let gz = detect("g.fvecs.gz", &folder.gzipped(&[4, 0, 0, 0])).expect_err("compressed");
        assert!(gz.contains("gzipped fvecs"), "{gz}");
        let html = detect("h.npy", b"<!DOCTYPE html>").expect_err("a web page");
        assert!(html.contains("`<!DOCTYP`"), "{html}");
        let unknown = detect("i.csv", b"1,2,3").expect_err("unknown");
        assert!(unknown.contains("npy, fvecs") && unknown.contains("i.csv"), "{unknown}");
        for name in ["j.npy", "j.fvecs", "j.parquet", "j"] {
            assert!(detect(name, b"").expect_err("empty").contains("0 bytes"), "{name}");
        }
        assert_eq!(detect("j.jsonl", b""), Ok(Format::Jsonl));
        assert!(Format::detect(Path::new("/does/not/exist")).is_err());
    }
}
