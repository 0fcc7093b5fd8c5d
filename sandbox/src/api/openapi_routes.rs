//! `/openapi/v3`: the index of documents, and the documents, each made when it is first wanted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::{
    ApiServer,
    resources::{Resource, Resources},
    status::{ApiError, bytes_response, json_response},
};
use crate::openapi::{self, Served};

/// The documents made so far, the newest of each group and version.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, (String, Bytes)>>);

impl Documents {
    fn find(&self, path: &str, fingerprint: &str) -> Option<Bytes> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(path).filter(|(of, _)| of == fingerprint).map(|(_, document)| document.clone())
    }

    fn keep(&self, path: &str, fingerprint: String, document: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), (fingerprint, document));
    }
}

/// Media type of the old documents as they are answered; clients ask with `@v1.0`, which is no valid
/// media type.
const OLD_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// An old document that describes nothing: `swagger: "2.0"` and empty `info` and `paths`.
const OLD_DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x00\x42\x00";

/// Answers `/openapi/v2`. kubectl looks there for kinds that it has not found under `/openapi/v3`;
/// told that there is nothing, it goes on to say that the kind is unknown.
pub(crate) fn answer_old() -> Response {
    bytes_response(StatusCode::OK, OLD_MEDIA_TYPE, OLD_DOCUMENT)
}

/// Answers a path under `/openapi/v3`.
pub(crate) fn answer(server: &ApiServer, path: &str) -> Result<Response, ApiError> {
    let resources = server.catalog.current();
    let wanted = path.trim_start_matches("/openapi/v3").trim_matches('/');
    if wanted.is_empty() {
        let entries = versions(&resources).into_iter().map(|(group, version)| {
            let members = members(&resources, &group, &version);
            let fingerprint = openapi::fingerprint(&group, &version, &served(&members, &version));
            (group, version, fingerprint)
        });
        let entries: Vec<_> = entries.collect();
        let index = openapi::index(
            entries.iter().map(|(group, version, print)| (group.as_str(), version.as_str(), print.clone())),
        );
        return Ok(json_response(StatusCode::OK, &index));
    }
    let found = versions(&resources).into_iter().find(|(group, version)| openapi::path(group, version) == wanted);
    let (group, version) = found.ok_or_else(ApiError::no_such_path)?;
    let members = members(&resources, &group, &version);
    let served = served(&members, &version);
    let fingerprint = openapi::fingerprint(&group, &version, &served);
    let document = server.documents.find(wanted, &fingerprint).unwrap_or_else(|| {
        let document = openapi::document(&group, &version, &served);
        let text = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
        server.documents.keep(wanted, fingerprint, text.clone());
        text
    });
    Ok(bytes_response(StatusCode::OK, "application/json", document))
}

fn versions(resources: &Resources) -> Vec<(String, String)> {
    let groups = resources.groups().into_iter();
    groups
        .flat_map(|group| resources.versions(&group).into_iter().map(move |version| (group.clone(), version)))
        .collect()
}

fn members(resources: &Resources, group: &str, version: &str) -> Vec<Arc<Resource>> {
    let members = resources.iter().filter(|resource| resource.group == group && resource.version(version).is_some());
    members.cloned().collect()
}

fn served<'a>(members: &'a [Arc<Resource>], version: &str) -> Vec<Served<'a>> {
    members
        .iter()
        .filter_map(|resource| {
            let version = resource.version(version)?;
            Some(Served {
                kind: &resource.kind,
                plural: &resource.plural,
                namespaced: resource.namespaced,
                schema: version.schema.as_deref(),
                status: version.status,
                scale: version.scale.is_some(),
            })
        })
        .collect()
}
