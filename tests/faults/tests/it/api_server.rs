//! The API server goes away, or answers wrongly.

use std::time::Duration;

use anyhow::{Result, ensure};
use faults::Stage;
use faults::cluster::{configs, pods, services};
use faults::objects::{PodId, pod_name};
use faults::plane::Options;
use faults::wait::eventually;
use sandbox::api::faults::{Action, Ending, Fault, Filter};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_gone_proxies_keep_what_they_have_and_hear_of_changes_once_it_is_back() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    let before = stage.mirror.known();
    stage.cluster.stop().await?;
    // Written while nobody can read it: one pod changed, one gone.
    let (changed, gone) = (PodId(0), PodId(1));
    stage.cluster.set_ready(stage.size, changed, false)?;
    remove(&stage, gone)?;
    eventually("the control plane has noticed", Duration::from_secs(15), async || {
        ensure!(stage.plane.log().contains("watch failed"), "{}", stage.plane.last_words());
        Ok(())
    })
    .await?;
    let during = stage.mirror.known();
    let told: Vec<_> = before.differences(&during).take(4).collect();
    ensure!(told.is_empty(), "told while the API server was gone: {told:?}");
    stage.cluster.resume()?;
    let old = before.version(&stage.size.uid(changed)).map(str::to_owned);
    let (changed, gone) = (stage.size.uid(changed), stage.size.uid(gone));
    let recovery = stage.mirror.wait("the changes are told", RECOVERY, |known| {
        known.version(&changed) != old.as_deref() && known.version(&gone).is_none()
    });
    println!("recovered {:?} after the API server was back", recovery.await?);
    ensure!(stage.mirror.known().streams == 1, "the proxy was cut");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_watch_and_an_expired_one_lose_nothing() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    for (number, ending) in [Ending::Close, Ending::Reset, Ending::Gone].into_iter().enumerate() {
        let (changed, gone) = (PodId(2 * number), PodId(2 * number + 1));
        // Watches that were cut before come back at their own pace.
        eventually("watches are open", RECOVERY, async || {
            let open = stage.cluster.faults().open_watches();
            ensure!(open >= WATCHES, "{open} watches are open");
            Ok(())
        })
        .await?;
        // What happens now is seen by nobody: the next watch waits.
        let filter = Filter { verbs: vec!["watch".into()], ..Filter::default() };
        let delay = Fault { filter, probability: 1.0, count: None, action: Action::Delay { ms: 300 } };
        let id = stage.cluster.faults().add(delay)?;
        let dropped = stage.cluster.faults().drop_watches(&Filter::default(), ending);
        ensure!(dropped >= WATCHES, "{dropped} watches were open");
        stage.cluster.set_ready(stage.size, changed, false)?;
        remove(&stage, gone)?;
        let (changed, gone) = (stage.size.uid(changed), stage.size.uid(gone));
        let old = stage.mirror.known().version(&changed).map(str::to_owned);
        let recovery = stage.mirror.wait("the changes are told", RECOVERY, |known| {
            known.version(&changed) != old.as_deref() && known.version(&gone).is_none()
        });
        println!("recovered {:?} after watches ended with {ending:?}", recovery.await?);
        stage.cluster.faults().clear(Some(id));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_api_server_while_it_is_read_delay_the_news_and_nothing_else() -> Result<()> {
    let mut stage = Stage::set(PODS, &Options::default()).await?;
    let before = stage.mirror.known();
    for (number, code) in [410, 429, 500].into_iter().enumerate() {
        let pods =
            Filter { verbs: vec!["list".into(), "watch".into()], resources: vec!["pods".into()], ..Filter::default() };
        let action = Action::Status { code, retry_after_seconds: Some(1) };
        let fault = Fault { filter: pods.clone(), probability: 1.0, count: Some(2), action };
        let id = stage.cluster.faults().add(fault)?;
        stage.cluster.faults().drop_watches(&pods, Ending::Gone);
        let took = stage.hear_of(PodId(number), false, RECOVERY).await?;
        let applied = stage.cluster.faults().list().iter().find(|rule| rule.id == id).map(|rule| rule.applied);
        ensure!(applied == Some(2), "{applied:?} requests were answered with {code}");
        println!("recovered {took:?} after two answers of {code}");
    }
    let known = stage.mirror.known();
    ensure!(known.resources.len() == before.resources.len(), "something was lost");
    ensure!(known.streams == 1, "the proxy was cut");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_conflict_are_tried_again() -> Result<()> {
    let stage = Stage::set(PODS, &Options::default()).await?;
    // The namespace's roots, and the status of its policy.
    let writes = ["create", "update", "patch"].map(str::to_owned).to_vec();
    for (resource, code) in [("configmaps", 409), ("authorizationpolicies/status", 409), ("configmaps", 500)] {
        let filter = Filter { verbs: writes.clone(), resources: vec![resource.into()], ..Filter::default() };
        let action = Action::Status { code, retry_after_seconds: None };
        stage.cluster.faults().add(Fault { filter, probability: 1.0, count: Some(2), action })?;
    }
    stage.cluster.put(&faults::cluster::namespaces(), faults::Size::namespace_object(998))?;
    stage.cluster.put(&faults::cluster::policies(), faults::Size::policy_object(998))?;
    let started = std::time::Instant::now();
    eventually("root and status are written", RECOVERY, async || {
        let namespace = Some("team-998");
        ensure!(stage.cluster.get(&configs::maps(), namespace, "istio-ca-root-cert").is_some(), "no root");
        let policy = stage.cluster.get(&faults::cluster::policies(), namespace, "same-team");
        let status = policy.and_then(|policy| policy.value().pointer("/status/conditions").cloned());
        ensure!(status.is_some(), "no status; {}", stage.plane.last_words());
        Ok(())
    })
    .await?;
    println!("written {:?} after conflicts", started.elapsed());
    let applied: Vec<_> = stage.cluster.faults().list().iter().map(|rule| rule.applied).collect();
    ensure!(applied == [2, 2, 2], "faults applied {applied:?} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_starts_before_the_api_server_answers_waits_and_never_serves_a_part() -> Result<()> {
    let stage = Stage::set(PODS, &Options::default()).await?;
    let filter = Filter { verbs: vec!["list".into()], resources: vec!["services".into()], ..Filter::default() };
    let action = Action::Status { code: 500, retry_after_seconds: None };
    let id = stage.cluster.faults().add(Fault { filter, probability: 1.0, count: None, action })?;
    let mut second = faults::Plane::start(&stage.cluster, "istiod-2", &Options::default())?;
    eventually("the second one has tried", RECOVERY, async || {
        ensure!(second.log().contains("watch failed"), "{}", second.last_words());
        Ok(())
    })
    .await?;
    ensure!(second.await_ready(Duration::from_millis(500)).await.is_err(), "ready without services");
    let early = faults::ads::Proxy::reader(7).connect(&second.target(&stage.cluster).await?).await;
    ensure!(early.is_err(), "a stream was opened before the cluster was read");
    stage.cluster.faults().clear(Some(id));
    println!("ready {:?} after its start", second.await_ready(RECOVERY).await?);
    let mut mirror = faults::Mirror::start(faults::ads::Proxy::reader(8), &second.target(&stage.cluster).await?);
    let all = stage.mirror.known().resources;
    mirror.wait("both replicas tell the same", RECOVERY, |known| known.resources == all).await?;
    ensure!(stage.cluster.get(&services(), Some("default"), "kubernetes").is_some());
    Ok(())
}

fn remove(stage: &Stage, pod: PodId) -> Result<()> {
    let service = stage.size.service_of(pod);
    stage.cluster.remove(&pods(), Some(&stage.size.namespace(service)), &pod_name(service, pod))
}

const PODS: usize = 200;
/// Watches a control plane holds at the least: it reads more kinds than this.
const WATCHES: usize = 5;
const RECOVERY: Duration = Duration::from_secs(15);
