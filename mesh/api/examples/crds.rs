//! Writes the CustomResourceDefinitions as YAML files, one a kind.
//!
//! `cargo run -p mesh-api --example crds [FOLDER]`; the folder defaults to `deploy`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let deploy = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    let sets = [("charts/base/crds", mesh_api::crds::all()), ("crds/gateway-api", mesh_api::crds::gateway_api())];
    for (folder, definitions) in sets {
        let folder = deploy.join(folder);
        std::fs::create_dir_all(&folder)?;
        for crd in definitions {
            let name = crd.metadata.name.clone().unwrap_or_default();
            std::fs::write(folder.join(format!("{name}.yaml")), serde_saphyr::to_string(&crd)?)?;
        }
    }
    Ok(())
}
