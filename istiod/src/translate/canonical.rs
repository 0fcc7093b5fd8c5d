//! Names of workloads for telemetry.

use mesh_api::labels as names;

use crate::world::Labels;

/// What a user would call the application.
pub(super) fn name(labels: &Labels, workload_name: &str) -> String {
    let choices = [names::CANONICAL_NAME, names::APP_NAME, "app"];
    choices.iter().find_map(|label| labels.get(label)).unwrap_or(workload_name).to_owned()
}

/// Which version of it.
pub(super) fn revision(labels: &Labels) -> String {
    let choices = [names::CANONICAL_REVISION, names::APP_VERSION, "version"];
    choices.iter().find_map(|label| labels.get(label)).unwrap_or("latest").to_owned()
}
