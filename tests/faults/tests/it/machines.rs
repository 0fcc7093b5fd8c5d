//! Virtual machines that register themselves, over mTLS, with replicas that come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use faults::cluster::{SYSTEM, namespaces, pods};
use faults::machine::{Machine, Said};
use faults::plane::Options;
use faults::wait::eventually;
use faults::{Cluster, Plane};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use mesh_wire::workload::WorkloadStatus;
use sandbox::store::ResourceKey;
use serde_json::{Value, json};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_in_the_mesh_for_as_long_as_it_is_connected() -> Result<()> {
    let (cluster, plane) = stage().await?;
    let addr = plane.target(&cluster).await?.addr;
    let machine = Machine::new(&cluster, addr, "vms", "vm").await?;
    let mut stream = machine.register(addr, machine.says("10.9.0.1", "shop")).await?;
    let entry = cluster.get(&entries(), Some("vms"), "shop-10.9.0.1").context("an entry before the first answer")?;
    let told = |path: &str| entry.value().pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(told("/spec/serviceAccount") == "vm" && told("/spec/address") == "10.9.0.1", "{:?}", entry.value());
    ensure!(told("/metadata/annotations/istio.io~1workloadController") == "istiod-1", "{:?}", entry.value());
    ensure!(told("/metadata/ownerReferences/0/kind") == "WorkloadGroup", "{:?}", entry.value());

    // It is watched: nobody sends to it before it says that it is well.
    let is = |status: WorkloadStatus| {
        move |one: &mesh_wire::workload::Workload| one.name == "shop-10.9.0.1" && one.status == i32::from(status)
    };
    stream.hears("it is unhealthy at first", WITHIN, is(WorkloadStatus::Unhealthy)).await?;
    stream.tell_health(None).await?;
    let told = Instant::now();
    let workload = stream.hears("it is healthy", WITHIN, is(WorkloadStatus::Healthy)).await?;
    println!("healthy for everybody {:?} after it said so", told.elapsed());
    ensure!(workload.service_account == "vm" && workload.canonical_name == "shop", "{workload:?}");
    stream.tell_health(Some("GET / answered 500")).await?;
    stream.hears("it is not any more", WITHIN, is(WorkloadStatus::Unhealthy)).await?;
    let entry = cluster.get(&entries(), Some("vms"), "shop-10.9.0.1").context("the entry")?;
    let said = entry.value().pointer("/status/conditions/0/message").and_then(Value::as_str);
    ensure!(said == Some("GET / answered 500"), "{:?}", entry.value());

    drop(stream);
    eventually("the entry says that it left", WITHIN, async || {
        let entry = cluster.get(&entries(), Some("vms"), "shop-10.9.0.1").context("an entry")?;
        let at = entry.value().pointer("/metadata/annotations/istio.io~1disconnectedAt");
        at.is_some().then_some(()).context("no time")
    })
    .await?;
    gone(&cluster, "shop-10.9.0.1", WITHIN).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_of_the_group_is_refused_with_the_reason() -> Result<()> {
    let (cluster, plane) = stage().await?;
    let addr = plane.target(&cluster).await?.addr;
    let vm = Machine::new(&cluster, addr, "vms", "vm").await?;
    let other = Machine::new(&cluster, addr, "vms", "other").await?;
    let refused =
        async |machine: &Machine, said: Said<'_>| machine.register(addr, said).await.err().context("it is served");
    let status = refused(&other, other.says("10.9.0.1", "shop")).await?;
    ensure!(
        status.code() == Code::PermissionDenied && status.message().contains("SERVICE_ACCOUNT \"other\""),
        "{status:?}"
    );
    let status = refused(&vm, vm.says("10.9.0.1", "nothing")).await?;
    ensure!(status.code() == Code::NotFound && status.message().contains("vms/nothing"), "{status:?}");
    let status = refused(&vm, Said { namespace: "elsewhere", ..vm.says("10.9.0.1", "shop") }).await?;
    ensure!(status.code() == Code::PermissionDenied, "{status:?}");
    let status = refused(&vm, vm.says("127.0.0.1", "shop")).await?;
    ensure!(status.code() == Code::InvalidArgument && status.message().contains("INSTANCE_IPS"), "{status:?}");
    let first = vm.register(addr, vm.says("10.9.0.1", "shop")).await?;
    let second = Machine::new(&cluster, addr, "vms", "vm").await?.register(addr, vm.says("10.9.0.2", "shop")).await?;
    ensure!(cluster.get(&entries(), Some("vms"), "shop-10.9.0.2").is_some(), "another machine of the group");
    drop((first, second));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_a_killed_replica_are_the_next_ones_and_those_that_do_not_come_back_go() -> Result<()> {
    let (cluster, mut first) = stage().await?;
    let second = Plane::ready(&cluster, "istiod-2", &options()).await?;
    let (one, two) = (first.target(&cluster).await?.addr, second.target(&cluster).await?.addr);
    let machine = Machine::new(&cluster, one, "vms", "vm").await?;
    let stays = machine.register(one, machine.says("10.9.0.1", "shop")).await?;
    let ends = machine.register(one, machine.says("10.9.0.2", "shop")).await?;
    first.kill()?;
    cluster.remove(&pods(), Some(SYSTEM), "istiod-1")?;
    let killed = Instant::now();
    drop((stays, ends));
    let _stream = machine.register(two, machine.says("10.9.0.1", "shop")).await?;
    let controller = || {
        let entry = cluster.get(&entries(), Some("vms"), "shop-10.9.0.1")?;
        Some(entry.value().pointer("/metadata/annotations/istio.io~1workloadController")?.as_str()?.to_owned())
    };
    ensure!(controller().as_deref() == Some("istiod-2"), "{:?} has it", controller());
    gone(&cluster, "shop-10.9.0.2", Duration::from_secs(75)).await.with_context(|| second.last_words())?;
    println!("the entry of a machine that never came back went {:?} after its replica was killed", killed.elapsed());
    ensure!(controller().as_deref() == Some("istiod-2"), "{:?} has the other", controller());
    Ok(())
}

/// A control plane, and a group whose workloads are watched.
async fn stage() -> Result<(Cluster, Plane)> {
    let cluster = Cluster::start().await?;
    for name in ["vms", "elsewhere"] {
        cluster.put(&namespaces(), json!({"metadata": {"name": name, "uid": name}}))?;
    }
    for name in ["istiod-1", "istiod-2"] {
        let metadata = json!({"name": name, "namespace": SYSTEM, "uid": name});
        cluster
            .put(&pods(), json!({"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Running"}}))?;
    }
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "WorkloadGroup");
    let groups: Api<DynamicObject> =
        Api::namespaced_with(cluster.client(), "vms", &ApiResource::from_gvk_with_plural(&kind, "workloadgroups"));
    let group = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "metadata": {"name": "shop"},
        "spec": {
            "metadata": {"labels": {"app": "shop"}},
            "template": {"serviceAccount": "vm"},
            "probe": {"httpGet": {"port": 8080}},
        },
    });
    groups.create(&PostParams::default(), &serde_json::from_value(group)?).await?;
    let plane = Plane::ready(&cluster, "istiod-1", &options()).await?;
    Ok((cluster, plane))
}

fn options() -> Options {
    Options { env: vec![("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "2s".to_owned())], ..Options::default() }
}

async fn gone(cluster: &Cluster, name: &str, within: Duration) -> Result<()> {
    eventually("the entry goes", within, async || {
        ensure!(cluster.get(&entries(), Some("vms"), name).is_none(), "it is there");
        Ok(())
    })
    .await
}

fn entries() -> ResourceKey {
    ResourceKey::new("networking.istio.io", "workloadentries")
}

const WITHIN: Duration = Duration::from_secs(10);
