//! What a rule may cost, as an API server reckons it before it takes a definition: estimated from above.

use serde_json::Value;

use super::manifest::Rule;

/// What the server grants one rule, over all places where it is asked.
pub(crate) const RULE_MAX: u64 = 10_000_000;
/// What the server grants all rules of a definition together.
pub(crate) const DEFINITION_MAX: u64 = 100_000_000;

/// Bytes of the largest request; what bounds a list that says no bound itself.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// Each name, operator and literal costs one; a list literal ten more; a text that is searched a tenth of its length;
/// and all of it once for each element of each list that the rule goes through.
pub(crate) fn of(rule: &Rule) -> u64 {
    let names = rule.text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count();
    let operators = ["&&", "||", "==", "!=", "<=", ">=", "!", "+", "?"].map(|one| rule.text.matches(one).count());
    let lists = rule.text.matches('[').count() * 10;
    let longest = longest_text(&rule.schema);
    let searches =
        ["startsWith", "endsWith", "contains", "matches", "==", "!="].map(|one| rule.text.matches(one).count());
    let search = searches.iter().sum::<usize>() as u64 * longest.div_ceil(10);
    let once = (names + operators.iter().sum::<usize>() + lists) as u64 + search;
    // The longest list at or below the rule's place stands for each list that it goes through.
    let elements = [".all(", ".exists(", ".exists_one("].map(|one| rule.text.matches(one).count() as u32);
    let gone_through = longest_list(&rule.schema).saturating_pow(nested(rule, elements.iter().sum()));
    once.saturating_mul(gone_through).saturating_mul(rule.times.unwrap_or(REQUEST_BYTES_MAX / 3))
}

/// How deep a rule's loops are nested; loops side by side count once.
fn nested(rule: &Rule, loops: u32) -> u32 {
    if rule.text.contains("exists_one(") { 2 } else { loops.min(1) }
}

fn longest_list(schema: &Value) -> u64 {
    let own = schema["maxItems"].as_u64().or(schema["maxProperties"].as_u64());
    let of_fields =
        schema["properties"].as_object().into_iter().flatten().map(|(_, field)| match field["type"].as_str() {
            Some("array") => field["maxItems"].as_u64().unwrap_or(REQUEST_BYTES_MAX / 2),
            _ => 1,
        });
    own.into_iter().chain(of_fields).max().unwrap_or(1)
}

fn longest_text(schema: &Value) -> u64 {
    let texts = |schema: &Value| schema["maxLength"].as_u64();
    let own = texts(schema).or_else(|| texts(&schema["items"])).or_else(|| texts(&schema["additionalProperties"]));
    let fields = [schema, &schema["items"]].into_iter().flat_map(|place| place["properties"].as_object()).flatten();
    let of_fields = fields.filter(|(_, field)| field["enum"].is_null()).filter_map(|(_, field)| texts(field));
    own.into_iter().chain(of_fields).max().unwrap_or(64)
}
