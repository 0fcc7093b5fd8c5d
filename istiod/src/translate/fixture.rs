//! For tests: a world from YAML, as the API server would tell it.

use kube::api::DynamicObject;
use serde_json::Value;

use crate::source::convert;
use crate::world::{Change, Kind, MeshSettings};

use super::Model;

/// A model of these documents.
pub(crate) fn model(yaml: &str, settings: MeshSettings) -> Model {
    let mut model = Model::default();
    model.apply(Change::Settings(settings.into()));
    changes(yaml).into_iter().for_each(|change| model.apply(change));
    model.flush();
    model
}

/// What these documents mean.
pub(crate) fn changes(yaml: &str) -> Vec<Change> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("valid YAML");
    let read = |document: Value| {
        let name = document["kind"].as_str().unwrap_or_default();
        let kind =
            Kind::ALL.into_iter().chain(Kind::REFERENCED).find(|kind| kind.name() == name).expect("a known kind");
        let mut document = document.clone();
        document["apiVersion"] = "v1".into();
        let object: DynamicObject = serde_json::from_value(document).expect("an object");
        convert::change(kind, object, "default")
    };
    documents.into_iter().map(read).collect()
}
