//! The reviews of the authorization API: what would be allowed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::{
    ApiServer,
    attributes::{Attributes, ResourceSubject, Subject},
    status::ApiError,
    user::User,
};

impl ApiServer {
    /// The status of a `SubjectAccessReview` or one of its relatives; `namespace` is that of a
    /// `LocalSubjectAccessReview`.
    pub(crate) fn access_review(
        &self,
        kind: &str,
        user: &User,
        namespace: Option<&str>,
        review: &Value,
    ) -> Result<Value, ApiError> {
        let request = attributes(review)?;
        if kind == "LocalSubjectAccessReview" {
            let inside = request.resource().and_then(|resource| resource.namespace.as_deref());
            if inside != namespace {
                return Err(ApiError::bad_request("spec.resourceAttributes.namespace must match metadata.namespace"));
            }
        }
        let asked = if kind == "SelfSubjectAccessReview" { user.clone() } else { subject(review)? };
        let decision = self.decide(&asked, &request);
        let mut status = json!({"allowed": decision.allowed});
        if !decision.reason.is_empty()
            && let Some(fields) = status.as_object_mut()
        {
            fields.insert("reason".to_owned(), json!(decision.reason));
        }
        Ok(status)
    }

    /// The status of a `SelfSubjectRulesReview`.
    pub(crate) fn rules_review(&self, user: &User, review: &Value) -> Result<Value, ApiError> {
        let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).filter(|name| !name.is_empty());
        let namespace = namespace.ok_or_else(|| ApiError::bad_request("no namespace on request"))?;
        if user.is_master() {
            return Ok(json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            }));
        }
        let rules: Vec<_> = self.grants(user, Some(namespace)).flat_map(|grant| grant.rules).collect();
        let resources: Vec<Value> =
            rules.iter().filter(|rule| rule.is_about_resources()).map(|rule| rule.resource_rule()).collect();
        let paths: Vec<Value> =
            rules.iter().filter(|rule| rule.is_about_paths()).map(|rule| rule.path_rule()).collect();
        Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
    }
}

fn attributes(review: &Value) -> Result<Attributes, ApiError> {
    let spec = |path: &str| review.pointer(&format!("/spec/{path}"));
    let text = |path: &str| spec(path).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    match (spec("resourceAttributes"), spec("nonResourceAttributes")) {
        (Some(Value::Object(_)), None) => {
            let of = |field: &str| text(&format!("resourceAttributes/{field}"));
            let subject = ResourceSubject {
                group: of("group").unwrap_or_default(),
                version: of("version").unwrap_or_default(),
                resource: of("resource").unwrap_or_default(),
                subresource: of("subresource"),
                namespace: of("namespace"),
                name: of("name"),
            };
            Ok(Attributes { verb: of("verb").unwrap_or_default(), subject: Subject::Resource(subject) })
        }
        (None, Some(Value::Object(_))) => Ok(Attributes {
            verb: text("nonResourceAttributes/verb").unwrap_or_default(),
            subject: Subject::Path(text("nonResourceAttributes/path").unwrap_or_default()),
        }),
        _ => Err(ApiError::bad_request(
            "spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
    }
}

fn subject(review: &Value) -> Result<User, ApiError> {
    let text = |path: &str| review.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let listed = review.pointer("/spec/groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<String> = listed.filter_map(Value::as_str).map(str::to_owned).collect();
    let name = text("/spec/user");
    if name.is_empty() && groups.is_empty() {
        return Err(ApiError::bad_request(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(User { name, uid: text("/spec/uid"), groups, extra: BTreeMap::new() })
}
