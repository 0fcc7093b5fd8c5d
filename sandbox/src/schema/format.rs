//! The `format` of texts and numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Number, Value};

/// Whether a value has the format, for formats that are checked. Unknown ones are comments.
pub(super) fn holds(format: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => text_holds(format, text),
        Value::Number(number) => number_holds(format, number),
        _ => true,
    }
}

fn number_holds(format: &str, number: &Number) -> bool {
    match format {
        "int32" => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" => number.as_i64().is_some(),
        _ => true,
    }
}

fn text_holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "byte" => STANDARD.decode(text).is_ok(),
        "duration" => duration(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(text),
        "mac" => mac(text),
        "uri" => {
            text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty())
                || text.starts_with('/')
        }
        "email" => {
            text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        }
        "hostname" => !text.is_empty() && text.len() <= 253 && text.split('.').all(is_host_label),
        "quantity" => quantity(text),
        _ => true,
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn is_host_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

fn uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    match groups.as_slice() {
        [one] => one.len() == 32 && hex(one),
        groups => groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| hex(group)),
    }
}

fn mac(text: &str) -> bool {
    let groups: Vec<&str> = text.split([':', '-']).collect();
    matches!(groups.len(), 6 | 8)
        && groups.iter().all(|group| group.len() == 2 && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A Go duration: `1h30m`, `1.5s`, `0`.
fn duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let Some((number, tail)) = rest.split_at_checked(digits) else { return false };
        if number.parse::<f64>().is_err() {
            return false;
        }
        let unit = tail.find(|next: char| next.is_ascii_digit() || next == '.').unwrap_or(tail.len());
        let Some((unit, tail)) = tail.split_at_checked(unit) else { return false };
        if !UNITS.contains(&unit) {
            return false;
        }
        rest = tail;
    }
    true
}

/// A resource quantity: `100m`, `1.5Gi`, `2e3`.
fn quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let Some((number, suffix)) = unsigned.split_at_checked(digits) else { return false };
    let exponent = suffix.strip_prefix(['e', 'E']);
    number.parse::<f64>().is_ok()
        && (SUFFIXES.contains(&suffix) || exponent.is_some_and(|exponent| exponent.parse::<i32>().is_ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats() {
        let table = [
            ("int32", json!(2_147_483_647_i64), true),
            ("int32", json!(2_147_483_648_i64), false),
            ("int64", json!(9_223_372_036_854_775_807_i64), true),
            ("int64", json!(9_223_372_036_854_775_808_u64), false),
            ("date-time", json!("2026-11-21T04:46:22Z"), true),
            ("date-time", json!("2026-11-21T04:46:22.123456+02:00"), true),
            ("date-time", json!("2026-11-21"), false),
            ("date-time", json!("yesterday"), false),
            ("ip", json!("fd00::1"), true),
            ("ip", json!("10.0.0"), false),
            ("ipv4", json!("fd00::1"), false),
            ("cidr", json!("10.0.0.0/8"), true),
            ("cidr", json!("10.0.0.0"), false),
            ("byte", json!("aGVsbG8="), true),
            ("byte", json!("hello!"), false),
            ("duration", json!("1h30m0.5s"), true),
            ("duration", json!("0"), true),
            ("duration", json!("10"), false),
            ("duration", json!(""), false),
            ("uuid", json!("123e4567-e89b-12d3-a456-426614174000"), true),
            ("uuid", json!("123e4567"), false),
            ("mac", json!("02:00:00:00:00:01"), true),
            ("uri", json!("https://example.com"), true),
            ("uri", json!("example"), false),
            ("hostname", json!("a.example"), true),
            ("hostname", json!("-a.example"), false),
            ("quantity", json!("100m"), true),
            ("quantity", json!("1.5Gi"), true),
            ("quantity", json!("-2e3"), true),
            ("quantity", json!("1 Gi"), false),
            ("quantity", json!(""), false),
            ("something-else", json!("x"), true),
        ];
        for (format, value, expected) in table {
            assert_eq!(holds(format, &value), expected, "{format} {value}");
        }
    }
}
