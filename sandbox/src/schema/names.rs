//! The syntax of names, labels and keys, with the messages of Kubernetes.
//!
//! Every function returns what is wrong with a text, or nothing.

/// Longest DNS label, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// The name of most objects: DNS labels joined by dots.
pub fn subdomain(text: &str) -> Option<String> {
    let fits = text.len() <= SUBDOMAIN_BYTES_MAX;
    if !fits {
        return Some(too_long(SUBDOMAIN_BYTES_MAX));
    }
    (!text.split('.').all(is_label)).then(|| SUBDOMAIN.to_owned())
}

/// The name of a namespace, container or volume.
pub fn label(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    (!is_label(text)).then(|| LABEL.to_owned())
}

/// The name of a service: a DNS label that begins with a letter.
pub fn label_1035(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
    (!begins || !is_label(text)).then(|| LABEL_1035.to_owned())
}

/// The name of a role or binding: anything that fits in a URL path.
pub fn path_segment(text: &str) -> Option<String> {
    if text == "." || text == ".." {
        return Some(format!("may not be '{text}'"));
    }
    let bad = ['/', '%'].into_iter().find(|bad| text.contains(*bad))?;
    Some(format!("may not contain '{bad}'"))
}

/// The key of a label, annotation or finalizer: a name, with a domain before it or not.
pub fn qualified(text: &str) -> Option<String> {
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return Some(format!(
                "a qualified name {QUALIFIED_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
        Some(("", _)) => return Some("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            if let Some(wrong) = subdomain(prefix) {
                return Some(format!("prefix part {wrong}"));
            }
            name
        }
    };
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > LABEL_BYTES_MAX {
        return Some(format!("name part {}", too_long(LABEL_BYTES_MAX)));
    }
    (!is_word(name)).then(|| format!("name part {QUALIFIED_PART}"))
}

/// The value of a label.
pub fn label_value(text: &str) -> Option<String> {
    if text.len() > LABEL_BYTES_MAX {
        return Some(too_long(LABEL_BYTES_MAX));
    }
    (!text.is_empty() && !is_word(text)).then(|| LABEL_VALUE.to_owned())
}

/// A key of a config map or secret, which becomes a file name.
pub fn config_key(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_BYTES_MAX {
        return Some(too_long(SUBDOMAIN_BYTES_MAX));
    }
    if text.is_empty() || !text.bytes().all(is_word_byte) {
        return Some(CONFIG_KEY.to_owned());
    }
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of a port: an IANA service name.
pub fn port_name(text: &str) -> Option<String> {
    const BYTES_MAX: usize = 15;
    if text.len() > BYTES_MAX {
        return Some("must be no more than 15 characters long".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') || text.is_empty() {
        return Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        return Some("must not contain consecutive hyphens".to_owned());
    }
    (text.starts_with('-') || text.ends_with('-')).then(|| "must not begin or end with a hyphen".to_owned())
}

fn too_long(bytes_max: usize) -> String {
    format!("must be no more than {bytes_max} bytes")
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().copied().all(is_word_byte)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Option<String>;

    #[test]
    fn syntax() {
        let long_label = "a".repeat(64);
        let long_name = "a".repeat(254);
        let table: &[(&str, Rule, &[&str], &[&str])] = &[
            ("subdomain", subdomain, &["a", "a.b-c.0", "0"], &["", "A", "a..b", "-a", "a-", "a_b", ".a", &long_name]),
            ("label", label, &["a", "0-a"], &["", "a.b", "-a", "a-", "Ab", &long_label]),
            ("label_1035", label_1035, &["a", "a-0"], &["", "0a", "a.b"]),
            ("path_segment", path_segment, &["system:node", "A b"], &[".", "..", "a/b", "a%b"]),
            (
                "qualified",
                qualified,
                &["app", "App_1.x", "example.com/app", "a/b"],
                &["", "/a", "a/", "a/b/c", "-a", "a b", "Example.com/a", &long_label],
            ),
            ("label_value", label_value, &["", "a", "A_b.c-1"], &["-a", "a-", "a b", "a/b", &long_label]),
            ("config_key", config_key, &["a", "A_b.c-1", "-", ".a"], &["", ".", "..", "..a", "a/b", "a b"]),
            ("port_name", port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "Http", "abcdefghijklmnop"]),
        ];
        for (name, rule, good, bad) in table {
            for text in *good {
                assert_eq!(rule(text), None, "{name} {text:?}");
            }
            for text in *bad {
                assert!(rule(text).is_some(), "{name} {text:?}");
            }
        }
    }
}
