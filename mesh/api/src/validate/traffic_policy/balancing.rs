//! Which endpoint a request goes to.

use super::super::field::{Field, Fields};
use super::super::{name, scalar};

pub(super) fn load_balancer(fields: &Fields<'_>) {
    fields.optional("simple", scalar::one_of(&SIMPLE));
    fields.object("consistentHash", consistent_hash);
    fields.one_of(&["simple", "consistentHash"], false);
    if fields.text("simple") == Some("LEAST_CONN") {
        fields.warn("simple LEAST_CONN is deprecated: use LEAST_REQUEST");
    }
    fields.object("localityLbSetting", locality);
    fields.object("zoneAwareLbSetting", |zone| {
        zone.optional("enabled", scalar::boolean);
        zone.optional("minClusterSize", scalar::count);
        failover(zone);
    });
    fields.one_of(&["localityLbSetting", "zoneAwareLbSetting"], false);
    fields.optional("warmupDurationSecs", scalar::duration);
    fields.object("warmup", |warmup| {
        warmup.required("duration", scalar::duration);
        warmup.optional("minimumPercent", scalar::percent);
        warmup.optional("aggression", |field| {
            if !field.value().as_f64().is_some_and(|number| number > 0.0) {
                field.expected("a number greater than 0");
            }
        });
    });
    fields.one_of(&["warmup", "warmupDurationSecs"], false);
    let warms = fields.has("warmup") || fields.has("warmupDurationSecs");
    let takes =
        matches!(fields.text("simple"), Some("ROUND_ROBIN" | "LEAST_REQUEST" | "LEAST_CONN" | "UNSPECIFIED") | None);
    if warms && (!takes || fields.has("consistentHash")) {
        fields.warn("warmup has no effect: only ROUND_ROBIN and LEAST_REQUEST warm up");
    }
}

fn consistent_hash(fields: &Fields<'_>) {
    fields.one_of(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"], true);
    fields.optional("httpHeaderName", scalar::header_name);
    fields.object("httpCookie", |cookie| {
        cookie.required("name", scalar::header_name);
        cookie.optional("path", scalar::text);
        cookie.optional("ttl", scalar::duration_or_zero);
        cookie.objects("attributes", 0..=usize::MAX, |attribute| {
            attribute.required("name", scalar::header_name);
            attribute.optional("value", scalar::text);
        });
    });
    fields.optional("useSourceIp", scalar::boolean);
    fields.optional("httpQueryParameterName", scalar::filled);
    fields.object("ringHash", |ring| ring.optional("minimumRingSize", scalar::integer(0..=i64::MAX)));
    fields.object("maglev", |maglev| {
        maglev.optional("tableSize", |size| {
            if !size.value().as_u64().is_some_and(is_table_size) {
                size.expected(&format!("a prime number below {TABLE_SIZE_END}, for example 65537"));
            }
        });
    });
    fields.optional("minimumRingSize", scalar::integer(0..=i64::MAX));
    if fields.has("minimumRingSize") {
        fields.warn("minimumRingSize is deprecated here: use ringHash.minimumRingSize");
    }
    fields.one_of(&["ringHash", "maglev"], false);
}

fn is_table_size(number: u64) -> bool {
    let divides = |factor: u64| number.is_multiple_of(factor);
    (2..TABLE_SIZE_END).contains(&number) && !(2..).take_while(|factor| factor * factor <= number).any(divides)
}

fn locality(fields: &Fields<'_>) {
    fields.optional("enabled", scalar::boolean);
    fields.objects("distribute", 0..=usize::MAX, distribute);
    failover(fields);
    if fields.filled("distribute") && (fields.filled("failover") || fields.filled("failoverPriority")) {
        fields.error("distribute beside failover or failoverPriority: expected only one way to choose localities");
    }
    let mut seen = std::collections::BTreeSet::new();
    for item in fields.get("distribute").map(|field| field.items()).unwrap_or_default() {
        if let Some(from) = item.value().get("from").and_then(|from| from.as_str())
            && !seen.insert(from)
        {
            item.expected_unseen(&format!("another from than {from:?}, which an earlier item has"));
        }
    }
}

fn distribute(fields: &Fields<'_>) {
    fields.required("from", place);
    fields.map("to", |locality, weight| {
        if !is_place(locality) {
            weight.expected_unseen("a locality as key: region/zone/subzone, * for the last part");
        }
        scalar::integer(1..=100)(weight);
    });
    let weights = fields.get("to").and_then(|to| to.value().as_object());
    let sum: u64 =
        weights.map(|all| all.values().filter_map(serde_json::Value::as_u64).fold(0, u64::saturating_add)).unwrap_or(0);
    if sum != 100 {
        fields.error(&format!("to: weights sum to {sum}: expected 100"));
    }
}

fn failover(fields: &Fields<'_>) {
    fields.objects("failover", 0..=usize::MAX, |one| {
        one.required("from", region);
        one.required("to", region);
        if one.has("from") && one.text("from") == one.text("to") {
            one.error("from and to are the same region: expected different ones");
        }
    });
    fields.list("failoverPriority", 0..=usize::MAX, |label| {
        let Some(text) = label.text() else { return };
        let key = text.split_once('=').map_or(text, |(key, _)| key);
        if !name::is_label_key(key) {
            label.expected("a label key, or key=value");
        }
    });
}

/// A place traffic comes from or goes to; `*` stands for all below.
fn place(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_place(text)) {
        field.expected("region, region/zone or region/zone/subzone; the last part may be *");
    }
}

fn is_place(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let last = parts.len() - 1;
    let well =
        |(index, part): (usize, &&str)| !part.is_empty() && (!part.contains('*') || (*part == "*" && index == last));
    parts.len() <= 3 && parts.iter().enumerate().all(well)
}

fn region(field: &Field<'_>) {
    if field.text().is_some_and(|text| text.is_empty() || text.contains(['/', '*'])) {
        field.expected("a region, without zone and without *");
    }
}

/// What [`load_balancer`] reads.
pub(super) const FIELDS: &[&str] =
    &["simple", "consistentHash", "localityLbSetting", "zoneAwareLbSetting", "warmupDurationSecs", "warmup"];
/// What it reads of a locality setting.
pub(super) const LOCALITY_FIELDS: &[&str] = &["enabled", "distribute", "failover", "failoverPriority"];
const SIMPLE: [&str; 6] = ["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"];
/// Table sizes are below this.
const TABLE_SIZE_END: u64 = 5_000_011;
