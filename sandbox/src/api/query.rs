//! Query parameters of a request, checked before anything is done.

use axum::extract::Query;
use http::Uri;

use super::status::ApiError;

/// The parameters of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

/// `fieldValidation`: what to do about unknown fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Drop them and say so in `Warning` headers.
    Warn,
    /// Drop them.
    Ignore,
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevisionMatch {
    /// The list as it was at exactly that revision.
    Exact,
    /// A list at least as new.
    NotOlderThan,
}

impl Params {
    /// Reads the query of a URI.
    pub(crate) fn from_uri(uri: &Uri) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        query.map(|Query(pairs)| Self(pairs)).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// The first value of a parameter; absent when empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A truth value; a parameter without a value counts as true, as in Kubernetes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0" | "f" | "F" | "FALSE" | "False"))
    }

    /// A truth value that may be absent.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        self.text(name).map(|_| self.flag(name))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map(Some);
        number.map_err(|_| ApiError::bad_request(format!("{name} must be a whole number of at least 0, got {text:?}")))
    }

    /// `dryRun`: whether nothing may be stored.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        let mut found = false;
        for value in self.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                let message = format!("Invalid value: {value:?}: dryRun supports only \"All\"");
                return Err(ApiError::bad_request(message));
            }
            found = true;
        }
        Ok(found)
    }

    /// `fieldValidation`, `Warn` unless given.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => {
                Err(ApiError::bad_request(format!("fieldValidation must be Strict, Warn or Ignore, got {other:?}")))
            }
        }
    }

    /// `resourceVersionMatch`.
    pub(crate) fn revision_match(&self) -> Result<Option<RevisionMatch>, ApiError> {
        match self.text("resourceVersionMatch") {
            None => Ok(None),
            Some("Exact") => Ok(Some(RevisionMatch::Exact)),
            Some("NotOlderThan") => Ok(Some(RevisionMatch::NotOlderThan)),
            Some(other) => {
                Err(ApiError::bad_request(format!("resourceVersionMatch must be Exact or NotOlderThan, got {other:?}")))
            }
        }
    }

    /// `resourceVersion` as a number; absent and `0` differ.
    pub(crate) fn revision(&self) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text("resourceVersion") else { return Ok(None) };
        let number = text.parse().map(Some);
        number.map_err(|_| ApiError::bad_request(format!("Invalid value: {text:?}: resourceVersion is not a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::from_uri(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn flags_follow_kubernetes() {
        assert!(params("watch").flag("watch"));
        assert!(params("watch=1").flag("watch"));
        assert!(!params("watch=false").flag("watch"));
        assert!(!params("").flag("watch"));
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        let error = params("limit=-1").number("limit").unwrap_err();
        assert!(error.message.contains("limit") && error.message.contains("-1"), "{error}");
        assert!(params("dryRun=Some").dry_run().is_err());
        assert!(params("fieldValidation=Loose").field_validation().is_err());
        assert!(params("resourceVersion=abc").revision().is_err());
    }

    #[test]
    fn repeated_and_escaped_values() {
        let params = params("command=sh&command=-c&command=echo%20hi");
        assert_eq!(params.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo hi"]);
    }
}
