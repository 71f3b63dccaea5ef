//! Walks that return only the rows of a bitmap.

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{Candidate, IndexError, TopCandidates};

use super::walk::{Walk, into_rows};

/// Walks through every row, and collects the best that pass into `scratch.common.rows`.
///
/// The pool is widened by the share of rows that pass, so that about `breadth` passing ones are in it at the end.
pub(super) fn plain(walk: &mut Walk<'_>, allow: &Bitmap, breadth: usize, rerank: usize) -> Result<(), IndexError> {
    let widened = (breadth as f64 * allow.len() as f64 / allow.count() as f64).ceil() as usize;
    let mut best = TopCandidates::new(rerank);
    walk.start(widened.min(MAX_WIDENED.max(breadth)))?;
    if let Some(entry) = walk.scratch.pool.peek()
        && allow.contains(entry)
    {
        walk.scratch.common.rows.clear();
        walk.scratch.common.rows.push(entry);
        walk.compare()?;
        best.offer(Candidate { row: entry, similarity: walk.scratch.common.keys[0] });
    }
    while let Some(row) = walk.expand()? {
        walk.gather(row)?;
        walk.compare()?;
        walk.offer();
        let scratch = &walk.scratch.common;
        for (&row, &similarity) in scratch.rows.iter().zip(&scratch.keys) {
            if similarity >= best.threshold() && allow.contains(row) {
                best.offer(Candidate { row, similarity });
            }
        }
        if let Some(next) = walk.scratch.pool.peek() {
            walk.index.links.prefetch(next);
        }
    }
    into_rows(&mut best, &mut walk.scratch.common);
    Ok(())
}

/// A widened pool beyond this is slower than scanning the rows that pass.
const MAX_WIDENED: usize = 4096;

/// Rows compared for one expansion at most (ACORN's M): more finds little that the next expansions would not.
const MAX_GATHERED: usize = 32;

/// Rows that pass and are offered at the start, spread over the segment: a filter that has to do with the vectors may leave
/// no passing row near the entry.
const SEEDS: usize = 16;

/// Walks among the rows that pass, over those that do not (ACORN-1: Patel, Kraft, Guestrin, Zaharia 2024), and leaves the
/// best in `scratch.common.rows`.
pub(super) fn two_hop(walk: &mut Walk<'_>, allow: &Bitmap, breadth: usize) -> Result<(), IndexError> {
    walk.start(breadth)?;
    let entry = walk.scratch.pool.peek();
    seed(walk, allow)?;
    if let Some(entry) = entry
        && !allow.contains(entry)
    {
        // Not a result, but where the passing rows near the query are reached from.
        walk.scratch.pool.reset(breadth);
        walk.offer();
        gather_two_hops(walk, allow, entry)?;
        walk.compare()?;
    }
    walk.offer();
    while let Some(row) = walk.expand()? {
        gather_two_hops(walk, allow, row)?;
        walk.compare()?;
        walk.offer();
        if let Some(next) = walk.scratch.pool.peek() {
            walk.index.links.prefetch(next);
        }
    }
    walk.scratch.common.rows.clear();
    walk.scratch.common.rows.extend(walk.scratch.pool.rows());
    Ok(())
}

/// Compares with passing rows from all over the segment.
fn seed(walk: &mut Walk<'_>, allow: &Bitmap) -> Result<(), IndexError> {
    let words = allow.words();
    walk.scratch.common.rows.clear();
    for part in 0..SEEDS.min(words.len()) {
        let (start, end) =
            (part * words.len() / SEEDS.min(words.len()), (part + 1) * words.len() / SEEDS.min(words.len()));
        if let Some(at) = (start..end).find(|&at| words[at] != 0) {
            let row = at as u32 * u64::BITS + words[at].trailing_zeros();
            if walk.scratch.visited.insert(row) {
                walk.scratch.common.rows.push(row);
            }
        }
    }
    walk.compare()
}

/// Collects the unseen passing neighbours of a row, and those of its neighbours that do not pass.
fn gather_two_hops(walk: &mut Walk<'_>, allow: &Bitmap, row: u32) -> Result<(), IndexError> {
    let codes = walk.index.vectors.codes.codes();
    let links = &walk.index.links;
    let scratch = &mut *walk.scratch;
    let found = &mut scratch.common.rows;
    found.clear();
    let mut over: [u32; 64] = [0; 64];
    let mut failing = 0;
    for neighbour in links.of(row)? {
        if allow.contains(neighbour) {
            if scratch.visited.insert(neighbour) {
                codes.prefetch(neighbour);
                found.push(neighbour);
            }
        } else if failing < over.len() && scratch.visited.insert(neighbour) {
            links.prefetch(neighbour);
            over[failing] = neighbour;
            failing += 1;
        }
    }
    for &neighbour in &over[..failing] {
        if found.len() >= MAX_GATHERED {
            break;
        }
        for second in links.of(neighbour)? {
            if allow.contains(second) && scratch.visited.insert(second) {
                codes.prefetch(second);
                found.push(second);
            }
        }
    }
    Ok(())
}
