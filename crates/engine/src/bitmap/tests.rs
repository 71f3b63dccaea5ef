use std::collections::BTreeSet;

use super::Bitmap;

/// A bitmap and the plain set that it must equal.
fn check(bitmap: &Bitmap, expected: &BTreeSet<u32>, what: &str) {
    assert_eq!(bitmap.iter().collect::<BTreeSet<_>>(), *expected, "members: {what}");
    assert!(bitmap.iter().is_sorted(), "ascending: {what}");
    assert_eq!(bitmap.count(), expected.len(), "count: {what}");
    let padding = bitmap.words().iter().map(|word| word.count_ones() as usize).sum::<usize>();
    assert_eq!(padding, expected.len(), "no bits beyond the length: {what}");
}

fn every_third(len: usize) -> BTreeSet<u32> {
    (0..len as u32).filter(|row| row % 3 == 0).collect()
}

fn every_fifth(len: usize) -> BTreeSet<u32> {
    (0..len as u32).filter(|row| row % 5 == 1).collect()
}

fn bitmap(len: usize, rows: &BTreeSet<u32>) -> Bitmap {
    Bitmap::from_rows(len, &rows.iter().copied().collect::<Vec<_>>())
}

/// Lengths around the word boundaries, where padding goes wrong.
const LENGTHS: [usize; 9] = [0, 1, 2, 63, 64, 65, 127, 128, 1000];

#[test]
fn set_operations_equal_those_of_a_plain_set() {
    for len in LENGTHS {
        let (threes, fives) = (every_third(len), every_fifth(len));
        let (a, b) = (bitmap(len, &threes), bitmap(len, &fives));
        check(&a, &threes, "from rows");

        let mut both = a.clone();
        both.and(&b);
        check(&both, &(&threes & &fives), "and");
        let mut either = a.clone();
        either.or(&b);
        let mut words = a.clone();
        words.or_words(b.words().iter().copied());
        assert_eq!(words, either, "or of words");
        check(&either, &(&threes | &fives), "or");
        let mut without = a.clone();
        without.and_not(&b);
        check(&without, &(&threes - &fives), "and not");
        let mut complement = a.clone();
        complement.not();
        check(&complement, &(&(0..len as u32).collect::<BTreeSet<_>>() - &threes), "not");
    }
}

#[test]
fn full_and_empty_are_complements() {
    for len in LENGTHS {
        let mut full = Bitmap::full(len);
        check(&full, &(0..len as u32).collect(), "full");
        full.not();
        assert_eq!(full, Bitmap::new(len));
        full.not();
        assert_eq!(full, Bitmap::full(len));
    }
}

#[test]
fn setting_and_clearing_twice_counts_once() {
    let mut rows = Bitmap::new(70);
    for row in [69, 3, 69, 64] {
        rows.set(row);
    }
    assert_eq!(rows.count(), 3);
    rows.clear(3);
    rows.clear(3);
    assert_eq!(rows.count(), 2);
    assert!(rows.contains(69) && rows.contains(64) && !rows.contains(3));
}

#[test]
fn rows_beyond_the_length_are_not_members() {
    let rows = Bitmap::full(3);
    assert!(rows.contains(2));
    assert!(!rows.contains(3) && !rows.contains(64) && !rows.contains(u32::MAX));
}

#[test]
#[should_panic(expected = "row 3 is outside a bitmap of 3 rows")]
fn setting_a_row_beyond_the_length_panics() {
    Bitmap::new(3).set(3);
}
