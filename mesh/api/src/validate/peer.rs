//! PeerAuthentication.

use super::field::{Field, Fields};
use super::{Input, attach, scalar};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    attach::selector(fields, "selector", "matchLabels");
    fields.optional("mtls", |mtls| mode(mtls, input));
    fields.map("portLevelMtls", |port, value| {
        if !scalar::is_port(port) {
            value.expected_unseen("a port from 1 to 65535 as key");
        }
        mode(value, input);
    });
    let mut selects = false;
    fields.object("selector", |selector| selects = selector.filled("matchLabels"));
    if fields.filled("portLevelMtls") && !selects {
        fields.error("portLevelMtls without a selector that has labels: expected selector.matchLabels, ports belong to workloads");
    }
}

fn mode(mtls: &Field<'_>, input: &Input<'_>) {
    mtls.object(|fields| {
        fields.optional("mode", scalar::one_of(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]));
        if fields.text("mode") == Some("DISABLE") {
            input.unserved(fields, "mode DISABLE is PERMISSIVE in ambient: tunnelled callers are still accepted");
        }
    });
}
