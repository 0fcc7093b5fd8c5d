//! Many features in one sandbox: each is named as the conformance test of the Gateway API that asks for it, in snake case.
//!
//! What all of them need is applied at once, each on services or hosts of its own, so that they do not meet. All are
//! checked, also after one has failed, and the ones that failed are named.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tests_support::eventually;

use crate::market::{Market, Said};
use crate::town::SOON;

/// One feature: what is applied for it, and what must hold then.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) given: String,
    pub(crate) holds: fn(&Market) -> Result<()>,
}

/// A feature whose check is a function of the same name, for which `$given` is applied.
macro_rules! named {
    ($name:ident, $given:expr) => {
        $crate::features::Feature { name: stringify!($name), given: $given.into(), holds: $name }
    };
}
pub(crate) use named;

/// Applies what all features need and checks each of them, several at a time. `FEATURE=part-of-a-name` checks those alone.
pub(crate) fn check_all(market: &Market, features: Vec<Feature>) -> Result<()> {
    let only = std::env::var("FEATURE").unwrap_or_default();
    let features: Vec<_> = features.into_iter().filter(|one| one.name.contains(&only)).collect();
    ensure!(!features.is_empty(), "no feature has {only:?} in its name");
    let given: Vec<&str> = features.iter().map(|one| one.given.as_str()).filter(|given| !given.is_empty()).collect();
    market.lab.apply(&given.join("\n---\n"))?;
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(feature) = features.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let result = (feature.holds)(market);
            let (verdict, took) = (if result.is_ok() { "ok" } else { "FAILED" }, started.elapsed().as_millis());
            eprintln!("{}: {verdict} after {took} ms", feature.name);
            if let Err(error) = result {
                failures.lock().unwrap_or_else(PoisonError::into_inner).push((feature.name, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() {
        return Ok(());
    }
    let (mut names, mut text) = (Vec::new(), String::new());
    for (name, error) in &failures {
        names.push(*name);
        writeln!(text, "--- {name}\n{error:#}")?;
    }
    bail!("{} of {} failed: {}\n{text}\n{}", names.len(), features.len(), names.join(", "), market.diagnosis())
}

/// How many features are checked at a time: their time is spent waiting.
const WORKERS: usize = 4;

/// What an answer must be.
pub(crate) enum Want<'a> {
    /// 200 from this backend.
    From(&'a str),
    /// Status (`503`, `grpc 12`), from whomever.
    Status(&'a str),
    /// No answer at all.
    Nothing,
}

impl Want<'_> {
    /// Whether every request of a call was answered so.
    pub(crate) fn holds(&self, said: &Said) -> Result<()> {
        let statuses = said.statuses();
        match self {
            Self::From(backend) => {
                let good = matches!(&*statuses, [(status, _)] if status == "200" || status == "grpc 0");
                ensure!(good && said.errors().is_empty(), "wanted an answer of {backend}, got {said:?}");
                ensure!(statuses[0].1 == said.backend(backend), "wanted {backend}, got {said:?}");
            }
            Self::Status(wanted) => {
                let good = matches!(&*statuses, [(status, _)] if status == wanted);
                ensure!(good && said.errors().is_empty(), "wanted {wanted}, got {said:?}");
            }
            Self::Nothing => ensure!(statuses.is_empty() && !said.errors().is_empty(), "wanted nothing, got {said:?}"),
        }
        Ok(())
    }
}

/// Makes the calls of a table from the client of the market: arguments of `load call`, parted by blanks, and what is
/// wanted. All are made again until each is answered as wanted; returns the answers.
pub(crate) fn answered(market: &Market, table: &[(&str, Want<'_>)]) -> Result<Vec<Said>> {
    answered_from(market, ("market", "deploy/client"), table)
}

/// The same from outside of the mesh; `EDGE` stands for the address of the market's edge.
pub(crate) fn outside(market: &Market, table: &[(&str, Want<'_>)]) -> Result<Vec<Said>> {
    answered_from(market, ("outside", "deploy/stranger"), table)
}

fn answered_from(market: &Market, (namespace, target): (&str, &str), table: &[(&str, Want<'_>)]) -> Result<Vec<Said>> {
    let lines: Vec<String> = table.iter().map(|(args, _)| args.replace("EDGE", market.edge())).collect();
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let calls: Vec<&[&str]> = words.iter().map(Vec::as_slice).collect();
    eventually("every call is answered as wanted", SOON, || {
        let all = market.calls_from(namespace, target, &calls)?;
        ensure!(all.len() == table.len(), "{} of {} calls said something", all.len(), table.len());
        for ((args, want), said) in table.iter().zip(&all) {
            want.holds(said).map_err(|error| error.context((*args).to_owned()))?;
        }
        Ok(all)
    })
}

/// A Service of the market for the pods of the shop with these labels more, of HTTP, gRPC and TCP ports.
pub(crate) fn stall(name: &str, version: &str) -> String {
    let version = if version.is_empty() { String::new() } else { format!(", version: {version}") };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: market}}\nspec:\n  \
         selector: {{app: shop{version}}}\n  ports:\n  - {{name: http, port: 80, targetPort: http}}\n  \
         - {{name: grpc, port: 81, targetPort: http}}\n  - {{name: http-more, port: 8080, targetPort: http}}\n  \
         - {{name: tcp, port: 9001}}\n  - {{name: tcp-mirror, port: 9000}}\n"
    )
}

/// A Service and a route of the Gateway API that has it as its parent.
pub(crate) fn stall_with_route(kind: &str, name: &str, rules: &str) -> String {
    format!(
        "{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: market}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: {name}}}]\n  rules:\n{rules}\n",
        stall(name, "")
    )
}
