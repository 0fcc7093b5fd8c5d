//! Writes the CustomResourceDefinitions as YAML files, one a kind.
//!
//! `cargo run -p mesh-api --example crds [FOLDER]`; the folder defaults to `deploy/charts/base/crds`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/charts/base/crds");
    let folder = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    for crd in mesh_api::crds::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        std::fs::write(folder.join(format!("{name}.yaml")), serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}
