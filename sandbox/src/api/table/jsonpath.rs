//! The JSON paths of printer columns: fields, indexes, wildcards and equality filters.

use serde_json::Value;

/// The values a path leads to, such as `.spec.a`, `.status.conditions[?(@.type=="Ready")].status`,
/// `.items[*].name`, `.metadata.labels.app\.kubernetes\.io/name` or `.a['b.c']`. A path that is not
/// understood leads nowhere.
pub(super) fn find<'a>(path: &str, object: &'a Value) -> Vec<&'a Value> {
    let path = path.trim();
    let path = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path);
    let Some(steps) = parse(path.strip_prefix('$').unwrap_or(path)) else { return Vec::new() };
    let mut current = vec![object];
    for step in &steps {
        current = current.into_iter().flat_map(|value| step.follow(value)).collect();
    }
    current
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { path: Vec<Step>, value: String, equal: bool },
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.as_array().and_then(|list| element(list, *index)).into_iter().collect(),
            Self::All => match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, value: wanted, equal } => {
                let items = value.as_array().into_iter().flatten();
                items.filter(|item| (read(path, item).as_deref() == Some(wanted)) == *equal).collect()
            }
        }
    }
}

fn read(path: &[Step], value: &Value) -> Option<String> {
    let mut current = value;
    for step in path {
        current = step.follow(current).into_iter().next()?;
    }
    Some(super::text(current))
}

fn element(list: &[Value], index: i64) -> Option<&Value> {
    let from_end = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 { list.len().checked_sub(from_end).and_then(|at| list.get(at)) } else { list.get(from_end) }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            let end = closing(rest)?;
            steps.push(bracket(rest.get(1..end)?)?);
            rest = rest.get(end + 1..)?;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let (field, after) = field(name);
            if !field.is_empty() {
                steps.push(if field == "*" { Step::All } else { Step::Field(field) });
            } else if after.len() == rest.len() {
                return None;
            }
            rest = after;
        }
    }
    Some(steps)
}

/// A field name up to the next dot or bracket; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket that opens `text` is closed, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" || inside == ":" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inside) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Ok(index) = inside.parse() {
        return Some(Step::Index(index));
    }
    let condition = inside.strip_prefix("?(")?.strip_suffix(')')?.trim();
    let (left, right, equal) = match condition.split_once("==") {
        Some((left, right)) => (left, right, true),
        None => condition.split_once("!=").map(|(left, right)| (left, right, false))?,
    };
    let path = parse(left.trim().strip_prefix('@')?)?;
    let right = right.trim();
    Some(Step::Where { path, value: unquoted(right).unwrap_or(right).to_owned(), equal })
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "spec": {"hosts": ["a", "b"], "n": 3},
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        let cases = [
            (".spec.n", "3"),
            ("{.spec.n}", "3"),
            (".spec.hosts[0]", "a"),
            (".spec.hosts[-1]", "b"),
            (".spec.hosts[*]", "a b"),
            (".status.conditions[?(@.type==\"Ready\")].status", "True"),
            (".status.conditions[?(@.type=='Other')].status", "False"),
            (".status.conditions[?(@.type!='Ready')].type", "Other"),
            (r".metadata.labels.app\.kubernetes\.io/name", "web"),
            (".metadata.labels['app.kubernetes.io/name']", "web"),
            (".missing.field", ""),
            (".spec.hosts[", ""),
            (".spec.hosts[?(x)]", ""),
        ];
        for (path, wanted) in cases {
            let found: Vec<String> = find(path, &object).into_iter().map(super::super::text).collect();
            assert_eq!(found.join(" "), wanted, "{path}");
        }
    }
}
