//! Signals on the command line.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// Parses `KILL`, `SIGKILL`, `kill` or `9`.
pub(super) fn parse(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number)
            .map(|signal| signal as i32)
            .map_err(|_| format!("there is no signal {number}"));
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name)
        .map(|signal| signal as i32)
        .map_err(|_| format!("{text:?} is no signal; use a name such as TERM or KILL, or a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for text in ["KILL", "SIGKILL", "kill", "sigkill", "9"] {
            assert_eq!(parse(text), Ok(9), "{text}");
        }
        assert!(parse("FROB").unwrap_err().contains("FROB"));
        assert!(parse("0").is_err());
    }
}
