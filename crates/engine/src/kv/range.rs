/// The keys that a scan visits: from a start (included) to an end (excluded), ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    bulk: bool,
}

impl ScanRange {
    /// Every key of the family.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: after_prefix(prefix), bulk: false }
    }

    /// The keys from `start` on that are before `end`.
    #[must_use]
    pub fn between(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: Some(end.to_vec()), bulk: false }
    }

    /// Of these, only the ones from `key` on: to start in the middle.
    #[must_use]
    pub fn starting_at(mut self, key: &[u8]) -> Self {
        if key > self.start.as_slice() {
            self.start = key.to_vec();
        }
        self
    }

    /// Of these, only the ones after `key`: to go on after the last key of a page.
    #[must_use]
    pub fn starting_after(self, key: &[u8]) -> Self {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        self.starting_at(&next)
    }

    /// Reads ahead and leaves the caches as they are: for passes over much data that is not needed again soon.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.bulk = true;
        self
    }

    /// First key, included.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// First key that is out again; `None` is the end of the family.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether [`bulk`](Self::bulk) was asked for.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// Whether no key can be in it; engines need not look then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.start.as_slice())
    }
}

/// The smallest key that is greater than every key with this prefix, if there is one.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        for (prefix, end) in [
            (&b"ab"[..], Some(&b"ac"[..])),
            (b"a\xff", Some(b"b")),
            (b"a\xff\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(ScanRange::prefix(prefix).end(), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_start_only_ever_narrows_the_range() {
        let range = ScanRange::prefix(b"m");
        assert_eq!(range.clone().starting_at(b"a").start(), b"m");
        assert_eq!(range.clone().starting_at(b"mm").start(), b"mm");
        assert_eq!(range.clone().starting_after(b"mm").start(), b"mm\0");
        assert!(range.starting_at(b"n").is_empty());
    }
}
