//! The only place that prints: results to standard output, progress and warnings to standard error.

use std::io::{self, IsTerminal, Write};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use comfy_table::{Cell, Table, presets};
use serde::Serialize;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: columns separated by spaces.
    #[default]
    Short,
    /// For machines.
    Json,
    /// For machines, readable.
    Yaml,
}

/// One line of a result.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    Ok(writeln!(io::stdout(), "{}", text.as_ref())?)
}

/// One line about what is going on, or a warning.
pub fn note(text: impl AsRef<str>) {
    // Nobody to tell when even the error output is gone.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Asks before something is changed; goes on at once where `skip` says so.
///
/// # Errors
/// When the answer is not yes, or nobody is there to answer.
pub fn confirm(question: &str, skip: bool) -> Result<()> {
    if skip {
        return Ok(());
    }
    ensure!(io::stdin().is_terminal(), "this asks before it acts: add --skip-confirmation to run without a terminal");
    note(format!("{question} Proceed? (y/N)"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        line("Cancelled.")?;
        bail!("not confirmed");
    }
    Ok(())
}

/// A result for machines.
///
/// # Errors
/// When it cannot be written, or when `format` is for people.
pub fn machine(format: Format, value: &impl Serialize) -> Result<()> {
    match format {
        Format::Json => {
            let mut text = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
            line(String::from_utf8_lossy(&text))
        }
        Format::Yaml => line(serde_saphyr::to_string(value)?.trim_end()),
        Format::Short => bail!("a table has no machine form"),
    }
}

/// A table with aligned columns and no borders, which scripts split at spaces.
///
/// # Errors
/// When standard output is closed.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    line(format_table(header, rows, 1))
}

/// [`table`] with five spaces between columns.
///
/// # Errors
/// When standard output is closed.
pub fn wide_table(header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    line(format_table(header, rows, 5))
}

fn format_table(header: &[&str], rows: Vec<Vec<String>>, padding: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(Cell::new));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, padding));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_spaces_only() {
        let text =
            format_table(&["NAME", "X"], vec![vec!["a".into(), "1".into()], vec!["longer".into(), "2".into()]], 1);
        assert_eq!(text, "NAME   X\na      1\nlonger 2");
    }
}
