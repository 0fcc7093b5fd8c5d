//! The objects a new cluster starts with.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::{ApiContext, ClusterConfig, ControllerError, is_conflict};

/// Creates namespaces, Service `default/kubernetes` and Service `kube-system/kube-dns` with
/// their endpoints. Objects that exist already are left as they are.
///
/// # Errors
/// [`ControllerError::Api`] when the API server refuses an object; nothing is rolled back, a
/// second call goes on where the first stopped.
pub async fn bootstrap(client: &Client, config: &ClusterConfig) -> Result<(), ControllerError> {
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name,
            "labels": {"kubernetes.io/metadata.name": name}}});
        create::<Namespace>(&Api::all(client.clone()), namespace).await?;
    }
    let default = "default";
    create::<Service>(
        &Api::namespaced(client.clone(), default),
        json!({
            "metadata": {"name": "kubernetes", "labels":
                {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"type": "ClusterIP", "clusterIP": config.api_service_ip,
                "clusterIPs": [config.api_service_ip],
                "ipFamilies": [family(config.api_service_ip)], "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                    "targetPort": config.api_port}]},
        }),
    )
    .await?;
    let of_family = |addresses: &[IpAddr], service: IpAddr| -> Vec<String> {
        addresses.iter().filter(|address| address.is_ipv4() == service.is_ipv4()).map(ToString::to_string).collect()
    };
    let api_addresses = of_family(&config.api_addresses, config.api_service_ip);
    let port = json!([{"name": "https", "port": config.api_port, "protocol": "TCP"}]);
    create::<EndpointSlice>(
        &Api::namespaced(client.clone(), default),
        slice("kubernetes", "kubernetes", config.api_service_ip, &api_addresses, &port),
    )
    .await?;
    let addresses: Vec<Value> = api_addresses.iter().map(|ip| json!({"ip": ip})).collect();
    create::<Endpoints>(
        &Api::namespaced(client.clone(), default),
        json!({"metadata": {"name": "kubernetes",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": addresses, "ports": port}]}),
    )
    .await?;
    dns(client, config, &of_family(&config.dns_addresses, config.dns_service_ip)).await
}

/// The DNS Service has no selector: the daemon itself answers.
async fn dns(client: &Client, config: &ClusterConfig, addresses: &[String]) -> Result<(), ControllerError> {
    let namespace = "kube-system";
    create::<Service>(
        &Api::namespaced(client.clone(), namespace),
        json!({
            "metadata": {"name": "kube-dns", "labels":
                {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
            "spec": {"type": "ClusterIP", "clusterIP": config.dns_service_ip,
                "clusterIPs": [config.dns_service_ip],
                "ipFamilies": [family(config.dns_service_ip)], "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]},
        }),
    )
    .await?;
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    create::<EndpointSlice>(
        &Api::namespaced(client.clone(), namespace),
        slice("kube-dns-daemon", "kube-dns", config.dns_service_ip, addresses, &ports),
    )
    .await
}

fn slice(name: &str, service: &str, ip: IpAddr, addresses: &[String], ports: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "sandbox"}},
        "addressType": family(ip),
        "endpoints": [{"addresses": addresses, "conditions":
            {"ready": true, "serving": true, "terminating": false}}],
        "ports": ports,
    })
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<(), ControllerError>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object).map_err(|source| ControllerError::Api {
        what: format!("building a bootstrap {}", K::kind(&())),
        source: Box::new(kube::Error::SerdeError(source)),
    })?;
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => Err(error).context(|| format!("creating {} {}", K::kind(&()), object.name_any())),
    }
}

/// The namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
