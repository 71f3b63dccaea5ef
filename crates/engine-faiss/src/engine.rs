use std::path::Path;
use std::sync::Arc;

use sagitta_engine::index::{
    BuildControl, Built, IndexEngine, IndexError, IndexFile, IndexKind, IndexShape, IndexSpec, Rows, Similarities,
    VectorIndex, check_vector,
};
use sagitta_engine::mapped::{FileDigest, SealedFile};

use crate::codes::{CodeSpace, CodeStore};
use crate::compact::{self, CompactIndex, Inverted};
use crate::flat::FlatIndex;
use crate::graph::GraphIndex;
use crate::graph::build::{BuildCodes, Graph};
use crate::graph::links::Links;
use crate::head::{HEAD, Head, Levels};
use crate::kernels::{Encoding, Kernels};
use crate::rows::RowStore;
use crate::vectors::Vectors;

const ROWS: &str = "rows";
const CODES: &str = "codes";
const LINKS: &str = "links";
const INVERTED: &str = "inverted";

/// Rows between two looks at whether to stop.
const ROWS_PER_CHECK: usize = 1024;

/// Builds and opens indexes by FAISS and the kernels of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaissEngine;

impl IndexEngine for FaissEngine {
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError> {
        spec.check(&rows)?;
        check_rows(spec, rows, control)?;
        let shape = IndexShape { rows: rows.len(), dim: spec.dim, metric: spec.metric, kind: spec.kind };
        let (encoding, digest) = RowStore::build(&dir.join(ROWS), spec.metric, rows, control.stop)?;
        let mut files = vec![IndexFile { name: ROWS.to_string(), digest }];
        let head = match spec.kind {
            IndexKind::Compact => {
                let digest = compact::build(&dir.join(INVERTED), spec, rows, control)?;
                files.push(IndexFile { name: INVERTED.to_string(), digest });
                Head { shape, encoding, codes: None, levels: Levels::default() }
            }
            IndexKind::Flat | IndexKind::Graph => {
                let space = CodeSpace::calibrate(spec.metric, rows);
                let digest = CodeStore::build(&dir.join(CODES), &space, rows, control.stop)?;
                files.push(IndexFile { name: CODES.to_string(), digest });
                let levels = match spec.kind {
                    IndexKind::Graph => build_links(spec, &space, rows, dir, control, &mut files)?,
                    _ => Levels::default(),
                };
                Head { shape, encoding, codes: Some(space), levels }
            }
        };
        files.push(head.write(dir)?);
        (control.progress)(1.0);
        Ok(Built { files })
    }

    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError> {
        let folder = Folder { dir, files };
        let head = Head::read(&folder.open(HEAD)?)?;
        Ok(match head.shape.kind {
            IndexKind::Flat => Arc::new(FlatIndex { vectors: folder.vectors(&head)? }),
            IndexKind::Graph => Arc::new(GraphIndex { vectors: folder.vectors(&head)?, links: folder.links(&head)? }),
            IndexKind::Compact => Arc::new(CompactIndex {
                shape: head.shape,
                rows: folder.rows(head.shape, head.encoding)?,
                inverted: Inverted::read(&dir.join(INVERTED), folder.digest(INVERTED)?, head.shape)?,
                kernels: Kernels::get(),
            }),
        })
    }

    fn similarities(&self) -> &dyn Similarities {
        Kernels::get()
    }
}

fn build_links(
    spec: &IndexSpec,
    space: &CodeSpace,
    rows: Rows<'_>,
    dir: &Path,
    control: &BuildControl<'_>,
    files: &mut Vec<IndexFile>,
) -> Result<Levels, IndexError> {
    let codes = BuildCodes::new(space, rows);
    let graph = Graph::build(&codes, rows.len(), spec.graph, control)?;
    let (levels, digest) = Links::build(&dir.join(LINKS), &graph.view(), spec.graph.links)?;
    files.push(IndexFile { name: LINKS.to_string(), digest });
    Ok(levels)
}

fn check_rows(spec: &IndexSpec, rows: Rows<'_>, control: &BuildControl<'_>) -> Result<(), IndexError> {
    for (at, row) in rows.iter().enumerate() {
        if at.is_multiple_of(ROWS_PER_CHECK) && control.stop.should_stop() {
            return Err(IndexError::Stopped);
        }
        check_vector(spec.metric, row)?;
    }
    Ok(())
}

/// The files of one index.
struct Folder<'a> {
    dir: &'a Path,
    files: &'a [IndexFile],
}

impl Folder<'_> {
    fn digest(&self, name: &str) -> Result<&FileDigest, IndexError> {
        let file = self.files.iter().find(|file| file.name == name);
        file.map(|file| &file.digest).ok_or_else(|| IndexError::Format {
            path: self.dir.join(name),
            reason: "it is not among the files of the index".to_string(),
        })
    }

    fn open(&self, name: &str) -> Result<SealedFile, IndexError> {
        Ok(SealedFile::open(&self.dir.join(name), Some(self.digest(name)?))?)
    }

    fn rows(&self, shape: IndexShape, encoding: Encoding) -> Result<RowStore, IndexError> {
        RowStore::open(&self.dir.join(ROWS), self.digest(ROWS)?, shape, encoding)
    }

    fn links(&self, head: &Head) -> Result<Links, IndexError> {
        Links::open(&self.dir.join(LINKS), self.digest(LINKS)?, head.shape, &head.levels)
    }

    fn vectors(&self, head: &Head) -> Result<Vectors, IndexError> {
        let space = head.codes.clone().expect("invariant: the head of a flat index or a graph has a code space");
        Ok(Vectors {
            shape: head.shape,
            rows: self.rows(head.shape, head.encoding)?,
            codes: CodeStore::open(&self.dir.join(CODES), self.digest(CODES)?, head.shape, space)?,
            kernels: Kernels::get(),
        })
    }
}
