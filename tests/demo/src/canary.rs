//! The chapter about layer 7: a waypoint, a canary, a header that chooses, a retry, a time-out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests_support::{Lab, eventually};

use crate::telling::Teller;

/// Tells the chapter.
pub(crate) fn chapter(tell: &Teller, lab: &Lab) -> Result<()> {
    tell.chapter('e', "one command, and requests are routed: a waypoint and a canary");
    tell.command("meltemi waypoint apply -n demo --enroll-namespace --wait");
    let started = std::time::Instant::now();
    let said = lab.meltemi(&["waypoint", "apply", "-n", "demo", "--enroll-namespace", "--wait"])?.ok()?;
    ensure!(said.contains("is ready"), "the waypoint is not ready: {said}");
    tell.quote(&said);
    tell.proof(&format!(
        "a layer-7 proxy of the namespace takes traffic after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    tell.command("kubectl apply -f canary.yaml");
    lab.apply(CANARY)?;
    lab.rolled_out("demo", "web-v2")?;
    let all_to_v2 = |seen: &Value| share(seen) == (0, 20);
    eventually("the route is in force", Duration::from_secs(10), || {
        let seen = call(lab, &["http://web/", "-n", "20", "-H", "x-tester: yes"])?;
        ensure!(all_to_v2(&seen), "{seen}");
        Ok(())
    })?;
    tell.proof("requests with the header x-tester: yes all go to the new version");
    let (old, new) = share(&call(lab, &["http://web/", "-n", "400"])?);
    ensure!((15..=80).contains(&new) && old + new == 400, "90/10 became {old}/{new}");
    tell.proof(&format!("of 400 others {old} went to the old version and {new} to the new one: 90/10 as written"));
    heal(tell, lab)
}

fn heal(tell: &Teller, lab: &Lab) -> Result<()> {
    tell.command("load call 'http://web/flaky?echo-statuses=503,200'");
    let seen = call(lab, &["http://web/flaky?echo-statuses=503,200&echo-key=demo"])?;
    ensure!(status(&seen, "200") == 1, "the fault was not healed: {seen}");
    let attempt = seen.pointer("/last/json/headers/x-envoy-attempt-count").and_then(Value::as_str);
    ensure!(attempt == Some("2"), "healed by another attempt than the second: {seen}");
    tell.proof("the application said 503, the waypoint tried again: the caller got 200");
    tell.command("load call 'http://web/slow?echo-delay=5000'");
    let seen = call(lab, &["http://web/slow?echo-delay=5000"])?;
    ensure!(status(&seen, "504") == 1, "not given up: {seen}");
    let took = seen.get("max_ms").and_then(Value::as_f64).context("max_ms")?;
    ensure!((250.0..2000.0).contains(&took), "given up after {took} ms");
    tell.proof(&format!("an answer that takes 5 s is given up after {took:.0} ms: 504"));
    Ok(())
}

/// What `load call` says about its requests.
fn call(lab: &Lab, args: &[&str]) -> Result<Value> {
    let args: Vec<&str> = ["load", "call"].into_iter().chain(args.iter().copied()).collect();
    let said = lab.exec("demo", "deploy/sleep", &args)?.ok()?;
    serde_json::from_str(&said).with_context(|| format!("load said {said:?}"))
}

/// How many requests each version answered.
fn share(seen: &Value) -> (u64, u64) {
    let pods = seen.get("pods").and_then(Value::as_object);
    let of = |new: bool| {
        let pods = pods.into_iter().flatten().filter(|(pod, _)| pod.starts_with("web-v2-") == new);
        pods.filter_map(|(_, count)| count.as_u64()).sum()
    };
    (of(false), of(true))
}

fn status(seen: &Value, code: &str) -> u64 {
    seen.get("statuses").and_then(|statuses| statuses.get(code)).and_then(Value::as_u64).unwrap_or_default()
}

const CANARY: &str = include_str!("../manifests/canary.yaml");
