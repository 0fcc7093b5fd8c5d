//! A look at everything: what the statuses of all objects say, against what they should say.

use std::sync::Arc;

use kube::api::{Api, DynamicObject, ListParams};
use mesh_core::names::NamespacedName;

use super::Writer;
use crate::source::resource;
use crate::translate::conditions::MANAGED;
use crate::translate::{ObjectStatus, StatusTarget};
use crate::world::Kind;

/// What a look at everything found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Statuses that say what they should.
    pub(super) current: Vec<(StatusTarget, Arc<ObjectStatus>)>,
    /// Statuses to write.
    pub(super) stale: Vec<StatusTarget>,
}

impl Writer {
    /// Looks at every object that can have a status of ours.
    pub(super) async fn sweep(&self) -> Result<Found, kube::Error> {
        let mut found = Found::default();
        let mut kinds: Vec<Kind> = MANAGED.iter().map(|(kind, ..)| *kind).collect();
        kinds.dedup();
        for kind in kinds {
            self.sweep_kind(kind, &mut found).await?;
        }
        Ok(found)
    }

    async fn sweep_kind(&self, kind: Kind, found: &mut Found) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                // A cluster without the definition has no objects of the kind.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(error),
            };
            for object in &page.items {
                self.look_at(kind, object, found);
            }
            match page.metadata.continue_.filter(|one| !one.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(()),
            }
        }
    }

    fn look_at(&self, kind: Kind, object: &DynamicObject, found: &mut Found) {
        let metadata = &object.metadata;
        let (namespace, Some(name)) = (metadata.namespace.as_deref().unwrap_or_default(), &metadata.name) else {
            return;
        };
        for (_, manager, _) in MANAGED.iter().filter(|(have, ..)| *have == kind) {
            let target = StatusTarget { kind, key: NamespacedName::new(namespace, name.as_str()), manager };
            let wanted = self.wanted(&target);
            let current = super::is_current(&target, wanted.as_deref(), object);
            match (current, wanted) {
                (true, None) => {}
                (true, Some(wanted)) => found.current.push((target, wanted)),
                (false, None) if !self.judges(kind, object) => {}
                (false, _) => found.stale.push(target),
            }
        }
    }
}

/// Objects a page.
const PAGE: u32 = 500;
