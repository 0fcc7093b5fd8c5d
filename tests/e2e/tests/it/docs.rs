//! The commands in the documentation work as they stand there.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests_support::run::{bin_dir, kubectl, run};

/// The `sh` blocks of a page, one after the other.
fn commands(page: &str) -> String {
    let mut script = String::from("set -eu\n");
    let mut inside = false;
    for line in page.lines() {
        match line.trim_end() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => script.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    script
}

#[test]
fn the_quick_start_can_be_followed_to_its_end() -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let script = commands(&std::fs::read_to_string(format!("{root}/docs/quick-start.md"))?);
    ensure!(script.lines().count() > 15, "the page has lost its commands: {script}");
    let dir = tempfile::tempdir()?;
    let kubectl = kubectl().context("kubectl")?;
    let tools = kubectl.parent().context("folder of kubectl")?.display().to_string();
    let path = format!("{}:{tools}:{}", bin_dir()?.display(), std::env::var("PATH")?);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(root).env("PATH", path).env("MELTEMI_SANDBOX_DIR", dir.path());
    let ended = run(&mut command, "", Duration::from_secs(90));
    // Whatever happened, nothing stays behind.
    let mut down = Command::new(bin_dir()?.join("meltemi"));
    let _ = run(down.args(["sandbox", "down"]).env("MELTEMI_SANDBOX_DIR", dir.path()), "", Duration::from_secs(20));
    let said = ended?.ok()?;
    for part in ["HBONE", "REFUSED", "no-sleep"] {
        ensure!(said.contains(part), "{part:?} is missing in {said}");
    }
    Ok(())
}
