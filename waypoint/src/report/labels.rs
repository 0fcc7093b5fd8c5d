//! Labels of the metrics: names, order and values are contracts with dashboards.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use super::ends::End;
use super::series::{Kind, Labels, Report, Reporter};

/// A set of labels as it is shown.
pub(super) struct Shown<'a> {
    pub(super) labels: &'a Labels,
    pub(super) report: &'a Report,
}

impl EncodeLabelSet for Shown<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Labels { source, destination, service, mutual_tls, flags, kind } = self.labels;
        let nobody = End::default();
        let destination = destination.as_deref().unwrap_or(&nobody);
        let mut put = |name: &str, value: &str| put(encoder, name, value);
        let waypoint = self.report.reporter == Reporter::Waypoint;
        put("reporter", if waypoint { "waypoint" } else { "source" })?;
        put("source_workload", known(&source.workload))?;
        put("source_canonical_service", known(&source.canonical_service))?;
        put("source_canonical_revision", known(&source.canonical_revision))?;
        put("source_workload_namespace", known(&source.namespace))?;
        put("source_principal", &principal(source.identity.as_ref()))?;
        put("source_app", known(&source.app))?;
        put("source_version", known(&source.version))?;
        put("source_cluster", known(&source.cluster))?;
        put("destination_workload", known(&destination.workload))?;
        put("destination_workload_namespace", known(&destination.namespace))?;
        let fallback = Some(&self.report.own).filter(|_| waypoint);
        put("destination_principal", &principal(destination.identity.as_ref().or(fallback)))?;
        put("destination_app", known(&destination.app))?;
        put("destination_version", known(&destination.version))?;
        put("destination_service", known(service.as_ref().map_or("", |one| &one.hostname)))?;
        put("destination_canonical_service", known(&destination.canonical_service))?;
        put("destination_canonical_revision", known(&destination.canonical_revision))?;
        put("destination_service_name", known(service.as_ref().map_or("", |one| &one.name)))?;
        put("destination_service_namespace", known(service.as_ref().map_or("", |one| &one.namespace)))?;
        put("destination_cluster", known(&destination.cluster))?;
        match kind {
            Kind::Tcp => put("request_protocol", "tcp")?,
            Kind::Http { status, grpc, grpc_status } => {
                put("request_protocol", if *grpc { "grpc" } else { "http" })?;
                put("response_code", &status.to_string())?;
                let grpc_status = grpc_status.filter(|_| *grpc).map(|status| status.to_string());
                put("grpc_response_status", grpc_status.as_deref().unwrap_or_default())?;
            }
        }
        put("response_flags", &flags.to_string())?;
        let security = match (waypoint, mutual_tls) {
            (false, _) => "unknown",
            (true, true) => "mutual_tls",
            (true, false) => "none",
        };
        put("connection_security_policy", security)
    }
}

fn put(encoder: &mut LabelSetEncoder<'_>, name: &str, value: &str) -> fmt::Result {
    (name, value).encode(encoder.encode_label())
}

fn known(value: &str) -> &str {
    if value.is_empty() { UNKNOWN } else { value }
}

fn principal(identity: Option<&mesh_core::Identity>) -> String {
    identity.map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
}

/// Value of what is not known.
const UNKNOWN: &str = "unknown";
