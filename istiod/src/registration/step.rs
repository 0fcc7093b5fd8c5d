//! What to do about one entry, given what was just read of it. Pure.

use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use mesh_core::names::NamespacedName;
use serde_json::{Value, json};

use super::Refusal;
use crate::world::Registered;
use crate::world::registered::{CONNECTED, CONTROLLER, DISCONNECTED};

/// What is wanted of an entry.
#[derive(Debug)]
pub(super) enum Want<'a> {
    /// Its workload is connected to this replica.
    Connected {
        /// The entry, without what is about the connection.
        object: &'a Value,
        /// Since when.
        since: Timestamp,
        /// It has just come: whoever had it before does not count any more.
        fresh: bool,
    },
    /// Its workload left.
    Left {
        /// When.
        at: Timestamp,
        /// The replica that it was connected to.
        from: &'a str,
    },
    /// It is to go: its workload has not come back, or (at once) its group is gone.
    Gone {
        /// Whether the workload is connected or not.
        at_once: bool,
    },
}

/// What to do.
#[derive(Debug)]
pub(super) enum Step {
    /// It is as wanted.
    Nothing,
    /// Write this.
    Write {
        /// The whole object.
        object: Box<DynamicObject>,
        /// It is not there yet.
        create: bool,
        /// Since when it says that its workload is connected.
        since: Timestamp,
    },
    /// Delete what was read.
    Delete,
    /// Another replica has it, or nobody any more.
    NotOurs,
    /// It cannot be had.
    Refuse(Refusal),
}

impl Want<'_> {
    /// Decides. `me` is the name of this replica.
    pub(super) fn step(&self, key: &NamespacedName, live: Option<&DynamicObject>, me: &str) -> Step {
        let registered = live.and_then(|live| Registered::read(live.metadata.annotations.as_ref()));
        match self {
            Self::Connected { object, since, fresh } => {
                let Some(live) = live else {
                    return match made(object, *since, me) {
                        Ok(object) => Step::Write { object: Box::new(object), create: true, since: *since },
                        Err(refusal) => Step::Refuse(refusal),
                    };
                };
                let group = object.pointer("/metadata/ownerReferences/0/name").and_then(Value::as_str);
                match registered {
                    Some(one) if Some(&*one.group) == group => connected(object, live, &one, (*since, *fresh), me),
                    _ => Step::Refuse(Refusal::ByHand { entry: key.clone() }),
                }
            }
            Self::Left { at, from } => {
                let Some((live, one)) = live.zip(registered) else { return Step::NotOurs };
                // One who has taken over may have left too: that is told by itself.
                if *one.controller != **from {
                    return Step::NotOurs;
                }
                if one.disconnected.is_some() && *one.controller == *me {
                    return Step::Nothing;
                }
                let mut object = live.clone();
                let annotations = object.metadata.annotations.get_or_insert_default();
                annotations.remove(CONNECTED);
                annotations.insert(CONTROLLER.to_owned(), me.to_owned());
                annotations.insert(DISCONNECTED.to_owned(), one.disconnected.unwrap_or(*at).to_string());
                Step::Write { object: Box::new(object), create: false, since: *at }
            }
            Self::Gone { at_once } => match registered {
                Some(one) if *one.controller == *me && (*at_once || one.disconnected.is_some()) => Step::Delete,
                _ => Step::NotOurs,
            },
        }
    }
}

/// What is wanted, as an object that says that its workload is connected to us.
fn made(wanted: &Value, since: Timestamp, me: &str) -> Result<DynamicObject, Refusal> {
    let mut object: DynamicObject =
        serde_json::from_value(wanted.clone()).map_err(|error| Refusal::Rejected { reason: error.to_string() })?;
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.remove(DISCONNECTED);
    annotations.insert(CONTROLLER.to_owned(), me.to_owned());
    annotations.insert(CONNECTED.to_owned(), since.to_string());
    Ok(object)
}

/// The entry is there. Of several replicas the one that the workload came to last has it.
fn connected(
    wanted: &Value,
    live: &DynamicObject,
    one: &Registered,
    (since, fresh): (Timestamp, bool),
    me: &str,
) -> Step {
    let others = *one.controller != *me && one.disconnected.is_none();
    if others && !fresh && one.connected > Some(since) {
        return Step::NotOurs;
    }
    // Clocks of replicas differ: who comes later has the later time all the same.
    let after = one.connected.and_then(|other| other.checked_add(SignedDuration::from_millis(1)).ok());
    let since = after.filter(|after| others && fresh && *after > since).unwrap_or(since);
    let mut made = match made(wanted, since, me) {
        Ok(made) => made,
        Err(refusal) => return Step::Refuse(refusal),
    };
    let mut object = live.clone();
    // The API server leaves out labels where there are none.
    object.metadata.labels = made.metadata.labels.filter(|labels| !labels.is_empty());
    object.metadata.annotations = made.metadata.annotations;
    object.metadata.owner_references = made.metadata.owner_references;
    let spec = made.data.get_mut("spec").map(Value::take).unwrap_or_default();
    if let Some(fields) = object.data.as_object_mut() {
        fields.insert("spec".to_owned(), spec);
    } else {
        object.data = json!({ "spec": spec });
    }
    if object == *live {
        return Step::Nothing;
    }
    Step::Write { object: Box::new(object), create: false, since }
}
