//! Rows of text, as a table for people or as lines for programs.

use super::Format;

/// Prints rows in the form asked for; JSON is the caller's.
pub fn print(format: Format, heading: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(format, heading, rows));
}

fn render(format: Format, heading: &[&str], rows: &[Vec<String>]) -> String {
    if format == Format::Compact {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
    let heading: Vec<String> = heading.iter().map(|name| name.to_uppercase()).collect();
    let mut widths: Vec<usize> = heading.iter().map(String::len).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let text = cells.collect::<Vec<_>>().join("  ");
        text.trim_end().to_owned() + "\n"
    };
    std::iter::once(&heading).chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            render(Format::Table, &["name", "n"], &rows),
            "NAME  N\na     1\nlong  22\n"
        );
        assert_eq!(
            render(Format::Compact, &["name", "n"], &rows),
            "a\t1\nlong\t22\n"
        );
    }
}
