//! Tables: a header, then rows, columns as wide as their longest cell and three blanks apart, ten at least.

use std::fmt::Write as _;

const GAP: usize = 3;
/// Columns have at least this width with their gap, as in docker.
const WIDTH_MIN: usize = 10;

/// Cells of a table; the first row is the header.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this header.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The text. As docker's: every cell but the last of its row is padded.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                if column + 1 == row.len() {
                    text.push_str(cell);
                } else {
                    let width = (widths.get(column).copied().unwrap_or(0) + GAP).max(WIDTH_MIN);
                    let _ = write!(text, "{cell:width$}");
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        let mut table = Table::new(&["A", "LONG", "C"]);
        table.push(vec!["aé".into(), "b".into(), "c".into()]);
        assert_eq!(table.render(), "A         LONG      C\naé        b         c\n");
    }
}
