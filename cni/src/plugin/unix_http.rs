//! One HTTP request over a Unix socket, with a limit on time and answer. Blocking, like the plugin itself.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Posts a JSON body and returns the status and the body of the answer.
///
/// # Errors
/// When nobody listens, the time is over, or the answer is not HTTP.
pub fn post(socket: &Path, path: &str, body: String, limit: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + limit;
    let mut stream = UnixStream::connect(socket)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    // The agent closes the connection after its answer, as asked.
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            answer.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    parse(&answer)
}

fn parse(answer: &[u8]) -> io::Result<(u16, String)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "answer is not HTTP");
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).ok_or_else(invalid)?;
    let status = status.trim().parse().map_err(|_| invalid())?;
    let chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

/// Joins the pieces of a body. The text is shown to people: a broken end is left out.
fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some((piece, after)) = rest.split_at_checked(size).filter(|_| size > 0) else { break };
        out.push_str(piece);
        body = after.strip_prefix("\r\n").unwrap_or(after);
    }
    out
}

/// As much of an answer as may become an error detail.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_a_length() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(), (200, String::new()));
        assert_eq!(parse(b"HTTP/1.1 500 No\r\n\r\nwhy").unwrap(), (500, "why".to_owned()));
        let chunked = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (500, "abcde".to_owned()));
        assert!(parse(b"SSH-2.0").is_err());
        assert!(parse(b"").is_err());
    }

    #[test]
    fn a_silent_agent_is_given_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let began = Instant::now();
        let error = post(&path, "/x", String::new(), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
