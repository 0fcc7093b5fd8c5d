//! `make bench`: the same traffic direct and through node proxies, in alternating rounds of one run. Ratios count;
//! absolute numbers belong to the machine.
//!
//! Each variant has a town of its own: client pod, node 1, switch, node 2, server pod, joined by veth pairs. The proxies
//! are plain processes of the nodes; a development CA, a local workload file and a socket that hands them the pod are
//! all they have.

mod args;
mod case;
mod control;
mod cpu;
mod l7;
mod load;
mod memory;
mod proxy;
mod serve;
mod table;
mod town;
mod traffic;
mod zds;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Args, Role};
use case::{Case, Kind};
use control::Control;
use table::Table;
use town::{Town, Variant};

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.role {
        Some(Role::Serve) => serve::run(),
        Some(Role::Config { place, routes }) => l7::serve(place, routes),
        Some(Role::Load(plan)) => load::run(&plan),
        None => bench(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<()> {
    let cases = case::selected(&args.only)?;
    let mut table = Table::default();
    // Before anything else: threads must not be left when namespaces are made.
    control_plane(&cases, args, &mut table)?;
    if cases.iter().any(|case| !matches!(case.kind, Kind::Control(_))) {
        become_root().context("making a user namespace (or run as root)")?;
    }
    if cases.iter().any(|case| matches!(case.kind, Kind::Traffic(_) | Kind::Memory(_))) {
        node_proxy(&cases, args, &mut table)?;
    }
    for case in &cases {
        let Kind::Requests(requests) = case.kind else { continue };
        say(&format!("{} ...", case.name))?;
        table.add_requests(case, &l7::run(args, requests).with_context(|| case.name)?);
    }
    write!(std::io::stdout(), "{table}").context("printing the table")
}

fn control_plane(cases: &[&'static Case], args: &Args, table: &mut Table) -> Result<()> {
    let mut control = None;
    for case in cases {
        let Kind::Control(pods) = case.kind else { continue };
        say(&format!("{} ...", case.name))?;
        let control = match &mut control {
            Some(control) => control,
            none => none.insert(Control::new(args)?),
        };
        table.add_control(case, &control.measure(pods).with_context(|| case.name)?);
    }
    Ok(())
}

fn node_proxy(cases: &[&'static Case], args: &Args, table: &mut Table) -> Result<()> {
    let programs = proxy::Programs::find(args)?;
    if cases.iter().any(|case| matches!(case.kind, Kind::Traffic(_))) {
        let towns =
            Variant::all(&programs).map(|variant| Town::build(variant, &programs)).collect::<Result<Vec<_>>>()?;
        for case in cases {
            let Kind::Traffic(traffic) = case.kind else { continue };
            say(&format!("{} ...", case.name))?;
            let samples = traffic::rounds(&towns, traffic, args).with_context(|| case.name)?;
            table.add_traffic(case, &samples);
        }
    }
    for variant in Variant::all(&programs).filter(|variant| variant.is_proxied()) {
        for case in cases {
            let Kind::Memory(memory) = case.kind else { continue };
            say(&format!("{} of {variant} ...", case.name))?;
            let found = memory::measure(variant, &programs, memory, args).with_context(|| case.name)?;
            table.add_memory(case, variant, &found);
        }
    }
    Ok(())
}

/// Progress goes to the error output: the table is the result.
fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{line}")?)
}

/// Namespaces of the network need a privilege; a user namespace gives it to anybody.
fn become_root() -> Result<()> {
    use nix::sched::{CloneFlags, unshare};
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(())
}
