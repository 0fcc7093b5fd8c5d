//! DestinationRule.

use super::field::Fields;
use super::{Input, attach, name, traffic_policy};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    fields.required("host", name::any_host);
    attach::selector(fields, "workloadSelector", "matchLabels");
    name::export_to(fields, input, false);
    fields.object("trafficPolicy", traffic_policy::check);
    fields.objects("subsets", 0..=usize::MAX, |subset| {
        subset.required("name", name::dns_label_or_dots);
        name::labels(subset, "labels");
        subset.object("trafficPolicy", traffic_policy::check);
    });
    let mut seen = std::collections::BTreeSet::new();
    for subset in fields.get("subsets").map(|field| field.items()).unwrap_or_default() {
        if let Some(name) = subset.value().get("name").and_then(|name| name.as_str())
            && !seen.insert(name)
        {
            subset.expected_unseen(&format!("another name than {name:?}, which an earlier subset has"));
        }
    }
    if fields.has("workloadSelector") {
        let own = |text: &&str| *text == "." || *text == input.object.namespace;
        if !fields.texts("exportTo").iter().all(own) {
            fields
                .error("exportTo beside workloadSelector: expected only the own namespace, workloads are chosen in it");
        }
        input.unserved(fields, "workloadSelector chooses sidecars and gateways: waypoints do not see this rule");
    }
}
