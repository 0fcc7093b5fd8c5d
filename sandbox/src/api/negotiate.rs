//! Which representation the client wants.

use http::{HeaderMap, header};

use super::status::ApiError;

/// How objects are to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata and its list.
    Metadata,
}

/// How discovery is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscoveryForm {
    /// One document a group and version.
    Plain,
    /// `apidiscovery.k8s.io` of that version, everything in one document.
    Aggregated(&'static str),
}

/// The first form of the `Accept` header that can be served.
pub(crate) fn object_form(headers: &HeaderMap) -> Result<Form, ApiError> {
    first(headers, |range| match range.parameter("as") {
        None => Some(Form::Plain),
        Some(_) if range.parameter("g") != Some("meta.k8s.io") => None,
        Some(_) if !matches!(range.parameter("v"), Some("v1" | "v1beta1")) => None,
        Some("Table") => Some(Form::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Form::Metadata),
        Some(_) => None,
    })
    .map(|form| form.unwrap_or(Form::Plain))
}

/// The first discovery form of the `Accept` header that can be served.
pub(crate) fn discovery_form(headers: &HeaderMap) -> Result<DiscoveryForm, ApiError> {
    first(headers, |range| match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
        (None, ..) => Some(DiscoveryForm::Plain),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
            Some(DiscoveryForm::Aggregated("v2"))
        }
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
            Some(DiscoveryForm::Aggregated("v2beta1"))
        }
        _ => None,
    })
    .map(|form| form.unwrap_or(DiscoveryForm::Plain))
}

struct MediaRange<'a> {
    parameters: Vec<(&'a str, &'a str)>,
}

impl MediaRange<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

fn first<T>(headers: &HeaderMap, choose: impl Fn(&MediaRange<'_>) -> Option<T>) -> Result<Option<T>, ApiError> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(None) };
    let accept = accept.to_str().unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(None);
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameters = parts.filter_map(|part| part.split_once('=')).collect();
        if let Some(form) = choose(&MediaRange { parameters }) {
            return Ok(Some(form));
        }
    }
    Err(ApiError::not_acceptable(accept))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accept(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))])
    }

    #[test]
    fn kubectl_and_client_go_headers() {
        let cases = [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form::Table),
            ("application/vnd.kubernetes.protobuf,application/json", Form::Plain),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Form::Metadata),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Form::Plain),
            ("*/*", Form::Plain),
        ];
        for (text, wanted) in cases {
            assert_eq!(object_form(&accept(text)), Ok(wanted), "{text}");
        }
        assert_eq!(object_form(&HeaderMap::new()), Ok(Form::Plain));
        assert!(object_form(&accept("application/vnd.kubernetes.protobuf")).is_err());
    }

    #[test]
    fn aggregated_discovery() {
        let text = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery_form(&accept(text)), Ok(DiscoveryForm::Aggregated("v2")));
        assert_eq!(discovery_form(&accept("application/json")), Ok(DiscoveryForm::Plain));
    }
}
