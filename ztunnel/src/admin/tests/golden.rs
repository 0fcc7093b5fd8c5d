//! `config_dump` to the letter: tools parse it.

use serde_json::{Map, json};

use super::*;
use crate::state::LocalConfig;

const STATE: &str = include_str!("state.yaml");
const DUMP: &str = include_str!("config_dump.json");

fn world(config: &str) -> World {
    let mut world = World::new();
    LocalConfig::parse(config).unwrap().apply(&mut world.feed).unwrap();
    world
}

async fn dump(world: &World) -> Map<String, Value> {
    let (router, _, _) = fixture(world);
    let (status, text) = call(&router, Method::GET, "/config_dump").await;
    assert_eq!(status, StatusCode::OK);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn the_dump_is_what_tools_parse() {
    let mut dump = dump(&world(STATE)).await;
    // These depend on where the test runs.
    let config = dump.remove("config").unwrap();
    assert_eq!(config.pointer("/localNode").unwrap(), NODE);
    let version = dump.remove("version").unwrap();
    assert_eq!(version.pointer("/version").unwrap(), crate::start::VERSION);
    let expected: Map<String, Value> = serde_json::from_str(DUMP).unwrap();
    for (key, value) in &expected {
        assert_eq!(dump.get(key), Some(value), "{key}: {:#}", dump.get(key).unwrap_or_default());
    }
    assert_eq!(dump.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
}

/// What is shown of workloads and policies can be given back as a local file, and means the same.
#[tokio::test]
async fn what_is_shown_can_be_loaded() {
    let shown = dump(&world(STATE)).await;
    let loaded = json!({"workloads": shown["workloads"], "policies": shown["policies"]});
    let again = dump(&world(&loaded.to_string())).await;
    assert_eq!(again["workloads"], shown["workloads"]);
    assert_eq!(again["policies"], shown["policies"]);
}
