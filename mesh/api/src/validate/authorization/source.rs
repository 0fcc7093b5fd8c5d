//! Who calls.

use super::super::field::{Field, Fields};
use super::super::{name, scalar};
use super::pattern;

pub(super) fn check(fields: &Fields<'_>, action: &str) {
    let mut any = false;
    for (key, check) in CHECKS {
        any |= fields.filled(key);
        let most = if key.ends_with("erviceAccounts") { ACCOUNTS_MAX } else { usize::MAX };
        fields.list(key, 0..=most, check);
    }
    if !any {
        fields.error("source is empty: expected at least one of principals, namespaces, serviceAccounts, ipBlocks, … or their not… forms");
    }
    let accounts = fields.filled("serviceAccounts") || fields.filled("notServiceAccounts");
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if accounts && others.iter().any(|key| fields.filled(key)) {
        fields
            .error("serviceAccounts together with principals or namespaces: expected only one way to name the caller");
    }
    if action == "CUSTOM" {
        let identities = CHECKS.iter().map(|(key, _)| *key).filter(|key| !key.ends_with("pBlocks"));
        for key in identities.filter(|key| fields.filled(key)) {
            fields.error(&format!(
                "{key} with action CUSTOM: expected only address blocks, the authorizer decides on identities"
            ));
        }
    }
}

fn principal(field: &Field<'_>) {
    pattern(field);
    if field.value().as_str().is_some_and(|text| text.starts_with("spiffe://")) {
        field.expected("an identity without spiffe://, such as cluster.local/ns/shop/sa/cart");
    }
}

fn account(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let (namespace, account) = text.split_once('/').unwrap_or(("x", text));
    if text.len() > ACCOUNT_BYTES_MAX || !name::is_dns_label(namespace) || !name::is_object_name(account) {
        field.expected("a service account: account or namespace/account, at most 320 characters, no wildcards");
    }
}

type Check = fn(&Field<'_>);
const CHECKS: [(&str, Check); 14] = [
    ("principals", principal),
    ("notPrincipals", principal),
    ("requestPrincipals", pattern),
    ("notRequestPrincipals", pattern),
    ("namespaces", pattern),
    ("notNamespaces", pattern),
    ("serviceAccounts", account),
    ("notServiceAccounts", account),
    ("trustDomains", pattern),
    ("notTrustDomains", pattern),
    ("ipBlocks", scalar::ip_or_block),
    ("notIpBlocks", scalar::ip_or_block),
    ("remoteIpBlocks", scalar::ip_or_block),
    ("notRemoteIpBlocks", scalar::ip_or_block),
];
const ACCOUNTS_MAX: usize = 16;
const ACCOUNT_BYTES_MAX: usize = 320;
