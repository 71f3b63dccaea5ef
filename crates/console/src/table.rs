//! Tables for people.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A table with a header; columns of numbers are aligned to the right.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    name: &'static str,
    align: Align,
}

/// Which side of a column its cells keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Narrower than this a column is not made to fit the terminal, and wider than this it need not stay.
const NARROWEST: usize = 16;

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| Column { name, align }).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell per column");
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The table without columns in which no row has anything.
    #[must_use]
    pub fn without_empty_columns(mut self) -> Self {
        let kept: Vec<bool> =
            (0..self.columns.len()).map(|at| self.rows.iter().any(|row| !row[at].is_empty())).collect();
        let keeps = |at: &mut usize| {
            *at += 1;
            kept[*at - 1]
        };
        let mut at = 0;
        self.columns.retain(|_| keeps(&mut at));
        for row in &mut self.rows {
            let mut at = 0;
            row.retain(|_| keeps(&mut at));
        }
        self
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table. Where `width` is given, the widest columns are cut so that lines fit.
    pub fn write(&self, out: &mut dyn Write, width: Option<usize>, colour: bool) -> io::Result<()> {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| self.column_width(at)).collect();
        if let Some(width) = width {
            fit(&mut widths, width);
        }
        let [dim, plain] = if colour { ["\x1b[2m", "\x1b[0m"] } else { [""; 2] };
        let header: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        writeln!(out, "{dim}{}{plain}", self.line(&header, &widths))?;
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            writeln!(out, "{}", self.line(&cells, &widths))?;
        }
        Ok(())
    }

    fn column_width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].width());
        cells.chain([self.columns[at].name.width()]).max().unwrap_or(0)
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), column) in cells.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let cell = cut(cell, width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match column.align {
                Align::Left => line.extend([cell.as_str(), &padding]),
                Align::Right => line.extend([padding.as_str(), &cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Takes from the widest columns until the whole line fits.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = 2 * widths.len().saturating_sub(1);
    loop {
        let total = widths.iter().sum::<usize>() + gaps;
        match widths.iter_mut().max() {
            Some(widest) if total > width && *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Text cut to a width, with a mark if something was cut off.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, width: Option<usize>) -> Vec<String> {
        let mut bytes = Vec::new();
        table.write(&mut bytes, width, false).expect("writes");
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn cells_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(&[("name", Align::Left), ("points", Align::Right), ("note", Align::Left)]);
        table.row(vec!["é".into(), "1,000".into(), "two\nlines".into()]);
        table.row(vec!["日本".into(), "7".into(), String::new()]);
        assert_eq!(written(&table, None), ["name  points  note", "é      1,000  two lines", "日本       7"]);
    }

    #[test]
    fn empty_columns_are_left_out() {
        let mut table = Table::new(&[("a", Align::Left), ("b", Align::Left), ("c", Align::Left)]);
        table.row(vec!["1".into(), String::new(), String::new()]);
        table.row(vec!["2".into(), String::new(), "x".into()]);
        assert_eq!(written(&table.without_empty_columns(), None), ["a  c", "1", "2  x"]);
    }

    #[test]
    fn long_cells_are_cut_to_the_terminal() {
        let mut table = Table::new(&[("id", Align::Right), ("payload", Align::Left)]);
        table.row(vec!["123".into(), "日本語 ".repeat(30)]);
        for line in written(&table, Some(40)) {
            assert!(line.width() <= 40, "{line}");
        }
        assert!(written(&table, Some(40))[1].ends_with('…'));
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
