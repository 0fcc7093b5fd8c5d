//! Field ownership: server-side apply, and keeping `metadata.managedFields` on every other write.
//!
//! Each manager owns the set of fields it last set. Applying means: these are the fields I want,
//! with these values. Fields that a manager stops applying go away if nobody else owns them, and
//! changing a field of somebody else is a conflict unless forced.
//!
//! ```text
//! applied ──► fields it names ─┐
//! live ─────► merged with it ──┼─► drop what the manager gave up ─► conflicts? ─► object
//! managedFields ───────────────┘                                                managedFields
//! ```
//!
//! The behaviour follows Kubernetes' "Server-Side Apply" and the `FieldsV1` format.

mod compare;
mod conflict;
mod entries;
mod extract;
mod fields;
mod last_applied;
mod merge;
mod remove;
mod shape;

use serde_json::Value;

use self::{compare::Comparison, entries::Entries};
pub use self::{
    conflict::{ApplyError, Conflict},
    entries::{Entry, Operation},
    fields::FieldSet,
};
use crate::schema::Schema;

/// What one server-side apply is about.
#[derive(Debug, Clone, Copy)]
pub struct ApplyInput<'a> {
    /// The schema of the object's kind.
    pub schema: &'a Schema,
    /// The stored object, none if it does not exist yet.
    pub live: Option<&'a Value>,
    /// The fields the manager wants: the body of the request.
    pub applied: &'a Value,
    /// Who applies.
    pub manager: &'a str,
    /// Whether to take fields from other managers.
    pub force: bool,
    /// The subresource written to, such as `status`.
    pub subresource: Option<&'a str>,
    /// Whether the kind has a status subresource, so that an ordinary apply does not write status.
    pub has_status: bool,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The time, RFC 3339.
    pub now: &'a str,
}

/// What one ordinary create, update or patch is about.
#[derive(Debug, Clone, Copy)]
pub struct UpdateInput<'a> {
    /// The schema of the object's kind.
    pub schema: &'a Schema,
    /// The object before, none when it is created.
    pub old: Option<&'a Value>,
    /// The object after, with the `managedFields` the client sent.
    pub new: &'a Value,
    /// Who writes.
    pub manager: &'a str,
    /// The subresource written to, such as `status`.
    pub subresource: Option<&'a str>,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The time, RFC 3339.
    pub now: &'a str,
}

/// Who owned everything in an object whose owners were not tracked when it is first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Applies fields to an object and returns the new object with its `managedFields`. When nothing
/// changes, the result equals the live object.
///
/// # Errors
///
/// [`ApplyError`].
pub fn server_side(input: ApplyInput<'_>) -> Result<Value, ApplyError> {
    let sent = input.applied.pointer("/metadata/managedFields");
    if sent.is_some_and(|sent| !sent.is_null() && sent.as_array().is_none_or(|sent| !sent.is_empty())) {
        return Err(ApplyError::ManagedFieldsSent);
    }
    let root = Some(input.schema.root().as_ref());
    let applied = written_part(&input);
    let applied_set = extract::extract(root, &applied)?;
    let empty = Value::Object(serde_json::Map::new());
    let live = input.live.unwrap_or(&empty);
    let mut entries = Entries::of(live);
    let me = Entry::applier(input.manager, input.api_version, input.subresource);
    if input.live.is_some() && entries.is_empty() {
        let all = Comparison::of(input.schema, None, live).added.without_identity();
        entries.insert(Entry { fields: all, ..Entry::updater(BEFORE_FIRST_APPLY, input.api_version, None) }, None);
    }
    let before = entries.clone();
    let last = entries.remove(&me).map(|entry| entry.fields);

    let mut merged = merge::merge(root, live, &applied);
    if let Some(last) = &last {
        let managed = entries.all_fields().union(&applied_set);
        // Merged once more, because giving up the last item of a list takes the list along, which
        // may be applied as an empty one.
        merged = merge::merge(root, &remove::give_up(root, merged, last, &managed), &applied);
    }
    let change = Comparison::of(input.schema, input.live, &merged);
    let conflicts = entries.conflicts(&change);
    if !conflicts.is_empty() && !input.force {
        return Err(ApplyError::Conflict { conflicts });
    }
    entries.yield_fields(&change);
    let mine = Entry { fields: applied_set.without_identity(), ..me };
    let unchanged = change.is_empty() && before.has_same(&mine) && before.len() == entries.len() + 1;
    if unchanged {
        return Ok(live.clone());
    }
    last_applied::refresh(&mut merged, input.applied, input.manager);
    if !mine.fields.is_empty() {
        entries.insert(mine, Some(input.now));
    }
    entries::store(&mut merged, entries.to_value());
    Ok(merged)
}

/// The object with its `managedFields` after an ordinary write: the writer owns what it changed.
///
/// There are none for objects whose owners are not tracked: after a client emptied the
/// list with `[{}]`, until somebody applies.
pub fn track_update(input: UpdateInput<'_>) -> Value {
    let mut new = input.new.clone();
    entries::store(&mut new, updated_entries(&input));
    new
}

fn updated_entries(input: &UpdateInput<'_>) -> Value {
    if entries::is_reset(input.new) && input.subresource.is_none() {
        return Value::Array(Vec::new());
    }
    let of_old = || input.old.map(Entries::of).unwrap_or_default();
    let mut entries = match input.subresource {
        // A subresource cannot change the owners of other fields by hand.
        Some(_) => of_old(),
        None => Some(Entries::of(input.new)).filter(|sent| !sent.is_empty()).unwrap_or_else(of_old),
    };
    if entries.is_empty() && input.old.is_some() {
        return Value::Array(Vec::new());
    }
    let change = Comparison::of(input.schema, input.old, input.new);
    if !change.is_empty() {
        let me = Entry::updater(input.manager, input.api_version, input.subresource);
        let previous = entries.fields_of(&me);
        entries.yield_fields(&change);
        let mut owned = change.added.union(&change.modified).without_identity();
        if owned.is_empty() {
            // Only removals: what is left of the manager's own fields stays as it is.
        } else {
            if let Some(previous) = previous {
                owned = owned.union(&previous.difference(&change.removed));
            }
            entries.insert(Entry { fields: owned, ..me }, Some(input.now));
        }
        entries.cap();
    }
    entries.to_value()
}

/// The part of the applied object that this request writes.
fn written_part(input: &ApplyInput<'_>) -> Value {
    let mut applied = input.applied.clone();
    if let Value::Object(fields) = &mut applied {
        match input.subresource {
            Some("status") => {
                fields.retain(|name, _| ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()));
                if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                    metadata.retain(|name, _| ["name", "namespace", "resourceVersion", "uid"].contains(&name.as_str()));
                }
            }
            None if input.has_status => {
                fields.remove("status");
            }
            _ => {}
        }
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    }
    applied
}

#[cfg(test)]
mod tests;
