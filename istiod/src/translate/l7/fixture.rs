//! For tests: resources of a world that is written as YAML.

use mesh_wire::l7;
use mesh_wire::l7::resource::Kind;

use super::layer::decode;
use crate::translate::{Model, fixture};
use crate::world::MeshSettings;

/// A model of these documents.
pub(crate) fn world(yaml: &str) -> Model {
    fixture::model(yaml, MeshSettings::default())
}

/// A port by the name of its resource.
pub(crate) fn port(model: &Model, name: &str) -> Option<l7::Port> {
    match decode(model.layer7().resources().get(name)?)?.kind? {
        Kind::Port(port) => Some(port),
        other => panic!("{other:?}"),
    }
}

/// A gateway's own resource.
pub(crate) fn proxy(model: &Model, name: &str) -> Option<l7::Proxy> {
    match decode(model.layer7().resources().get(name)?)?.kind? {
        Kind::Proxy(proxy) => Some(proxy),
        other => panic!("{other:?}"),
    }
}

/// A listener of a gateway by the name of its resource.
pub(crate) fn listener(model: &Model, name: &str) -> Option<l7::Listener> {
    match decode(model.layer7().resources().get(name)?)?.kind? {
        Kind::Listener(listener) => Some(listener),
        other => panic!("{other:?}"),
    }
}
