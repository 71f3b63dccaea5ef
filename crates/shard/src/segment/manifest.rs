use std::path::Path;

use sagitta_engine::index::IndexFile;
use sagitta_engine::mapped::{FileDigest, FileError, SealedFile, SealedFileWriter};

use crate::codec::{DecodeError, Encode, Reader, Record, Writer};
use crate::records::{ManifestEntry, decode_u32};
use crate::search::Calibration;

/// Which files make up a segment: the content of `segment.manifest`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SegmentManifest {
    /// Number of rows.
    pub(crate) rows: u32,
    /// Of the table of ids.
    pub(crate) ids: FileDigest,
    /// Of the payload index.
    pub(crate) payload: FileDigest,
    /// By the position of the vector's name in the schema.
    pub(crate) vectors: Vec<VectorManifest>,
}

/// One index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VectorManifest {
    /// As the engine wrote them.
    pub(crate) files: Vec<IndexFile>,
    /// Measured after the build.
    pub(crate) calibration: Calibration,
}

impl SegmentManifest {
    /// Writes and syncs the file.
    pub(crate) fn write(&self, path: &Path) -> Result<FileDigest, FileError> {
        let mut writer = SealedFileWriter::create(path)?;
        writer.append(&self.to_sealed())?;
        writer.finish()
    }

    /// Reads the file of a segment; the error says what is wrong with it.
    pub(crate) fn read(path: &Path, entry: &ManifestEntry) -> Result<Self, String> {
        let (manifest, _) = Self::read_file(path, Some(&entry.digest))?;
        if manifest.rows != entry.rows {
            return Err(format!("{}: it is of {} rows, expected {}", path.display(), manifest.rows, entry.rows));
        }
        Ok(manifest)
    }

    /// Reads the file of a segment that comes from elsewhere, and says which file it is.
    pub(crate) fn discover(path: &Path) -> Result<(Self, FileDigest), String> {
        Self::read_file(path, None)
    }

    fn read_file(path: &Path, expected: Option<&FileDigest>) -> Result<(Self, FileDigest), String> {
        let file = SealedFile::open(path, expected).map_err(|error| error.to_string())?;
        file.check(0..file.bytes().len()).map_err(|error| error.to_string())?;
        let manifest = Self::from_sealed(file.bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((manifest, file.digest()))
    }
}

impl Record for SegmentManifest {
    const NAME: &'static str = "segment manifest";
    const FORMAT: u8 = 1;
}

impl Encode for SegmentManifest {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.rows.into());
        self.ids.encode(writer);
        self.payload.encode(writer);
        writer.list(&self.vectors);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            rows: decode_u32(reader)?,
            ids: FileDigest::decode(reader)?,
            payload: FileDigest::decode(reader)?,
            vectors: reader.list()?,
        })
    }
}

impl Encode for VectorManifest {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.files);
        self.calibration.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { files: reader.list()?, calibration: Calibration::decode(reader)? })
    }
}

impl Encode for IndexFile {
    fn encode(&self, writer: &mut Writer) {
        writer.str(&self.name);
        self.digest.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: reader.str()?.to_owned(), digest: FileDigest::decode(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_keeps_its_bytes() {
        let digest = |bytes| FileDigest { bytes, hash: 0x0102 };
        let file = IndexFile { name: "exact".to_owned(), digest: digest(3) };
        let manifest = SegmentManifest { rows: 300, ids: digest(1), payload: digest(2), vectors: Vec::new() };
        let hex: String = manifest.to_sealed().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "01ac0201000000000000000201000000000000000000000000000002000000000000000201000000000000000000000000000000\
                         e8ab2681fb5b8210";
        assert_eq!(hex, golden);
        let mut writer = Writer::new();
        file.encode(&mut writer);
        let hex: String = writer.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "056578616374030000000000000002010000000000000000000000000000");
        let vectors = vec![VectorManifest { files: vec![file], calibration: Calibration::default() }];
        let manifest = SegmentManifest { vectors, ..manifest };
        assert_eq!(SegmentManifest::from_sealed(&manifest.to_sealed()), Ok(manifest));
    }
}
