//! Getting one object and listing many.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::response::Response;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    ApiServer,
    negotiate::Form,
    query::{Params, RevisionMatch},
    resources::Resource,
    selector::Selector,
    status::{ApiError, bytes_response, json_response},
    table,
    write::Target,
};
use crate::store::{Listing, Object, ObjectKey, ResourceKey};

/// Lists kept so that their later pages show the same moment.
const SNAPSHOTS_MAX: usize = 32;

/// Lists that clients are reading page by page; the least recently begun is dropped first.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<VecDeque<Snapshot>>);

#[derive(Debug, Clone)]
struct Snapshot {
    resource: ResourceKey,
    namespace: Option<String>,
    listing: Arc<Listing>,
}

impl Snapshots {
    fn keep(&self, snapshot: Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .iter()
            .any(|other| other.is(&snapshot.resource, snapshot.namespace.as_deref(), snapshot.listing.revision))
        {
            return;
        }
        if kept.len() >= SNAPSHOTS_MAX {
            kept.pop_front();
        }
        kept.push_back(snapshot);
    }

    fn find(&self, resource: &ResourceKey, namespace: Option<&str>, revision: u64) -> Option<Arc<Listing>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|snapshot| snapshot.is(resource, namespace, revision))?;
        Some(found.listing.clone())
    }
}

impl Snapshot {
    fn is(&self, resource: &ResourceKey, namespace: Option<&str>, revision: u64) -> bool {
        self.resource == *resource && self.namespace.as_deref() == namespace && self.listing.revision == revision
    }
}

/// Where the next page starts: behind this object of the list of that revision.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    revision: u64,
    after: ObjectKey,
}

impl Continue {
    fn encode(&self) -> String {
        let value = json!({
            "v": "meta.k8s.io/v1", "rv": self.revision,
            "ns": self.after.namespace().unwrap_or_default(), "name": self.after.name(),
        });
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn decode(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let namespace = value.get("ns")?.as_str().filter(|namespace| !namespace.is_empty());
        Some(Self {
            revision: value.get("rv")?.as_u64()?,
            after: ObjectKey::new(namespace, value.get("name")?.as_str()?),
        })
    }
}

/// One page of a list.
struct Page {
    revision: u64,
    items: Vec<Arc<Object>>,
    next: Option<Continue>,
    remaining: Option<usize>,
}

impl ApiServer {
    /// Answers a `get`.
    pub(crate) fn get(&self, at: &Target<'_>, name: &str, params: &Params, form: Form) -> Result<Response, ApiError> {
        let object = self.fetch(at, name)?;
        Ok(object_response(at, &object, params, form, StatusCode::OK))
    }

    /// Answers a `list`.
    pub(crate) fn list(&self, at: &Target<'_>, params: &Params, form: Form) -> Result<Response, ApiError> {
        let selector = selector(at, params)?;
        let page = self.page(at, params, &selector)?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some(fields) = metadata.as_object_mut() {
            if let Some(next) = &page.next {
                fields.insert("continue".to_owned(), json!(next.encode()));
            }
            if let Some(remaining) = page.remaining {
                fields.insert("remainingItemCount".to_owned(), json!(remaining));
            }
        }
        Ok(match form {
            Form::Plain => {
                let (kind, api_version) = (&at.resource.list_kind, at.resource.api_version(&at.version.name));
                let items = page.items.iter().map(|object| rendered(at.resource, &at.version.name, object));
                bytes_response(StatusCode::OK, "application/json", list_json(kind, &api_version, &metadata, items))
            }
            Form::Metadata => {
                let items: Vec<Value> = page.items.iter().map(|object| table::partial(object.value())).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
                });
                json_response(StatusCode::OK, &list)
            }
            Form::Table => {
                let table = table::render(at, &page.items, metadata, table::include(params));
                json_response(StatusCode::OK, &table)
            }
        })
    }

    fn page(&self, at: &Target<'_>, params: &Params, selector: &Selector) -> Result<Page, ApiError> {
        let limit = params.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let continued = params.text("continue");
        let (listing, after) = match continued {
            Some(text) => {
                let token = Continue::decode(text).ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
                let listing = self.snapshots.find(&at.resource.key, at.namespace, token.revision).ok_or_else(|| {
                    ApiError::expired(
                        "The provided continue parameter is too old to display a consistent list result. \
                         You must start a new list without the continue parameter.",
                    )
                })?;
                (listing, Some(token.after))
            }
            None => (Arc::new(self.listing(at, params, selector)?), None),
        };
        // Lists are in the order of their keys.
        let start = after.map_or(0, |after| listing.items.partition_point(|object| place(object) <= place_of(&after)));
        let rest = listing.items.get(start..).unwrap_or_default();
        let mut matching = rest.iter().filter(|object| selector.matches(object.value()));
        let Some(limit) = limit else {
            return Ok(Page {
                revision: listing.revision,
                items: matching.cloned().collect(),
                next: None,
                remaining: None,
            });
        };
        let items: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let remaining = if selector.is_empty() { rest.len() - items.len() } else { matching.count() };
        let next = items
            .last()
            .filter(|_| remaining > 0)
            .map(|last| Continue { revision: listing.revision, after: key(last) });
        if next.is_some() && continued.is_none() {
            self.snapshots.keep(Snapshot {
                resource: at.resource.key.clone(),
                namespace: at.namespace.map(str::to_owned),
                listing: listing.clone(),
            });
        }
        // With a selector Kubernetes does not count what is left.
        let remaining = next.as_ref().filter(|_| selector.is_empty()).map(|_| remaining);
        Ok(Page { revision: listing.revision, items, next, remaining })
    }

    fn listing(&self, at: &Target<'_>, params: &Params, selector: &Selector) -> Result<Listing, ApiError> {
        let current = self.store.revision();
        let (asked, rule) = (params.revision()?, params.revision_match()?);
        match (asked, rule) {
            (None, Some(_)) => {
                return Err(ApiError::bad_request(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            (Some(asked), _) if asked > current => return Err(ApiError::future_revision(asked, current)),
            (Some(0), Some(RevisionMatch::Exact)) => {
                return Err(ApiError::bad_request("resourceVersionMatch=Exact is forbidden for resourceVersion=0"));
            }
            (Some(asked), Some(RevisionMatch::Exact)) if asked != current => {
                let kept = self.snapshots.find(&at.resource.key, at.namespace, asked);
                let kept =
                    kept.ok_or_else(|| ApiError::expired(format!("the list of resource version {asked} is not kept")))?;
                return Ok(Listing::clone(&kept));
            }
            _ => {}
        }
        if let (Some(name), Some(_) | None) = (selector.name(), at.namespace)
            && (at.namespace.is_some() || !at.resource.namespaced)
        {
            let revision = self.store.revision();
            let found = self.store.get(&at.resource.key, &ObjectKey::new(at.namespace, name));
            return Ok(Listing { revision, items: found.into_iter().collect() });
        }
        Ok(self.store.list(&at.resource.key, at.namespace))
    }
}

/// The selector of a request.
pub(crate) fn selector(at: &Target<'_>, params: &Params) -> Result<Selector, ApiError> {
    Selector::parse(params.text("labelSelector"), params.text("fieldSelector"), &at.resource.selectable)
}

/// The response with one object.
pub(crate) fn object_response(
    at: &Target<'_>,
    object: &Arc<Object>,
    params: &Params,
    form: Form,
    code: StatusCode,
) -> Response {
    match form {
        Form::Plain => {
            let body = rendered(at.resource, &at.version.name, object);
            bytes_response(code, "application/json", body)
        }
        Form::Metadata => json_response(code, &table::partial(object.value())),
        Form::Table => {
            let metadata = json!({"resourceVersion": object.revision().to_string()});
            let table = table::render(at, std::slice::from_ref(object), metadata, table::include(params));
            json_response(code, &table)
        }
    }
}

/// The JSON text of an object in a version; the shared text where that is the stored form.
pub(crate) fn rendered(resource: &Resource, version: &str, object: &Object) -> Bytes {
    if resource.presents_unchanged(object.value(), version) {
        return object.json().clone();
    }
    Bytes::from(serde_json::to_vec(&resource.present(object.value(), version)).unwrap_or_default())
}

fn list_json(kind: &str, api_version: &str, metadata: &Value, items: impl Iterator<Item = Bytes>) -> Bytes {
    let (kind, api_version) = (json!(kind), json!(api_version));
    let mut text = BytesMut::with_capacity(4096);
    text.put_slice(
        format!("{{\"kind\":{kind},\"apiVersion\":{api_version},\"metadata\":{metadata},\"items\":[").as_bytes(),
    );
    for (at, item) in items.enumerate() {
        if at > 0 {
            text.put_u8(b',');
        }
        text.put_slice(&item);
    }
    text.put_slice(b"]}");
    text.freeze()
}

/// What a list is sorted by.
fn place(object: &Object) -> (&str, &str) {
    (object.namespace().unwrap_or_default(), object.name())
}

/// The same, of a key.
fn place_of(key: &ObjectKey) -> (&str, &str) {
    (key.namespace().unwrap_or_default(), key.name())
}

fn key(object: &Object) -> ObjectKey {
    ObjectKey::new(object.namespace(), object.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_well_formed() {
        for metadata in [json!({"resourceVersion": "1"}), json!({}), json!({"a": {"b": {}}})] {
            let items = [Bytes::from_static(b"{\"x\":1}"), Bytes::from_static(b"{}")];
            let text = list_json("PodList", "v1", &metadata, items.into_iter());
            let value: Value = serde_json::from_slice(&text).unwrap();
            let wanted = json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": [{"x": 1}, {}]});
            assert_eq!(value, wanted);
        }
    }

    #[test]
    fn continue_tokens_round_trip() {
        let token = Continue { revision: 7, after: ObjectKey::namespaced("a", "b") };
        assert_eq!(Continue::decode(&token.encode()), Some(token));
        assert_eq!(Continue::decode("nonsense"), None);
    }
}
