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
    follow("quick-start", &["HBONE", "REFUSED", "no-sleep"])
}

#[test]
fn the_page_about_waypoints_can_be_followed_to_its_end() -> Result<()> {
    follow(
        "waypoints",
        &[
            "is ready!",
            "istio-waypoint",
            "\"504\":1",
            "HTTPRoute demo/web rule 3 (canary)",
            "\"418\":1",
            "aborts 100% with 418",
        ],
    )
}

#[test]
fn the_page_about_gateways_can_be_followed_to_its_end() -> Result<()> {
    follow(
        "gateways",
        &[
            "\"200\":1",
            "\"301\":1",
            "web.example.com     20",
            "https://web.example.com/: ALLOWED",
            "REDIRECTED with 301 to https://other.example.com/a?b=c",
        ],
    )
}

#[test]
fn the_life_of_a_request_can_be_watched_as_written() -> Result<()> {
    follow(
        "life-of-a-request",
        &[
            "route        HTTPRoute demo/web rule 2 (slow)",
            "does         time-out: 300ms",
            "HTTPRoute demo/web rule 0 (testers): wants header x-tester",
            "backend      web-v2.demo.svc.cluster.local:80",
            "SERVICE FQDN",
            "HEALTHY",
            "15008",
            "UT",
        ],
    )
}

/// Runs the commands of a page; all of `words` must be among what they say.
fn follow(page: &str, words: &[&str]) -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let script = commands(&std::fs::read_to_string(format!("{root}/docs/{page}.md"))?);
    ensure!(script.lines().count() > 15, "the page has lost its commands: {script}");
    let dir = tempfile::tempdir()?;
    let sandbox = dir.path().join("sandbox");
    std::fs::create_dir(&sandbox)?;
    let kubectl = kubectl().context("kubectl")?;
    let tools = kubectl.parent().context("folder of kubectl")?.display().to_string();
    let path = format!("{}:{tools}:{}", bin_dir()?.display(), std::env::var("PATH")?);
    // What was said before a page got stuck is to be read.
    let log = dir.path().join("said.txt");
    let script = format!("exec >'{}' 2>&1\n{script}", log.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(root).env("PATH", path).env("MELTEMI_SANDBOX_DIR", &sandbox);
    let ended = run(&mut command, "", Duration::from_secs(120));
    // Whatever happened, nothing stays behind.
    let mut down = Command::new(bin_dir()?.join("meltemi"));
    let _ = run(down.args(["sandbox", "down"]).env("MELTEMI_SANDBOX_DIR", &sandbox), "", Duration::from_secs(20));
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let ended = ended.with_context(|| format!("stuck after:\n{said}"))?;
    ensure!(ended.code == 0, "exit code {} after:\n{said}", ended.code);
    for word in words {
        ensure!(said.contains(word), "{word:?} is missing in {said}");
    }
    Ok(())
}
