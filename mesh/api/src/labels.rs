//! Names of labels, annotations and well-known objects that users, charts and other components rely on.

/// Namespace and pod label that asks for capture: `ambient` or `none`.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Value of [`DATAPLANE_MODE`] that enrols.
pub const DATAPLANE_MODE_AMBIENT: &str = "ambient";
/// Value of [`DATAPLANE_MODE`] that keeps a pod out, whatever its namespace says.
pub const DATAPLANE_MODE_NONE: &str = "none";

/// Pod annotation that the node agent writes: [`REDIRECTION_ENABLED`], [`REDIRECTION_PENDING`] or absent.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// Rules are in place and the node proxy has acknowledged the pod.
pub const REDIRECTION_ENABLED: &str = "enabled";
/// Rules are in place, the node proxy has not acknowledged yet: the pod's traffic is refused.
pub const REDIRECTION_PENDING: &str = "pending";
/// Pod annotation (boolean): capture outbound traffic only.
pub const BYPASS_INBOUND_CAPTURE: &str = "ambient.istio.io/bypass-inbound-capture";
/// Pod annotation (boolean): per-pod override of DNS capture.
pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// Pod annotation: interfaces whose ingress TCP is treated as outbound.
pub const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation of pods that carry a sidecar; such pods are never captured.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";

/// Which control-plane revision owns an object.
pub const REVISION: &str = "istio.io/rev";
/// AuthorizationPolicy annotation (boolean): log only.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// Marks the root-certificate ConfigMap.
pub const ISTIO_CONFIG: &str = "istio.io/config";
/// A workload that terminates HBONE itself: comma list holding `http`.
pub const TUNNEL: &str = "networking.istio.io/tunnel";
/// Service, Namespace annotation: locality preference.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Which Gateway is the waypoint of an object: a name, or [`USE_WAYPOINT_NONE`].
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Value of [`USE_WAYPOINT`] that opts an object out, whatever its namespace says.
pub const USE_WAYPOINT_NONE: &str = "none";
/// Namespace of the Gateway that [`USE_WAYPOINT`] names.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// A second waypoint that takes a share of the connections.
pub const USE_WAYPOINT_CANARY: &str = "istio.io/use-waypoint-canary";
/// Namespace of the Gateway that [`USE_WAYPOINT_CANARY`] names.
pub const USE_WAYPOINT_CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Annotation: the share of [`USE_WAYPOINT_CANARY`] in percent.
pub const USE_WAYPOINT_CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
/// Boolean label: ingress gateways send through the waypoint.
pub const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";
/// Gateway and GatewayClass label: what traffic a waypoint takes, `service`, `workload`, `all` or `none`.
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Gateway and GatewayClass annotation: how node proxies hand traffic to the waypoint's pods.
pub const WAYPOINT_INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
/// Pod label: the Gateway that the pod was made for.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Label of objects that a gateway controller made.
pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";
/// Values of [`GATEWAY_MANAGED`] on Services that never have a waypoint themselves.
pub const MESH_GATEWAY_MANAGERS: [&str; 2] = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];
/// Gateway annotation: service account of its pods, where not the usual one.
pub const GATEWAY_SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// WorkloadEntry annotation: the WorkloadGroup that it was registered for.
pub const AUTO_REGISTRATION_GROUP: &str = "istio.io/autoRegistrationGroup";
/// ServiceEntry label (boolean): whether addresses are allocated for it; not said is true.
pub const ENABLE_AUTO_ADDRESSES: &str = "networking.istio.io/enable-autoallocate-ip";
/// API group of ServiceEntry, WorkloadEntry and their like.
pub const NETWORKING_GROUP: &str = "networking.istio.io";
/// API group of Gateway and GatewayClass.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Controller of the GatewayClasses whose Gateways are waypoints.
pub const WAYPOINT_CONTROLLER: &str = "istio.io/mesh-controller";
/// GatewayClass of waypoints.
pub const WAYPOINT_CLASS: &str = "istio-waypoint";

/// Network of a cluster, on the system namespace.
pub const NETWORK: &str = "topology.istio.io/network";
/// Node label: region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Node label: zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Node label: subzone.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// Slice label naming its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Telemetry name of a workload.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Telemetry revision of a workload.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Overrides the owner name of a workload.
pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Common application label, second choice for the canonical name.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Common application label, second choice for the canonical revision.
pub const APP_VERSION: &str = "app.kubernetes.io/version";

/// ConfigMap that carries the mesh root certificates into every namespace.
pub const ROOT_CERT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// Key of the bundle in [`ROOT_CERT_CONFIG_MAP`].
pub const ROOT_CERT_KEY: &str = "root-cert.pem";
/// ConfigMap that carries revocation lists into every namespace.
pub const CRL_CONFIG_MAP: &str = "istio-ca-crl";
/// Key of the lists in [`CRL_CONFIG_MAP`].
pub const CRL_KEY: &str = "ca-crl.pem";
/// Secret of a self-signed authority.
pub const CA_SECRET: &str = "istio-ca-secret";
/// Default namespace of the control plane.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
/// Default trust domain and cluster domain.
pub const CLUSTER_LOCAL: &str = "cluster.local";
