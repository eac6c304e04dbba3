//! Output for people and for programs.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use super::exit::{Exit, Failure};

/// stdout. A reader that has gone ends the command quietly instead of with a panic.
#[derive(Debug)]
pub struct Out {
    terminal: bool,
}

impl Out {
    /// The process's stdout.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Whether a person reads it.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(Failure::silent(Exit::Success))
            }
            Err(cause) => Err(Failure::setup(format!("cannot write to stdout: {cause}"))),
        }
    }

    /// Our own text, and a line end where it has none.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.ended(text.to_owned())
    }

    /// A server's text: as it is for a program, without the control characters that drive a terminal
    /// for a person. A line end is added where it has none.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn foreign(&mut self, text: &str) -> Result<(), Failure> {
        self.ended(if self.terminal {
            tame(text)
        } else {
            text.to_owned()
        })
    }

    /// A value as indented JSON.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.ended(text),
            Err(cause) => Err(Failure::setup(format!("cannot write JSON: {cause}"))),
        }
    }

    fn ended(&mut self, mut text: String) -> Result<(), Failure> {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.bytes(text.as_bytes())
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

/// Text on one line, without control characters.
#[must_use]
pub fn plain(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// Text over several lines, control characters shown and not sent: a server's text must not move the
/// cursor, set the title or fill the clipboard.
fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => tamed.push(c),
            '\r' => {}
            c if c.is_control() => {
                let _ = write!(tamed, "{}", c.escape_unicode());
            }
            c => tamed.push(c),
        }
    }
    tamed
}

/// A table without borders. On a terminal it fits the width; for a program every row is one line.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|text| text.to_uppercase()));
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// `0.31 ms`.
#[must_use]
pub fn millis(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1000.0)
}

/// `12.3 KiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "one digit after the point is shown"
    )]
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_sizes_as_people_do() {
        assert_eq!(
            (size(1023).as_str(), size(1536).as_str()),
            ("1023 bytes", "1.5 KiB")
        );
        assert_eq!(size(5 << 40), "5.0 TiB");
    }

    #[test]
    fn a_servers_text_cannot_drive_the_terminal() {
        assert_eq!(tame("a\tb\r\nc"), "a\tb\nc");
        assert_eq!(tame("\x1b]0;owned\x07"), "\\u{1b}]0;owned\\u{7}");
        assert_eq!(plain("a\n  b\x1b[2J"), "a b[2J");
    }

    #[test]
    fn a_row_is_a_line() {
        let text = table(
            &["name", "what"],
            &[
                vec!["a".into(), "x y z ".repeat(60)],
                vec!["bb".into(), String::new()],
            ],
        );
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("NAME  WHAT"));
    }
}
