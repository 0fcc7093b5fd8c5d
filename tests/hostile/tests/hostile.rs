//! Every kind of hostile peer for a short while; `make hostile` gives each ten seconds.

use std::time::Duration;

use anyhow::{Result, ensure};
use hostile::isolate::isolated_test;
use hostile::trial::Trial;

#[test]
fn hostile_peers_lose_their_own_connections_and_nobody_else_notices() -> Result<()> {
    isolated_test("hostile_peers_lose_their_own_connections_and_nobody_else_notices", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut trial = Trial::begin().await?;
            let mut bad = Vec::new();
            for flood in hostile::floods::all() {
                let row = trial.attack_again(flood, EACH, TRIES).await?;
                println!("{row}");
                if !row.faults.is_empty() {
                    bad.push(row.to_string());
                }
            }
            ensure!(bad.is_empty(), "{}", bad.join("\n"));
            Ok(())
        })
    })
}

const EACH: Duration = Duration::from_secs(1);
/// Attacks of one kind, if the first has faults.
const TRIES: usize = 3;
