//! RequestAuthentication.

use serde_json::Value;

use super::field::{Field, Fields};
use super::{Input, attach, scalar};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    attach::selector_or_targets(fields, input);
    fields.objects("jwtRules", 0..=RULES_MAX, rule);
    if fields.filled("jwtRules") && !attach::is_targeted(fields) {
        input.unserved(fields, "tokens are not checked by node proxies: attach it to a waypoint with targetRefs");
    }
}

fn rule(fields: &Fields<'_>) {
    fields.required("issuer", scalar::filled);
    fields.list("audiences", 0..=usize::MAX, scalar::filled);
    fields.optional("jwksUri", scalar::http_url);
    fields.optional("jwks_uri", scalar::http_url);
    fields.optional("jwks", key_set);
    fields.one_of(&["jwksUri", "jwks_uri", "jwks"], false);
    let keys = ["jwksUri", "jwks_uri", "jwks"].iter().any(|key| fields.filled(key));
    let issuer = fields.text("issuer").unwrap_or_default();
    if !keys && !issuer.is_empty() && !scalar::is_url(issuer, &["http", "https"]) {
        fields.error(&format!("issuer {issuer:?} is no URL to find keys at: expected jwksUri or jwks beside it"));
    }
    fields.objects("fromHeaders", 0..=usize::MAX, |header| {
        header.required("name", scalar::header_name);
        header.optional("prefix", scalar::text);
    });
    fields.list("fromParams", 0..=usize::MAX, scalar::filled);
    fields.list("fromCookies", 0..=usize::MAX, scalar::header_name);
    fields.optional("outputPayloadToHeader", scalar::header_name);
    fields.objects("outputClaimToHeaders", 0..=usize::MAX, |output| {
        output.required("header", scalar::header_name);
        output.required("claim", scalar::filled);
    });
    fields.optional("forwardOriginalToken", scalar::boolean);
    fields.optional("timeout", scalar::duration);
    fields.list("spaceDelimitedClaims", 0..=CLAIMS_MAX, scalar::filled);
    fields.optional("spaceDelimitedClaims", |claims| scalar::distinct(&claims.items()));
}

/// Inline keys. Their text is never repeated: a private key may be among them.
fn key_set(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let Some(keys) = parsed.as_ref().and_then(|set| set.get("keys")?.as_array()) else {
        return field.expected_unseen("a JSON object with a list of keys: {\"keys\": […]}");
    };
    if keys.iter().any(|key| key.get("kty").and_then(Value::as_str).is_none()) {
        field.expected_unseen("a kty in every key");
    }
    let private = |key: &&Value| PRIVATE.iter().any(|part| key.get(part).is_some());
    if keys.iter().filter(private).count() > 0 {
        field.warn_unseen(
            "a private key is among the keys: whoever reads this object can sign tokens; keep the public parts only",
        );
    }
}

const RULES_MAX: usize = 4096;
const CLAIMS_MAX: usize = 64;
/// Members of a JWK that only its owner may know: RSA and EC private parts, and symmetric keys.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];
