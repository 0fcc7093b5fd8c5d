//! `POST /logging`: shows the log filter, adds to it, or returns to the one of the start.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Admin;

/// `?level=<level>` or `?level=<module>:<level>,…` adds to the filter, `?reset` returns to the one
/// of the start; both may be combined; none of them only shows it.
pub(super) async fn logging(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let change = match Change::parse(query.as_deref().unwrap_or_default()) {
        Ok(change) => change,
        Err(problem) => return usage(&problem),
    };
    if change.reset
        && let Err(error) = admin.log.reset()
    {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
    }
    if let Some(directives) = change.level
        && let Err(error) = admin.log.set(&directives)
    {
        return usage(&error.to_string());
    }
    let current = admin.log.current();
    tracing::info!(filter = current, "log filter");
    format!("current log level is {current}\n").into_response()
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    reset: bool,
    level: Option<String>,
}

impl Change {
    /// # Errors
    /// The parameter that means nothing here.
    fn parse(query: &str) -> Result<Self, String> {
        let mut change = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=').unwrap_or((part, "")) {
                ("reset", _) => change.reset = true,
                ("level", directives) => {
                    let text = unescape(directives).ok_or_else(|| format!("{directives:?} is not percent-encoded"))?;
                    change.level = Some(text);
                }
                (other, _) => return Err(format!("unknown parameter {other:?}")),
            }
        }
        Ok(change)
    }
}

fn usage(problem: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{problem}\n{USAGE}")).into_response()
}

/// Percent-decoding; `None` for what is not encoded that way.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    String::from_utf8(bytes).ok()
}

const USAGE: &str = "usage: POST /logging                                    show the current filter\n\
       POST /logging?level=<level>                      change the global level\n\
       POST /logging?level=<module>:<level>,<module>:<level>\n\
       POST /logging?reset                              return to the filter of the start\n\
levels: error, warn, info, debug, trace, off\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_to_change() {
        let change = |reset, level: Option<&str>| Ok(Change { reset, level: level.map(str::to_owned) });
        let table = [
            ("", change(false, None)),
            ("reset", change(true, None)),
            ("reset=true&level=debug", change(true, Some("debug"))),
            ("level=a%3atrace%2Cb=warn", change(false, Some("a:trace,b=warn"))),
            ("level=", change(false, Some(""))),
            ("level=%zz", Err("\"%zz\" is not percent-encoded".to_owned())),
            ("level=%4", Err("\"%4\" is not percent-encoded".to_owned())),
            ("what=x", Err("unknown parameter \"what\"".to_owned())),
        ];
        for (query, expected) in table {
            assert_eq!(Change::parse(query), expected, "{query}");
        }
    }
}
