//! Which webhook configurations are taken. What is not served here is refused, never ignored.

use std::collections::BTreeSet;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use super::hook::{self, Entry, TIMEOUT_MAX_SECONDS, WEBHOOKS_MAX};
use crate::schema::FieldError;

/// Everything that is wrong with a configuration.
pub(crate) fn check_configuration(configuration: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let count = configuration.get("webhooks").and_then(Value::as_array).map_or(0, Vec::len);
    if count > WEBHOOKS_MAX {
        let reason = format!("Too many: {count}: must have at most {WEBHOOKS_MAX} items");
        errors.push(FieldError { path: "webhooks".to_owned(), reason });
    }
    let mut names = BTreeSet::new();
    for (index, entry) in hook::entries(configuration).enumerate() {
        let path = format!("webhooks[{index}]");
        match entry {
            Err(error) => errors.push(FieldError { path, reason: format!("Invalid value: {error}") }),
            Ok(entry) => {
                let mut add = |field: &str, reason: String| {
                    errors.push(FieldError { path: format!("{path}.{field}"), reason });
                };
                if !names.insert(entry.name.clone()) {
                    add("name", format!("Duplicate value: {:?}", entry.name));
                }
                check_entry(&entry, &mut add);
                check_client(&entry, &mut add);
            }
        }
    }
    errors
}

fn check_entry(entry: &Entry, add: &mut impl FnMut(&str, String)) {
    if entry.name.split('.').filter(|part| !part.is_empty()).count() < 3 {
        let reason = "should be a domain with at least three segments separated by dots";
        add("name", format!("Invalid value: {:?}: {reason}", entry.name));
    }
    if !entry.admission_review_versions.iter().any(|version| version == "v1") {
        let found = json!(entry.admission_review_versions);
        add("admissionReviewVersions", format!("Invalid value: {found}: must include at least one of v1"));
    }
    let one_of = |found: &Option<String>, known: &[&str]| {
        let found = found.as_deref().unwrap_or_default();
        (!known.contains(&found)).then(|| {
            let known: Vec<String> = known.iter().map(|value| format!("{value:?}")).collect();
            format!("Unsupported value: {found:?}: supported values: {}", known.join(", "))
        })
    };
    let choices = [
        ("sideEffects", &entry.side_effects, &["None", "NoneOnDryRun"][..]),
        ("failurePolicy", &entry.failure_policy, &["Fail", "Ignore"][..]),
        ("matchPolicy", &entry.match_policy, &["Equivalent", "Exact"][..]),
        // The sandbox asks each webhook once.
        ("reinvocationPolicy", &entry.reinvocation_policy, &["Never"][..]),
    ];
    for (field, found, known) in choices {
        // The server has filled in what may be left out; only validating ones have no such field.
        if (found.is_some() || field == "sideEffects")
            && let Some(reason) = one_of(found, known)
        {
            add(field, reason);
        }
    }
    if !entry.match_conditions.is_empty() {
        add("matchConditions", "Forbidden: the sandbox does not serve match conditions".to_owned());
    }
    let longest = i64::try_from(TIMEOUT_MAX_SECONDS).unwrap_or(i64::MAX);
    if let Some(seconds) = entry.timeout_seconds
        && !(1..=longest).contains(&seconds)
    {
        let reason =
            format!("Invalid value: {seconds}: the timeout value must be between 1 and {TIMEOUT_MAX_SECONDS} seconds");
        add("timeoutSeconds", reason);
    }
    for (index, rule) in entry.rules.iter().enumerate() {
        let lists = [
            ("operations", &rule.operations),
            ("apiGroups", &rule.api_groups),
            ("apiVersions", &rule.api_versions),
            ("resources", &rule.resources),
        ];
        for (field, list) in lists {
            if list.as_ref().is_none_or(Vec::is_empty) {
                add(&format!("rules[{index}].{field}"), "Required value".to_owned());
            }
        }
    }
}

fn check_client(entry: &Entry, add: &mut impl FnMut(&str, String)) {
    let client = &entry.client_config;
    match (&client.url, &client.service) {
        (Some(_), Some(_)) | (None, None) => {
            add("clientConfig", "Required value: exactly one of url or service is required".to_owned());
        }
        (Some(url), None) if !url.starts_with("https://") => {
            add("clientConfig.url", format!("Invalid value: {url:?}: 'https' is the only allowed URL scheme"));
        }
        (None, Some(service)) if service.path.as_ref().is_some_and(|path| !path.starts_with('/')) => {
            let path = service.path.as_deref().unwrap_or_default();
            add("clientConfig.service.path", format!("Invalid value: {path:?}: must start with a '/'"));
        }
        _ => {}
    }
    if let Some(bundle) = client.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty()) {
        let readable = CertificateDer::pem_slice_iter(&bundle.0).try_fold(0, |count, found| found.map(|_| count + 1));
        if !matches!(readable, Ok(1..)) {
            add(
                "clientConfig.caBundle",
                "Invalid value: unable to load root certificates: no PEM certificates".to_owned(),
            );
        }
    }
}
