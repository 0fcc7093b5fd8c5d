//! `make demo`: the story holds, in time, as root and as an ordinary user.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests_support::run::{Ended, bin_dir, run};

fn tell(command: &mut Command) -> Result<()> {
    let began = Instant::now();
    let Ended { code, stdout, stderr } = run(command, "", Duration::from_secs(90))?;
    let took = began.elapsed();
    ensure!(code == 0, "the story stopped:\n{stdout}\n{stderr}");
    for proof in [
        "(plain text)",
        "none was restarted",
        "the caller's real address",
        "0 failed",
        "all of them TLS 1.3",
        "spiffe://cluster.local/ns/demo/sa/sleep -> spiffe://cluster.local/ns/demo/sa/web",
        "REFUSED",
        "90/10 as written",
        "the caller got 200",
        "is given up after",
        "GET /in-the-open",
    ] {
        ensure!(stdout.contains(proof), "{proof:?} is missing in\n{stdout}");
    }
    ensure!(took < Duration::from_secs(45), "the story took {took:?}:\n{stdout}");
    Ok(())
}

#[test]
fn the_demo_tells_its_story_as_whoever_runs_the_tests() -> Result<()> {
    let dir = tempfile::tempdir()?;
    tell(Command::new(bin_dir()?.join("demo")).args(["--stop", "--dir"]).arg(dir.path()))
}

#[test]
fn the_demo_tells_its_story_as_an_ordinary_user() -> Result<()> {
    let user = String::from_utf8(Command::new("id").arg("-u").output()?.stdout)?;
    if user.trim() != "0" {
        // The other test is this one then.
        return Ok(());
    }
    // A copy of the programs, because the folder of the build may be closed to others.
    let dir = tempfile::tempdir()?;
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin)?;
    let programs = [
        "demo",
        "meltemi",
        "meltemi-sandbox",
        "ztunnel",
        "waypoint",
        "istiod",
        "install-cni",
        "istio-cni",
        "echo",
        "load",
    ];
    for name in programs {
        std::fs::copy(bin_dir()?.join(name), bin.join(name))?;
    }
    ensure!(Command::new("chown").args(["-R", "65534:65534"]).arg(dir.path()).status()?.success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(bin.join("demo")).args(["--stop", "--dir"]).arg(dir.path().join("sandbox"));
    tell(command.env("HOME", dir.path()).env_remove("XDG_RUNTIME_DIR").current_dir("/"))
}
