//! The GatewayClasses that exist without anybody making them: made where they are missing, never changed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use mesh_core::drain::DrainWatch;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::source::resource;
use crate::translate::Model;
use crate::translate::gateway::Family;
use crate::world::{Kind, World};

/// Makes what is missing. Every replica may: who comes second finds it there.
pub struct ClassKeeper {
    /// The API server.
    pub client: Client,
    /// What is known of the cluster.
    pub model: Arc<RwLock<Model>>,
    /// Changes after the model did; the first time when everything is read.
    pub publications: watch::Receiver<()>,
}

impl std::fmt::Debug for ClassKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClassKeeper").finish_non_exhaustive()
    }
}

impl ClassKeeper {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut waits = true;
        loop {
            // Until the first publication nothing can be missed, since nothing is known.
            let next = async {
                match waits {
                    true => self.publications.changed().await.is_ok(),
                    false => tokio::select! {
                        changed = self.publications.changed() => changed.is_ok(),
                        () = tokio::time::sleep(RETRY) => true,
                    },
                }
            };
            tokio::select! {
                _ = drain.signaled() => return,
                alive = next => if !alive { return },
            }
            waits = self.make_missing().await;
        }
    }

    /// Makes what is missing. Tells whether nothing is.
    async fn make_missing(&self) -> bool {
        let missing = missing(self.model.read().unwrap_or_else(PoisonError::into_inner).world());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(Kind::GatewayClass));
        for class in &missing {
            let name = class.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let made = match serde_json::from_value(class.clone()) {
                Ok(object) => api.create(&PostParams::default(), &object).await,
                Err(error) => Err(kube::Error::SerdeError(error)),
            };
            match made {
                Ok(_) => tracing::info!(name, "GatewayClass made"),
                // It was there, or the cluster has no such kind (yet).
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => tracing::warn!(name, error = %crate::source::chain(&error), "GatewayClass not made"),
            }
        }
        missing.is_empty()
    }
}

/// Classes that should be there and are not.
fn missing(world: &World) -> Vec<Value> {
    let settings = world.settings();
    if !settings.proxies.classes {
        return Vec::new();
    }
    let families = Family::ALL.into_iter().filter(|family| family.exists(settings));
    let missing = families.filter(|family| world.gateway_class(family.built_in_class(settings)).is_none());
    missing.map(|family| class(family, family.built_in_class(settings), family.controller(settings))).collect()
}

fn class(family: Family, name: &str, controller: &str) -> Value {
    let description = match family {
        Family::Edge => "Ingress and egress gateways of the mesh",
        Family::Waypoint => "Waypoints: layer 7 between workloads of the mesh",
        Family::EastWest => "Gateways between networks of the mesh",
        Family::Remote => "Gateways of other clusters; nothing is deployed for them",
    };
    let resource = resource(Kind::GatewayClass);
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": {"controllerName": controller, "description": description},
    })
}

/// Between two attempts: the kind may be defined at any time.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::fixture;
    use crate::world::MeshSettings;

    fn names(yaml: &str, multi_network: bool) -> Vec<String> {
        let model = fixture::model(yaml, MeshSettings { multi_network, ..MeshSettings::default() });
        let missing = missing(model.world());
        missing.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn classes_are_made_where_they_are_missing() {
        assert_eq!(names("", false), ["istio", "istio-waypoint", "istio-remote"]);
        assert_eq!(names("", true), ["istio", "istio-waypoint", "istio-east-west", "istio-remote"]);
        // Even with another controller it is there, and is not touched.
        let class = "{kind: GatewayClass, metadata: {name: istio}, spec: {controllerName: example.com/other}}";
        assert_eq!(names(class, false), ["istio-waypoint", "istio-remote"]);
    }

    #[test]
    fn descriptions_are_as_long_as_the_api_allows() {
        for family in Family::ALL {
            let class = class(family, "n", "c");
            assert!(class["spec"]["description"].as_str().unwrap().len() <= 64);
        }
    }
}
