//! A page on its way to the client: JSON that is written piece by piece, as fast as the client takes it. However long a
//! page is, only a few pieces of it are in memory.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

/// Where a page is written to, from a thread that may wait.
#[derive(Debug)]
pub(super) struct Sheet {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    written: Vec<u8>,
    complete: bool,
}

/// What the client is sent. It ends with an error where the page is not complete.
#[derive(Debug)]
pub(super) struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

/// A sheet and its other end.
pub(super) fn sheet() -> (Sheet, Pieces) {
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    (Sheet { pieces, written: Vec::new(), complete: false }, Pieces(receiver))
}

impl Sheet {
    /// Nothing is missing.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.complete = true;
        Ok(())
    }
}

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        if self.written.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.written));
        if piece.is_empty() {
            return Ok(());
        }
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::Error::other("the client has gone"))
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        if !self.complete {
            // Nobody may take half a page for a whole one. A client that has gone does not mind.
            let _ = self.pieces.blocking_send(Err(io::Error::other("the page could not be built")));
        }
    }
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Writes `{…}`.
pub(super) fn object<W: Write>(
    out: &mut W,
    fields: impl FnOnce(&mut Fields<'_, W>) -> io::Result<()>,
) -> io::Result<()> {
    out.write_all(b"{")?;
    fields(&mut Fields { out, first: true })?;
    out.write_all(b"}")
}

/// The fields of an object, in the order of writing.
pub(super) struct Fields<'a, W> {
    out: &'a mut W,
    first: bool,
}

impl<W: Write> Fields<'_, W> {
    /// A field with a small value.
    pub(super) fn value(&mut self, name: &str, value: &Value) -> io::Result<()> {
        let out = self.name(name)?;
        Ok(serde_json::to_writer(out, value)?)
    }

    /// A field with a list, of which one item at a time is in memory.
    pub(super) fn list(&mut self, name: &str, items: impl IntoIterator<Item = Value>) -> io::Result<()> {
        let out = self.name(name)?;
        out.write_all(b"[")?;
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                out.write_all(b",")?;
            }
            serde_json::to_writer(&mut *out, &item)?;
        }
        out.write_all(b"]")
    }

    /// A field with an object.
    pub(super) fn object(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut Fields<'_, W>) -> io::Result<()>,
    ) -> io::Result<()> {
        object(self.name(name)?, fields)
    }

    fn name(&mut self, name: &str) -> io::Result<&mut W> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *self.out, name)?;
        self.out.write_all(b":")?;
        Ok(self.out)
    }
}

/// Bytes of a piece; one item may make it longer.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for the client.
const PIECES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let mut out = Vec::new();
        object(&mut out, |page| {
            page.value("a \"b\"", &json!({"c": 1}))?;
            page.list("none", [])?;
            page.list("some", [json!(1), json!("two")])?;
            page.object("inner", |inner| inner.value("d", &json!(null)))?;
            page.object("empty", |_| Ok(()))
        })
        .unwrap();
        let read: Value = serde_json::from_slice(&out).unwrap();
        let wanted = json!({"a \"b\"": {"c": 1}, "none": [], "some": [1, "two"], "inner": {"d": null}, "empty": {}});
        assert_eq!(read, wanted);
    }

    #[tokio::test]
    async fn half_a_page_ends_with_an_error() {
        for complete in [true, false] {
            let (mut sheet, pieces) = sheet();
            let writer = tokio::task::spawn_blocking(move || {
                sheet.write_all(&[b'x'; 3 * PIECE_BYTES]).unwrap();
                if complete {
                    sheet.finish().unwrap();
                }
            });
            let told: Vec<_> = pieces.collect().await;
            writer.await.unwrap();
            assert_eq!(told.iter().all(Result::is_ok), complete);
            assert_eq!(told.iter().flatten().map(Bytes::len).sum::<usize>(), 3 * PIECE_BYTES);
        }
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_stops_when_it_goes() {
        let (mut sheet, mut pieces) = sheet();
        let writer = tokio::task::spawn_blocking(move || {
            let mut written = 0;
            while sheet.write_all(&[b'x'; PIECE_BYTES]).is_ok() {
                written += 1;
            }
            written
        });
        for _ in 0..3 {
            pieces.next().await.unwrap().unwrap();
        }
        drop(pieces);
        assert!(writer.await.unwrap() <= 3 + PIECES_MAX);
    }
}
