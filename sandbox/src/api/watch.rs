//! Watches: first what is there, then what changes, with bookmarks in between.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::StatusCode;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    ApiServer,
    faults::{Ending, Hold},
    negotiate::Form,
    query::{Params, RevisionMatch},
    read::{rendered, selector},
    resources::{Resource, Version},
    selector::Selector,
    status::{ApiError, bytes_response},
    table,
    write::Target,
};
use crate::store::{Event, EventKind, Object, Watcher};

/// Events sent in one chunk at most.
const CHUNK_EVENTS: usize = 256;
/// Shortest life of a watch whose client names none; up to twice as long, so that clients do not
/// come back all at once.
const LIFE_MIN: Duration = Duration::from_secs(30 * 60);
/// Pause after which a bookmark tells how far the watch has come.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// Marks the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl ApiServer {
    /// Answers a `watch`.
    pub(crate) fn watch(
        &self,
        at: &Target<'_>,
        resource: &Arc<Resource>,
        params: &Params,
        form: Form,
        hold: Hold,
    ) -> Result<Response, ApiError> {
        let selector = selector(at, params)?;
        let start = Start::of(params)?;
        let bookmarks = params.flag("allowWatchBookmarks");
        if let Start::Initial { announced: true } = start
            && !bookmarks
        {
            return Err(ApiError::unprocessable(
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: needs allowWatchBookmarks",
            ));
        }
        let current = self.store.revision();
        let view = View {
            resource: resource.clone(),
            version: at.version.clone(),
            namespace: at.namespace.map(str::to_owned),
            selector,
            form,
            include: table::include(params),
        };
        let (initial, watcher) = match start {
            Start::After(revision) => {
                if revision > current {
                    let message = format!("resource version {revision} is of another time: now is {current}");
                    return Err(ApiError::expired(message));
                }
                (Vec::new(), self.store.watch(&resource.key, revision)?)
            }
            Start::Now => {
                let (_, watcher) = self.store.list_and_watch(&resource.key, Some("-"))?;
                (Vec::new(), watcher)
            }
            Start::Initial { .. } => {
                let (listing, watcher) = self.store.list_and_watch(&resource.key, at.namespace)?;
                (listing.items, watcher)
            }
        };
        let life = match params.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => LIFE_MIN.mul_f64(rand::rng().random_range(1.0..2.0)),
        };
        let feed = Feed {
            announce: matches!(start, Start::Initial { announced: true }).then(|| watcher.cursor()),
            initial: initial.into(),
            watcher,
            bookmarks,
            ends: Instant::now() + life,
            columns_sent: false,
            view,
            ended: false,
        };
        let stream = stream::unfold((feed, hold), |(mut feed, mut hold)| async move {
            let chunk = tokio::select! {
                biased;
                ending = hold.ended(), if !feed.ended => feed.end(ending)?,
                chunk = feed.next() => Ok(chunk?),
            };
            Some((chunk, (feed, hold)))
        });
        Ok(bytes_response(StatusCode::OK, "application/json", Body::from_stream(stream)))
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Behind a revision.
    After(u64),
    /// With what happens from now on.
    Now,
    /// With everything that is there.
    Initial {
        /// A bookmark tells when that is complete.
        announced: bool,
    },
}

impl Start {
    fn of(params: &Params) -> Result<Self, ApiError> {
        let forbidden =
            |text: &str| Err(ApiError::unprocessable(format!("ListOptions.meta.k8s.io \"\" is invalid: {text}")));
        let (revision, rule) = (params.revision()?, params.revision_match()?);
        match (params.optional_flag("sendInitialEvents"), rule) {
            (Some(_), Some(RevisionMatch::NotOlderThan)) => {}
            (Some(_), _) => {
                return forbidden(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            (None, Some(_)) => {
                return forbidden(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            (None, None) => {}
        }
        Ok(match (params.optional_flag("sendInitialEvents"), revision) {
            (Some(true), _) => Self::Initial { announced: true },
            (Some(false), None | Some(0)) => Self::Now,
            (None, None | Some(0)) => Self::Initial { announced: false },
            (_, Some(revision)) => Self::After(revision),
        })
    }
}

/// What of a resource a watch shows, and how.
struct View {
    resource: Arc<Resource>,
    version: Version,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    include: table::Include,
}

impl View {
    fn target(&self) -> Target<'_> {
        Target { resource: &self.resource, version: &self.version, namespace: self.namespace.as_deref() }
    }

    fn shows(&self, object: &Object) -> bool {
        let inside = self.namespace.as_deref().is_none_or(|namespace| object.namespace() == Some(namespace));
        inside && self.selector.matches(object.value())
    }

    /// What an event means for those who see only what matches.
    fn event(&self, event: &Event) -> Option<(&'static str, Arc<Object>)> {
        let before = event.previous.as_deref().is_some_and(|object| self.shows(object));
        let after = event.kind != EventKind::Deleted && self.shows(&event.object);
        match (before, after) {
            (false, true) => Some(("ADDED", event.object.clone())),
            (true, true) => Some(("MODIFIED", event.object.clone())),
            (true, false) if event.kind == EventKind::Deleted => Some(("DELETED", event.object.clone())),
            (true, false) => {
                // The watcher is told what it knew, at the revision of the change.
                let known = event.previous.as_ref()?.value().clone();
                Some(("DELETED", Arc::new(Object::new(known, event.object.revision()))))
            }
            (false, false) => None,
        }
    }
}

/// The running watch.
struct Feed {
    view: View,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the initial events, while their end is still to be announced.
    announce: Option<u64>,
    watcher: Watcher,
    bookmarks: bool,
    ends: Instant,
    columns_sent: bool,
    ended: bool,
}

impl Feed {
    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(chunk) = self.initial_chunk() {
            return Some(chunk);
        }
        loop {
            let bookmark_due = Instant::now() + BOOKMARK_INTERVAL;
            let due = if self.bookmarks { bookmark_due.min(self.ends) } else { self.ends };
            let read = tokio::select! {
                read = self.watcher.next(CHUNK_EVENTS) => read,
                () = sleep_until(due) => {
                    let over = Instant::now() >= self.ends;
                    self.ended = over;
                    match self.watcher.bookmark().filter(|_| self.bookmarks) {
                        Some(revision) => return Some(self.bookmark(revision, false)),
                        None if over => return None,
                        None => continue,
                    }
                }
            };
            match read {
                Ok(Some(events)) => {
                    let mut chunk = BytesMut::new();
                    for (kind, object) in events.iter().filter_map(|event| self.view.event(event)).collect::<Vec<_>>() {
                        self.write(&mut chunk, kind, &object);
                    }
                    if !chunk.is_empty() {
                        return Some(chunk.freeze());
                    }
                }
                Ok(None) => return None,
                Err(expired) => {
                    self.ended = true;
                    let status = ApiError::from(expired).to_value();
                    return Some(line(&json!({"type": "ERROR", "object": status})));
                }
            }
        }
    }

    /// The last chunk of a watch that a fault ends; `None` when there is nothing to say.
    fn end(&mut self, ending: Ending) -> Option<io::Result<Bytes>> {
        self.ended = true;
        match ending {
            Ending::Close => None,
            Ending::Gone => {
                let status = ApiError::expired("too old resource version: a fault of the sandbox").to_value();
                Some(Ok(line(&json!({"type": "ERROR", "object": status}))))
            }
            Ending::Reset => Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "a fault of the sandbox"))),
        }
    }

    fn initial_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        let mut written = 0;
        while written < CHUNK_EVENTS
            && let Some(object) = self.initial.pop_front()
        {
            if self.view.shows(&object) {
                self.write(&mut chunk, "ADDED", &object);
                written += 1;
            }
        }
        if self.initial.is_empty()
            && let Some(revision) = self.announce.take()
        {
            chunk.put_slice(&self.bookmark(revision, true));
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    fn write(&mut self, chunk: &mut BytesMut, kind: &str, object: &Arc<Object>) {
        chunk.put_slice(b"{\"type\":\"");
        chunk.put_slice(kind.as_bytes());
        chunk.put_slice(b"\",\"object\":");
        match self.view.form {
            Form::Plain => chunk.put_slice(&rendered(&self.view.resource, &self.view.version.name, object)),
            Form::Metadata => chunk.put_slice(table::partial(object.value()).to_string().as_bytes()),
            Form::Table => {
                let metadata = json!({"resourceVersion": object.revision().to_string()});
                let mut table =
                    table::render(&self.view.target(), std::slice::from_ref(object), metadata, self.view.include);
                // The columns are named once.
                if std::mem::replace(&mut self.columns_sent, true)
                    && let Some(fields) = table.as_object_mut()
                {
                    fields.insert("columnDefinitions".to_owned(), Value::Null);
                }
                chunk.put_slice(table.to_string().as_bytes());
            }
        }
        chunk.put_slice(b"}\n");
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end && let Some(fields) = metadata.as_object_mut() {
            fields.insert("annotations".to_owned(), json!({INITIAL_EVENTS_END: "true"}));
        }
        let (kind, api_version) = match self.view.form {
            Form::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (self.view.resource.kind.clone(), self.view.resource.api_version(&self.view.version.name)),
        };
        line(&json!({"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": api_version, "metadata": metadata}}))
    }
}

fn line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    Bytes::from(text)
}
