//! Plain tables for the terminal: columns as wide as their widest cell, numbers to the right.

use std::io::{self, Write};

/// Writes `head` and `rows`; a column whose cells are all numbers stands right.
pub(crate) fn write(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let numeric = |column: usize| {
        let mut cells = rows.iter().filter_map(|r| r.get(column)).peekable();
        cells.peek().is_some()
            && cells.all(|c| {
                c == "-" || c.starts_with(|first: char| first.is_ascii_digit()) && c.parse::<f64>().is_ok()
            })
    };
    let columns: Vec<(usize, bool)> = (0..head.len()).map(|c| (width(c), numeric(c))).collect();
    let heads: Vec<String> = head.iter().map(|&h| h.to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            if *right { line.extend([pad.as_str(), cell]) } else { line.extend([cell.as_str(), &pad]) }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A size for people: three digits or so, in binary units as `df -h` has them.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1024.0, 0);
    // What would be printed as 1024 is 1 of the next.
    while size >= 1023.5 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    let digits = usize::from(size < 9.95);
    format!("{size:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (10 << 20, "10M"),
            ((1 << 20) - 1, "1.0M"),
            (1_500_000_000, "1.4G"),
            (u64::MAX, "16E"),
        ];
        for (bytes, text) in cases {
            assert_eq!(super::human_size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut out = Vec::new();
        let rows = vec![vec!["a".into(), "5".into()], vec!["long".into(), "12".into()]];
        super::write(&mut out, &["NAME", "N"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME   N\na      5\nlong  12\n");
    }
}
