//! EnvoyFilter: accepted, checked in outline, without effect.

use super::field::Fields;
use super::{Input, attach, entry, scalar};

pub(super) fn envoy_filter(fields: &Fields<'_>, input: &Input<'_>) {
    input.unserved(fields, "EnvoyFilter has no effect: there is no Envoy in this mesh");
    entry::workload_selector(fields);
    attach::targets(fields, input);
    if fields.has("workloadSelector") && fields.filled("targetRefs") {
        fields.error("workloadSelector and targetRefs are both set: expected at most one of them");
    }
    fields.optional("priority", scalar::integer(i64::from(i32::MIN)..=i64::from(i32::MAX)));
    fields.objects("configPatches", 0..=usize::MAX, |one| {
        one.required("applyTo", scalar::one_of(&APPLY_TO));
        one.opaque(&["match"]);
        one.required("patch", |patch| {
            patch.object(|patch| {
                patch.optional("operation", scalar::one_of(&OPERATIONS));
                patch.optional("filterClass", scalar::one_of(&["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"]));
                patch.opaque(&["value"]);
                let removes = patch.text("operation") == Some("REMOVE");
                if !removes && !patch.has("value") {
                    patch.error("value is missing: expected one, only REMOVE needs none");
                }
            });
        });
    });
}

const APPLY_TO: [&str; 11] = [
    "LISTENER",
    "FILTER_CHAIN",
    "NETWORK_FILTER",
    "HTTP_FILTER",
    "ROUTE_CONFIGURATION",
    "VIRTUAL_HOST",
    "HTTP_ROUTE",
    "CLUSTER",
    "EXTENSION_CONFIG",
    "BOOTSTRAP",
    "LISTENER_FILTER",
];
const OPERATIONS: [&str; 7] = ["MERGE", "ADD", "REMOVE", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "REPLACE"];
