//! Aligned columns without borders, so that `awk` and people both can read them.

use unicode_width::UnicodeWidthStr as _;

use super::printable;

/// What a word says about the thing it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Somebody may want to look.
    Warn,
    /// Somebody should look.
    Bad,
    /// Out of the picture.
    Faint,
}

impl Tone {
    pub(super) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Warn => 33,
            Self::Bad => 31,
            Self::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One cell: text that is printable, and its tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Makes any text printable; nothing becomes `-`, so that columns stay
    /// countable.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = printable(text.as_ref());
        Self {
            text: if text.is_empty() {
                "-".to_owned()
            } else {
                text
            },
            tone: Tone::Plain,
        }
    }

    /// The same with a tone.
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// Rows of cells under a row of headers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One thing, a line for each of its properties.
    pub fn of_one() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a property: `name:  value`.
    pub fn property(&mut self, name: &str, value: impl Into<Cell>) {
        self.row([Cell::new(format!("{name}:")), value.into()]);
    }

    /// The text with headers and without colours.
    pub fn plain(&self) -> String {
        self.render(true, false)
    }

    pub(super) fn render(&self, headers: bool, colours: bool) -> String {
        let head: Vec<Cell> = self.headers.iter().map(Cell::new).collect();
        let lines: Vec<&[Cell]> = (headers && !head.is_empty())
            .then_some(head.as_slice())
            .into_iter()
            .chain(self.rows.iter().map(Vec::as_slice))
            .collect();
        let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.text.width())
                .max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines {
            for (column, cell) in line.iter().enumerate() {
                text.push_str(&if colours {
                    cell.tone.paint(&cell.text)
                } else {
                    cell.text.clone()
                });
                if column + 1 < line.len() {
                    let missing = widths[column].saturating_sub(cell.text.width());
                    text.extend(std::iter::repeat_n(' ', missing + 2));
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

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row([
            "wéb\u{4e16}\x1b[2J".into(),
            Cell::new("connected").tone(Tone::Good),
        ]);
        table.row([Cell::new(""), "late".into()]);
        table
    }

    #[test]
    fn abuse_28_columns_line_up_by_display_width_and_nothing_drives_the_terminal() {
        let expected = "NAME            STATE\nwéb世\\u{1b}[2J  connected\n-               late\n";
        let text = table().render(true, false);
        assert_eq!(text, expected);
    }

    #[test]
    fn headers_can_be_left_out() {
        assert!(table().render(false, false).starts_with("w"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let text = table().render(true, true);
        assert!(text.contains("\x1b[32mconnected\x1b[0m"));
        let plain = text.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table().render(true, false));
    }
}
