//! Header edits, and what a client may not say.

mod hygiene;
mod template;

use std::fmt;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use mesh_wire::l7;

use crate::{CompileError, host};

pub use hygiene::{Edge, HygieneError, check_connection, sanitise, strip_hop_by_hop};
pub use template::{Template, TemplateContext};

/// Edits of a message's headers, in this order: remove, set, add.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(Name, Value)>,
    add: Vec<(Name, Value)>,
    templates: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Header(HeaderName),
    Authority,
}

#[derive(Clone, Debug)]
enum Value {
    Literal(HeaderValue),
    Template(Template),
}

impl Edits {
    /// Nothing, for a message that is not there.
    ///
    /// # Errors
    /// Names the header that cannot be sent.
    pub fn compile(wire: Option<&l7::HeaderEdits>) -> Result<Self, CompileError> {
        let Some(wire) = wire else {
            return Ok(Self::default());
        };
        let mut remove = Vec::new();
        for (n, name) in wire.remove.iter().enumerate() {
            match parse_name(name).map_err(|error| error.within(format!("remove[{n}]")))? {
                Some(Name::Header(name)) if !remove.contains(&name) => remove.push(name),
                _ => {}
            }
        }
        let set = values("set", &wire.set)?;
        let add = values("add", &wire.add)?;
        let templates = set.iter().chain(&add).any(|(_, value)| matches!(value, Value::Template(_)));
        Ok(Self { remove, set, add, templates })
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether a value is made from the message.
    #[must_use]
    pub fn has_templates(&self) -> bool {
        self.templates
    }
}

/// In words. Values of headers that carry credentials are left out.
impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = self.remove.iter().map(|name| format!("removes {name}"));
        let set = self.set.iter().map(|edit| shown("sets", edit));
        let added = self.add.iter().map(|edit| shown("adds", edit));
        f.write_str(&removed.chain(set).chain(added).collect::<Vec<_>>().join(", "))
    }
}

fn shown(verb: &str, (name, value): &(Name, Value)) -> String {
    match (name, value) {
        (Name::Header(name), _) if CREDENTIALS.contains(name) => format!("{verb} {name} (value not shown)"),
        (Name::Header(name), Value::Literal(value)) => format!("{verb} {name}: {}", text_of(value)),
        (Name::Header(name), Value::Template(_)) => format!("{verb} {name} by a template"),
        (Name::Authority, Value::Literal(value)) => format!("{verb} host: {}", text_of(value)),
        (Name::Authority, Value::Template(_)) => format!("{verb} host by a template"),
    }
}

/// Long values are cut.
fn text_of(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(SHOWN_CHARS_MAX).collect()
}

/// The first of several of one name counts. Pseudo headers other than the authority are ignored.
fn values(list: &'static str, wire: &[l7::Header]) -> Result<Vec<(Name, Value)>, CompileError> {
    let mut all: Vec<(Name, Value)> = Vec::with_capacity(wire.len());
    for (n, header) in wire.iter().enumerate() {
        let within = |error: CompileError| error.within(format!("{list}[{n}]"));
        let Some(name) = parse_name(&header.name).map_err(within)? else {
            continue;
        };
        if matches!(&name, Name::Header(name) if FRAMING.contains(name)) {
            let wanted = "a header that does not tell where messages or connections end";
            return Err(within(CompileError::new("name", &header.name, wanted)));
        }
        if all.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let value = if header.template {
            Value::Template(Template::compile(&header.value).map_err(|error| within(error.within("value")))?)
        } else {
            if name == Name::Authority && host::canonical(&header.value).is_err() {
                return Err(within(CompileError::new("value", &header.value, "a host")));
            }
            let literal = HeaderValue::from_str(&header.value);
            let wanted = "a header value without control characters";
            Value::Literal(literal.map_err(|_| within(CompileError::new("value", &header.value, wanted)))?)
        };
        all.push((name, value));
    }
    Ok(all)
}

fn parse_name(text: &str) -> Result<Option<Name>, CompileError> {
    if text.starts_with(':') {
        return Ok((text == ":authority").then_some(Name::Authority));
    }
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(http::header::HOST) => Ok(Some(Name::Authority)),
        Ok(name) => Ok(Some(Name::Header(name))),
        Err(_) => Err(CompileError::new("name", text, "a header name")),
    }
}

/// Edits headers in place. A new authority goes to `authority`, which stays as it is otherwise; of a response it means
/// nothing. A template that expands to nothing changes nothing.
pub fn apply(edits: &Edits, headers: &mut HeaderMap, authority: &mut Option<String>, context: &TemplateContext<'_>) {
    for name in &edits.remove {
        headers.remove(name);
    }
    if edits.templates {
        // All are made before the first is written: they speak of the message as it came.
        let set = expanded(&edits.set, headers, context);
        let add = expanded(&edits.add, headers, context);
        write(set.into_iter(), add.into_iter(), headers, authority);
    } else {
        write(literals(&edits.set), literals(&edits.add), headers, authority);
    }
}

fn literals(list: &[(Name, Value)]) -> impl Iterator<Item = (Name, HeaderValue)> {
    list.iter().filter_map(|(name, value)| match value {
        Value::Literal(value) => Some((name.clone(), value.clone())),
        Value::Template(_) => None,
    })
}

fn expanded(list: &[(Name, Value)], headers: &HeaderMap, context: &TemplateContext<'_>) -> Vec<(Name, HeaderValue)> {
    let values = list.iter().filter_map(|(name, value)| {
        let value = match value {
            Value::Literal(value) => value.clone(),
            Value::Template(template) => template.expand(headers, context)?,
        };
        Some((name.clone(), value))
    });
    values.collect()
}

fn write(
    set: impl Iterator<Item = (Name, HeaderValue)>,
    add: impl Iterator<Item = (Name, HeaderValue)>,
    headers: &mut HeaderMap,
    authority: &mut Option<String>,
) {
    let mut rewrite = |value: &HeaderValue| {
        if let Some(host) = value.to_str().ok().and_then(|text| host::canonical(text).ok()) {
            *authority = Some(host.into_owned());
        }
    };
    let mut host_set = false;
    for (name, value) in set {
        match name {
            Name::Authority => {
                host_set = true;
                rewrite(&value);
            }
            Name::Header(name) => {
                headers.insert(name, value);
            }
        }
    }
    for (name, value) in add {
        match name {
            Name::Authority if host_set => {}
            Name::Authority => rewrite(&value),
            Name::Header(name) => {
                headers.append(name, value);
            }
        }
    }
}

/// Headers by which the two ends of a connection agree on how it goes on. One that is written by a rule would make them
/// disagree.
const FRAMING: [HeaderName; 6] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Headers whose values nobody is to read.
const CREDENTIALS: [HeaderName; 4] =
    [http::header::AUTHORIZATION, http::header::PROXY_AUTHORIZATION, http::header::COOKIE, http::header::SET_COOKIE];
/// How much of a value is shown.
const SHOWN_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests;
