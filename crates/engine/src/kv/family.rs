/// Position of a family in the list that the database was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(u8);

impl Family {
    /// More families than this would each cost a memtable and files for nothing: a prefix of the key does the same.
    pub const MAX: usize = 16;

    /// The family at `index` in the list given to [`KvEngine::open`](super::KvEngine::open).
    ///
    /// # Panics
    /// When `index` is not below [`Self::MAX`]; in a constant the compiler says so.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        assert!(index < Self::MAX, "a database has at most 16 families");
        Self(index as u8)
    }

    /// Position in the list.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an engine has to know about a family in order to store it well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySpec {
    /// Name on disk: lower-case letters, digits and underscores; for ever.
    pub name: &'static str,
    /// Values are mostly a kilobyte or more and hardly compressible (vectors): keep them apart from the keys, so that
    /// compaction does not copy them again and again.
    pub large_values: bool,
}

impl FamilySpec {
    /// A family of small values.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, large_values: false }
    }

    /// A family of large values.
    #[must_use]
    pub const fn large(name: &'static str) -> Self {
        Self { name, large_values: true }
    }

    /// Checks a list as an engine gets it: engines call this first.
    ///
    /// # Panics
    /// When the list is empty or too long, or a name is ill-formed or there twice: the list is written in the code, so
    /// this is a bug and not an input.
    pub fn check_all(families: &[Self]) {
        assert!((1..=Family::MAX).contains(&families.len()), "{} families, want 1 to {}", families.len(), Family::MAX);
        for (i, family) in families.iter().enumerate() {
            let name = family.name;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(!name.is_empty() && name.bytes().all(plain), "family name {name:?}: want [a-z0-9_]+");
            assert!(name != "default", "family name \"default\" is taken by RocksDB");
            assert!(families[..i].iter().all(|other| other.name != name), "family {name:?} is there twice");
        }
    }
}
