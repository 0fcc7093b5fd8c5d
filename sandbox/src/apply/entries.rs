//! `metadata.managedFields`: who owns which fields.

use serde_json::{Map, Value, json};

use super::{compare::Comparison, conflict::Conflict, fields::FieldSet};

/// Most entries of ordinary writers. Beyond it the oldest are merged into one.
const UPDATE_ENTRIES_MAX: usize = 10;

/// The name of the merged entry.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying them.
    Apply,
    /// By writing them in any other way.
    Update,
}

impl Operation {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// How it came to own the fields.
    pub operation: Operation,
    /// The version it wrote in.
    pub api_version: String,
    /// The subresource it wrote through.
    pub subresource: Option<String>,
    /// When it last changed something, RFC 3339.
    pub time: Option<String>,
    /// What it owns.
    pub fields: FieldSet,
}

impl Entry {
    pub(super) fn applier(manager: &str, api_version: &str, subresource: Option<&str>) -> Self {
        Self {
            manager: manager.to_owned(),
            operation: Operation::Apply,
            api_version: api_version.to_owned(),
            subresource: subresource.map(str::to_owned),
            time: None,
            fields: FieldSet::default(),
        }
    }

    pub(super) fn updater(manager: &str, api_version: &str, subresource: Option<&str>) -> Self {
        Self { operation: Operation::Update, ..Self::applier(manager, api_version, subresource) }
    }

    fn from_value(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let optional = |name: &str| Some(text(name)).filter(|text| !text.is_empty());
        let operation = match value.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if value.get("fieldsType").and_then(Value::as_str) != Some("FieldsV1") {
            return None;
        }
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: optional("subresource"),
            time: optional("time"),
            fields: FieldSet::from_fields_v1(value.get("fieldsV1").unwrap_or(&Value::Object(Map::new())))?,
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation.name(),
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_fields_v1(),
        });
        if let Value::Object(fields) = &mut entry {
            let optional = [("time", &self.time), ("subresource", &self.subresource)];
            for (name, value) in optional {
                if let Some(value) = value {
                    fields.insert(name.to_owned(), Value::from(value.as_str()));
                }
            }
        }
        entry
    }

    /// Whether two entries are of the same manager. Appliers are one whatever version they use.
    fn is_same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// All entries of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// The entries of an object; none if they cannot be read.
    pub(super) fn of(object: &Value) -> Self {
        let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let entries: Option<Vec<Entry>> = list.into_iter().flatten().map(Entry::from_value).collect();
        Self(entries.unwrap_or_default())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out the entry of the same manager.
    pub(super) fn remove(&mut self, of: &Entry) -> Option<Entry> {
        let index = self.0.iter().position(|entry| entry.is_same(of))?;
        Some(self.0.remove(index))
    }

    /// Replaces the entry of the same manager.
    pub(super) fn insert(&mut self, mut entry: Entry, time: Option<&str>) {
        self.remove(&entry);
        entry.time = time.map(str::to_owned);
        self.0.push(entry);
    }

    /// What the same manager owns.
    pub(super) fn fields_of(&self, of: &Entry) -> Option<FieldSet> {
        self.0.iter().find(|entry| entry.is_same(of)).map(|entry| entry.fields.clone())
    }

    /// Whether the same manager is there and owns the same in the same version.
    pub(super) fn has_same(&self, of: &Entry) -> bool {
        self.0.iter().any(|entry| entry.is_same(of) && entry.fields == of.fields && entry.api_version == of.api_version)
    }

    /// Everything that anybody owns.
    pub(super) fn all_fields(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Owned fields that a change touches.
    pub(super) fn conflicts(&self, change: &Comparison) -> Vec<Conflict> {
        let touched = change.added.union(&change.modified);
        let of_entry = |entry: &Entry| {
            let paths = entry.fields.intersection(&touched).paths();
            paths.into_iter().map(|path| Conflict::new(entry, path)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_entry).collect()
    }

    /// Takes changed and removed fields from everybody.
    pub(super) fn yield_fields(&mut self, change: &Comparison) {
        let lost = change.added.union(&change.modified).union(&change.removed);
        for entry in &mut self.0 {
            entry.fields = entry.fields.difference(&lost);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Merges the oldest entries of ordinary writers when there are too many.
    pub(super) fn cap(&mut self) {
        let updates = self.0.iter().filter(|entry| entry.operation == Operation::Update).count();
        if updates <= UPDATE_ENTRIES_MAX {
            return;
        }
        self.0.sort_by(|left, right| left.time.cmp(&right.time));
        // The merged entry takes one place.
        let mut surplus = updates - UPDATE_ENTRIES_MAX + 1;
        let mut ancient: Option<Entry> = None;
        self.0.retain(|entry| {
            if surplus == 0 || entry.operation != Operation::Update {
                return true;
            }
            surplus -= 1;
            let merged = ancient.get_or_insert_with(|| Entry::updater(ANCIENT, &entry.api_version, None));
            merged.fields = merged.fields.union(&entry.fields);
            merged.time.clone_from(&entry.time);
            false
        });
        self.0.extend(ancient);
    }

    /// The list as stored: appliers first, then by time.
    pub(super) fn to_value(&self) -> Value {
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        let order = |entry: &Entry| {
            (
                entry.operation,
                entry.time.clone(),
                entry.manager.clone(),
                entry.api_version.clone(),
                entry.subresource.clone(),
            )
        };
        entries.sort_by_cached_key(|entry| order(entry));
        Value::Array(entries.into_iter().map(Entry::to_value).collect())
    }
}

/// Whether a client asks to forget all owners.
pub(super) fn is_reset(object: &Value) -> bool {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice);
    matches!(list, Some([Value::Object(entry)]) if entry.is_empty())
}

/// Writes the list into an object.
pub(super) fn store(object: &mut Value, entries: Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        if entries.as_array().is_some_and(Vec::is_empty) {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), entries);
        }
    }
}
