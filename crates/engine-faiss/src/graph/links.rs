//! The links of a graph as a sealed file that is walked in place.
//!
//! ```text
//! links   lowest level: 2 * links rows (u32) per row, unused ones being 2^32 - 1
//!         each upper level, the lowest first, one record per member, called a slot:
//!             row u32 | slot in the level below u32 (for the lowest upper level: the row) | links slots (u32)
//! ```
//! Slot 0 of every upper level is the graph's entry point. All integers are little endian.

use std::ops::Range;
use std::path::Path;

use sagitta_engine::index::{IndexError, IndexShape};
use sagitta_engine::mapped::{FileDigest, SealedFile, SealedFileWriter};

use super::build::GraphView;
use crate::head::Levels;
use crate::kernels::prefetch;

const NONE: u32 = u32::MAX;
const LINK_BYTES: usize = size_of::<u32>();

/// The row and the slot below, before a slot's links.
const SLOT_HEAD: usize = 2;

pub(crate) struct Links {
    file: SealedFile,
    rows: usize,
    links: usize,
    /// Where each upper level is, the lowest first.
    upper: Vec<Range<usize>>,
}

impl Links {
    /// Writes the links that FAISS made.
    pub(crate) fn build(path: &Path, graph: &GraphView<'_>, links: usize) -> Result<(Levels, FileDigest), IndexError> {
        let mut writer = SealedFileWriter::create(path)?;
        let mut record = Vec::new();
        for row in 0..graph.rows() as u32 {
            pad(&mut record, graph.links(row, 0), 2 * links);
            writer.append(&record)?;
        }
        let mut upper = Vec::new();
        // Where a row is in the level below the one that is being written; in the lowest, rows are their own slots.
        let mut slots_below: Vec<u32> = (0..graph.rows() as u32).collect();
        for level in 1.. {
            let members = members(graph, level);
            if members.is_empty() {
                break;
            }
            let mut slots = vec![NONE; graph.rows()];
            for (slot, &row) in members.iter().enumerate() {
                slots[row as usize] = slot as u32;
            }
            for &row in &members {
                writer.append(&row.to_le_bytes())?;
                writer.append(&slots_below[row as usize].to_le_bytes())?;
                pad(&mut record, graph.links(row, level).map(|row| slots[row as usize]), links);
                writer.append(&record)?;
            }
            upper.push(members.len());
            slots_below = slots;
        }
        Ok((Levels { links, upper }, writer.finish()?))
    }

    pub(crate) fn open(
        path: &Path,
        digest: &FileDigest,
        shape: IndexShape,
        levels: &Levels,
    ) -> Result<Links, IndexError> {
        let file = SealedFile::open(path, Some(digest))?;
        let slot_bytes = (SLOT_HEAD + levels.links) * LINK_BYTES;
        let mut end = shape.rows * 2 * levels.links * LINK_BYTES;
        let mut upper = Vec::new();
        for &slots in &levels.upper {
            upper.push(end..end + slots * slot_bytes);
            end += slots * slot_bytes;
        }
        if file.bytes().len() != end {
            let reason = "its length does not fit the graph".to_string();
            return Err(IndexError::Format { path: path.to_path_buf(), reason });
        }
        Ok(Links { file, rows: shape.rows, links: levels.links, upper })
    }

    pub(crate) fn file(&self) -> &SealedFile {
        &self.file
    }

    /// Upper levels, numbered from 0.
    pub(crate) fn upper_levels(&self) -> usize {
        self.upper.len()
    }

    /// The neighbours of a row in the lowest level. Only rows of this index come out, whatever the file holds.
    #[inline]
    pub(crate) fn of(&self, row: u32) -> Result<impl Iterator<Item = u32> + '_, IndexError> {
        let range = self.range(row);
        self.file.check(range.clone())?;
        Ok(below(&self.file.bytes()[range], self.rows))
    }

    /// Asks the processor to fetch a row's links in the lowest level.
    #[inline]
    pub(crate) fn prefetch(&self, row: u32) {
        prefetch(&self.file.bytes()[self.range(row)]);
    }

    #[inline]
    fn range(&self, row: u32) -> Range<usize> {
        let bytes = 2 * self.links * LINK_BYTES;
        let at = row as usize * bytes;
        at..at + bytes
    }

    /// A member of an upper level.
    pub(crate) fn slot(&self, level: usize, slot: u32) -> Result<Slot<'_>, IndexError> {
        let slot_bytes = (SLOT_HEAD + self.links) * LINK_BYTES;
        let range = &self.upper[level];
        let start = range.start + slot as usize * slot_bytes;
        self.file.check(start..start + slot_bytes)?;
        let (head, links) = self.file.bytes()[start..start + slot_bytes].split_at(SLOT_HEAD * LINK_BYTES);
        let mut head = head.as_chunks().0.iter().map(|&value| u32::from_le_bytes(value));
        let (row, slot_below) = (head.next().unwrap_or(NONE), head.next().unwrap_or(NONE));
        Ok(Slot { row, below: slot_below, links, slots: range.len() / slot_bytes })
    }
}

/// A row's place in an upper level.
pub(crate) struct Slot<'a> {
    pub(crate) row: u32,
    /// Its slot in the level below, or its row if that is the lowest.
    pub(crate) below: u32,
    links: &'a [u8],
    slots: usize,
}

impl<'a> Slot<'a> {
    /// The slots that it is linked to.
    pub(crate) fn links(&self) -> impl Iterator<Item = u32> + use<'a> {
        below(self.links, self.slots)
    }
}

/// The numbers before the first that is not below `bound`, which is where a list ends.
#[inline]
fn below(links: &[u8], bound: usize) -> impl Iterator<Item = u32> + use<'_> {
    let links = links.as_chunks().0.iter().map(|&link| u32::from_le_bytes(link));
    links.take_while(move |&link| (link as usize) < bound)
}

/// The rows in a level, the entry point first, which is in all of them.
fn members(graph: &GraphView<'_>, level: usize) -> Vec<u32> {
    let is_member = |&row: &u32| graph.levels_of(row) > level;
    let others = (0..graph.rows() as u32).filter(|&row| row != graph.entry);
    std::iter::once(graph.entry).chain(others).filter(is_member).collect()
}

fn pad(record: &mut Vec<u8>, links: impl Iterator<Item = u32>, width: usize) {
    record.clear();
    for link in links {
        record.extend_from_slice(&link.to_le_bytes());
    }
    record.resize(width * LINK_BYTES, 0xff);
}
