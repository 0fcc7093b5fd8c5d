//! A short run; `make soak` takes fifteen minutes.

use anyhow::{Result, ensure};
use hostile::isolate::isolated_test;
use soak::plan::Plan;

#[test]
fn nothing_fails_and_nothing_is_left_while_everything_changes() -> Result<()> {
    isolated_test("nothing_fails_and_nothing_is_left_while_everything_changes", || {
        soak::run::raise_descriptor_limit()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let summary = runtime.block_on(soak::run::run(Plan::short()))?;
        println!("{summary}");
        ensure!(summary.faults().is_empty(), "{summary}");
        Ok(())
    })
}
