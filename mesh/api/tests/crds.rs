//! The checked-in definitions are those of the types.

use std::path::PathBuf;

#[test]
fn checked_in_definitions_are_current() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/charts/base/crds");
    for crd in mesh_api::crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let file = folder.join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            text,
            serde_saphyr::to_string(&crd).unwrap(),
            "{} is stale: run `cargo run -p mesh-api --example crds`",
            file.display()
        );
    }
}

#[test]
fn both_versions_are_served_and_v1_is_stored() {
    for crd in mesh_api::crds::all() {
        let versions: Vec<_> = crd.spec.versions.iter().map(|v| (v.name.as_str(), v.served, v.storage)).collect();
        assert_eq!(versions, [("v1", true, true), ("v1beta1", true, false)]);
    }
}

#[test]
fn schemas_are_structural() {
    for crd in mesh_api::crds::all() {
        let text = serde_json::to_string(&crd).unwrap();
        for forbidden in ["$ref", "\"definitions\"", "anyOf", "\"default\""] {
            assert!(!text.contains(forbidden), "{:?} has {forbidden}", crd.metadata.name);
        }
    }
}
