//! Tables, as HTML and as plain text, and numbers as they stand in them.

use crate::results::Spread;

/// A table of texts; the first column names its rows.
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { header: header.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    pub fn html(&self) -> String {
        let cells = |tag: &str, cells: &[String]| -> String {
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
        };
        let row = |row: &Vec<String>| {
            format!("<tr><th scope=\"row\">{}</th>{}</tr>\n", escape(&row[0]), cells("td", &row[1..]))
        };
        let rows: String = self.rows.iter().map(row).collect();
        let header = cells("th", &self.header);
        format!(
            "<div class=\"wide\"><table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
        )
    }

    /// Columns side by side, numbers to the right.
    pub fn text(&self) -> String {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        lines().map(line).collect()
    }
}

/// A text as HTML that shows it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A number times a factor; a dash where there is none.
pub fn number(number: Option<f64>, digits: usize, factor: f64) -> String {
    number.map_or_else(|| "\u{2013}".to_owned(), |number| format!("{:.digits$}", factor * number))
}

/// The mean and, where there are several values, their standard deviation; a dash where there is none.
pub fn spread(spread: Option<Spread>, digits: usize, factor: f64) -> String {
    let mean = number(spread.map(|spread| spread.mean), digits, factor);
    match spread.and_then(|spread| spread.deviation) {
        Some(deviation) => format!("{mean} \u{b1} {:.digits$}", factor * deviation),
        None => mean,
    }
}

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A large number with a letter for its thousands: 1.23 G.
pub fn metric(number: f64) -> String {
    let units = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) => format!("{:.2} {unit}", number / size),
        None => format!("{number:.0} "),
    }
}

/// A time in words.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.0} s"),
        seconds if seconds < 6000.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_shown_and_not_obeyed() {
        assert_eq!(escape("<b>\"R&D\"</b> 'x'"), "&lt;b&gt;&quot;R&amp;D&quot;&lt;/b&gt; &#39;x&#39;");
        let mut table = Table::new(["a<b", "c"]);
        table.rows.push(vec!["<script>".to_owned(), "1".to_owned()]);
        let html = table.html();
        assert!(
            html.contains("<th>a&lt;b</th>") && html.contains("&lt;script&gt;") && !html.contains("<script"),
            "{html}"
        );
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["model", "loss"]);
        table.rows.push(vec!["\u{2212} EMD".to_owned(), "3.25 \u{b1} 0.01".to_owned()]);
        assert_eq!(table.text(), "model         loss\n\u{2212} EMD  3.25 \u{b1} 0.01\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 999.0, 1000.0, 1234567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.0, 1500.0, 2.345e12].map(metric), ["12 ", "1.50 k", "2.35 T"]);
        assert_eq!([3.4, 90.0, 600.0, 7200.0].map(duration), ["3 s", "90 s", "10.0 min", "2.0 h"]);
        let several = Spread::of(&[0.5, 0.7]);
        assert_eq!(spread(several, 1, 100.0), "60.0 \u{b1} 14.1");
        assert_eq!(spread(Spread::of(&[0.5]), 2, 1.0), "0.50");
        assert_eq!(spread(None, 2, 1.0), "\u{2013}");
    }
}
