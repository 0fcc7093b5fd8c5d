//! One resource of the wire, checked and compiled. Whatever it needs of others is added when it goes live.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::{NamespacedName, TrustDomain};
use mesh_policy::l7::Policies;
use mesh_route::host_table::HostTable;
use mesh_route::{CompileError, Limits, Table};
use mesh_wire::l7::{self, resource::Kind, weighted_backend::Target};
use prost::Message as _;
use prost_types::Duration as WireDuration;

use super::chain::{Entry, L4Rule, ListenerEntry, PortEntry, Protocol, TlsRule, Weighted};
use super::proxy::{CONNECT_TIMEOUT, HBONE_IDLE_TIMEOUT, Proxy, Role, Settings};
use super::secure::ServerTls;
use crate::report::Service;

/// Why a resource cannot be used. The last good one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found}, expected {expected}")]
pub struct BadResource {
    /// Path of the field.
    pub field: String,
    /// The value as it came; never a secret.
    pub found: String,
    /// What would have been fine.
    pub expected: String,
}

/// A resource of its own kind.
pub(super) enum Compiled {
    Proxy(Box<Proxy>),
    Parts(Box<Parts>),
}

/// A chain without what it shares with others.
pub(super) struct Parts {
    pub(super) name: Arc<str>,
    pub(super) entry: Entry,
    pub(super) protocol: Protocol,
    pub(super) backends: Vec<BackendParts>,
    pub(super) default_backend: Option<usize>,
    pub(super) http: Option<Arc<Table>>,
    pub(super) tls_rules: Arc<[TlsRule]>,
    pub(super) tcp_rules: Arc<[L4Rule]>,
    pub(super) authorizations: Arc<[l7::Authorization]>,
    pub(super) refuse_all: Option<Arc<str>>,
    /// What of it could not be used, and refuses traffic or is left out; all else is in force.
    pub(super) impaired: Vec<BadResource>,
    /// Of listeners.
    pub(super) socket: Option<ListenerSocket>,
}

/// A backend, and what guards it.
pub(super) struct BackendParts {
    pub(super) config: Arc<l7::Backend>,
    pub(super) guard: Option<Box<l7::BackendGuard>>,
}

/// Where a listener's connections come in.
#[derive(Clone)]
pub(super) struct ListenerSocket {
    /// The pod's port.
    pub(super) port: u16,
    pub(super) proxy_protocol: bool,
    pub(super) tls: Option<Arc<ServerTls>>,
}

impl BadResource {
    pub(super) fn new(field: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self { field: field.into(), found: found.to_string(), expected: expected.into() }
    }
}

impl From<CompileError> for BadResource {
    fn from(error: CompileError) -> Self {
        Self::new(error.field, format!("{:?}", error.value), error.expected)
    }
}

impl Parts {
    /// Services that it needs endpoints of; true: also its waypoints'.
    pub(super) fn services(&self) -> BTreeMap<NamespacedName, bool> {
        let mut services: BTreeMap<NamespacedName, bool> = BTreeMap::new();
        for backend in self.backends.iter().map(|one| &one.config).filter(|one| one.dynamic_wildcard.is_empty()) {
            *services.entry(service_of(backend)).or_default() |= backend.via_waypoint;
        }
        services
    }
}

/// The service whose endpoints a backend has.
pub(super) fn service_of(backend: &l7::Backend) -> NamespacedName {
    NamespacedName::new(backend.namespace.as_str(), backend.hostname.as_str())
}

/// # Errors
/// The first field that cannot be used.
pub(super) fn compile(name: &str, bytes: &[u8]) -> Result<Compiled, BadResource> {
    let message = l7::Resource::decode(bytes).map_err(|error| BadResource::new("", error, "a resource"))?;
    match message.kind {
        Some(Kind::Proxy(message)) => proxy(message).map(|proxy| Compiled::Proxy(Box::new(proxy))),
        Some(Kind::Port(message)) => port(name, message).map(|parts| Compiled::Parts(Box::new(parts))),
        Some(Kind::Listener(message)) => listener(name, message).map(|parts| Compiled::Parts(Box::new(parts))),
        None => Err(BadResource::new("kind", "nothing", "proxy, port or listener")),
    }
}

/// Policies of the proxy and of an entry point, as one set: what either allows is allowed, what either denies is denied.
pub(super) fn policies(
    proxy: &[l7::Authorization],
    own: &[l7::Authorization],
    trust_domains: &[TrustDomain],
) -> Result<Policies, BadResource> {
    let mut all = proxy.to_vec();
    // A controller may have sent the proxy's own along.
    all.extend(own.iter().filter(|one| !proxy.contains(one)).cloned());
    let trust_domains: Vec<_> = trust_domains.iter().map(ToString::to_string).collect();
    Policies::compile(&all, &trust_domains)
        .map_err(|error| BadResource::new("authorizations", error, "policies that can be evaluated"))
}

fn proxy(message: l7::Proxy) -> Result<Proxy, BadResource> {
    let role = match number("role", message.role, "0 to 3")? {
        l7::proxy::Role::Unspecified | l7::proxy::Role::Waypoint => Role::Waypoint,
        l7::proxy::Role::Gateway => Role::Gateway,
        l7::proxy::Role::EastWest => Role::EastWest,
    };
    let settings = settings(message.settings.unwrap_or_default())?;
    policies(&message.authorizations, &[], &settings.trust_domains)?;
    Ok(Proxy {
        namespace: message.namespace.into(),
        name: message.name.into(),
        role,
        settings,
        forward_client_identity: message.forward_client_identity,
        serves_workloads: message.serves_workloads,
        authorizations: message.authorizations.into(),
        refuse_all: reason(message.refuse_all),
    })
}

fn settings(message: l7::Settings) -> Result<Settings, BadResource> {
    let domains = message.trust_domains.iter().enumerate().map(|(n, name)| {
        TrustDomain::new(name)
            .map_err(|error| BadResource::new(format!("settings.trust_domains[{n}]"), error, "a name without '/'"))
    });
    let trust_domains: Box<[_]> = domains.collect::<Result<_, _>>()?;
    let server_header = Some(message.server_header.as_str()).filter(|text| !text.is_empty());
    let server_header = server_header.map(http::HeaderValue::from_str).transpose();
    let duration = |field: &str, value| duration(&format!("settings.{field}"), value);
    Ok(Settings {
        normalization: number("settings.normalization", message.normalization, "0 to 3")?,
        trust_domains: if trust_domains.is_empty() { Settings::default().trust_domains } else { trust_domains },
        connect_timeout: duration("connect_timeout", message.connect_timeout)?.unwrap_or(CONNECT_TIMEOUT),
        detection_timeout: duration("detection_timeout", message.detection_timeout)?,
        hbone_idle_timeout: duration("hbone_idle_timeout", message.hbone_idle_timeout)?.unwrap_or(HBONE_IDLE_TIMEOUT),
        server_header: server_header.map_err(|_| {
            BadResource::new("settings.server_header", format!("{:?}", message.server_header), "a header value")
        })?,
        trusted_proxies: message.trusted_proxies,
        http10: message.http10,
        drain: duration("drain", message.drain)?,
        debug_headers: !message.no_debug_headers,
        attempt_count: !message.no_attempt_count,
        request_id: !message.no_request_id,
        forward_host: message.forward_host,
        forward_port: message.forward_port,
    })
}

fn port(name: &str, message: l7::Port) -> Result<Parts, BadResource> {
    let number_of = |field: &str, value: u32| port_number(field, value);
    let backends = backends(message.backends)?;
    let default_backend = usize::try_from(message.default_backend).unwrap_or(usize::MAX);
    if default_backend >= backends.len() {
        let expected = format!("an index below {}", backends.len());
        return Err(BadResource::new("default_backend", message.default_backend, expected));
    }
    let addresses = message.addresses.iter().enumerate().map(|(n, bytes)| {
        mesh_core::addr::ip_from_bytes(bytes).ok_or_else(|| {
            BadResource::new(format!("addresses[{n}]"), format!("{} bytes", bytes.len()), "4 or 16 bytes")
        })
    });
    let entry = PortEntry {
        service: Arc::new(Service::new(&message.namespace, &message.hostname)),
        port: number_of("port", message.port)?,
        addresses: addresses.collect::<Result<Box<[IpAddr]>, _>>()?,
        by_hostname: message.by_hostname,
    };
    policies(&[], &message.authorizations, &[])?;
    let mut impaired = Vec::new();
    Ok(Parts {
        name: name.into(),
        entry: Entry::Port(Arc::new(entry)),
        protocol: Protocol::of(number("protocol", message.protocol, "0 to 7")?),
        default_backend: Some(default_backend),
        http: table("http", message.http.as_ref(), backends.len(), &mut impaired)?,
        tls_rules: tls_rules(message.tls_rules, backends.len(), &mut impaired)?,
        tcp_rules: tcp_rules(message.tcp_rules, backends.len(), &mut impaired)?,
        backends,
        authorizations: message.authorizations.into(),
        refuse_all: reason(message.refuse_all),
        impaired,
        socket: None,
    })
}

fn listener(name: &str, message: l7::Listener) -> Result<Parts, BadResource> {
    let backends = backends(message.backends)?;
    let called = port_number("port", message.port)?;
    let target = port_number("target_port", message.target_port)?;
    let protocol = Protocol::of(number("protocol", message.protocol, "0 to 7")?);
    let tls = message.tls.as_ref().map(|tls| ServerTls::compile(tls, protocol)).transpose()?;
    if protocol == Protocol::Https && tls.is_none() {
        return Err(BadResource::new("tls", "nothing", "a certificate, for protocol HTTPS"));
    }
    if !message.hostname.is_empty() {
        mesh_route::host::pattern(&message.hostname).map_err(|error| error.within("hostname"))?;
    }
    policies(&[], &message.authorizations, &[])?;
    let entry = ListenerEntry {
        section: message.section.as_str().into(),
        port: called,
        hostname: message.hostname.as_str().into(),
    };
    // A listener without routes knows no host.
    let empty = l7::HttpTable::default();
    let http = message.http.as_ref().or(protocol.is_http().then_some(&empty));
    let mut impaired = Vec::new();
    Ok(Parts {
        name: name.into(),
        entry: Entry::Listener(Arc::new(entry)),
        protocol,
        default_backend: None,
        http: table("http", http, backends.len(), &mut impaired)?,
        tls_rules: tls_rules(message.tls_rules, backends.len(), &mut impaired)?,
        tcp_rules: tcp_rules(message.tcp_rules, backends.len(), &mut impaired)?,
        backends,
        authorizations: message.authorizations.into(),
        refuse_all: reason(message.refuse_all),
        impaired,
        socket: Some(ListenerSocket {
            port: if target == 0 { called } else { target },
            proxy_protocol: message.proxy_protocol,
            tls: tls.map(Arc::new),
        }),
    })
}

/// A host name that cannot be used, or is there twice, is left out.
fn table(
    field: &str,
    message: Option<&l7::HttpTable>,
    backends: usize,
    impaired: &mut Vec<BadResource>,
) -> Result<Option<Arc<Table>>, BadResource> {
    let limits = Limits { backends, ..Limits::default() };
    let Some(message) = message else { return Ok(None) };
    let (mut names, mut bad) = (HostTable::default(), BTreeSet::new());
    for (n, host) in message.hosts.iter().enumerate() {
        for (at, name) in host.hostnames.iter().enumerate() {
            if let Err(error) = names.insert(name, ()) {
                bad.insert((n, at));
                impaired.push(error.within(format!("{field}.hosts[{n}].hostnames[{at}]")).into());
            }
        }
    }
    let compiled = if bad.is_empty() {
        Table::compile(message, &limits)
    } else {
        let mut rest = message.clone();
        for (n, host) in rest.hosts.iter_mut().enumerate() {
            let mut at = 0..;
            host.hostnames.retain(|_| at.next().is_some_and(|at| !bad.contains(&(n, at))));
        }
        Table::compile(&rest, &limits)
    };
    Ok(Some(Arc::new(compiled.map_err(|error| error.within(field))?)))
}

fn backends(messages: Vec<l7::Backend>) -> Result<Vec<BackendParts>, BadResource> {
    for (n, backend) in messages.iter().enumerate() {
        port_number(&format!("backends[{n}].port"), backend.port)?;
        if backend.hostname.is_empty() && backend.dynamic_wildcard.is_empty() {
            return Err(BadResource::new(format!("backends[{n}].hostname"), "nothing", "a host name"));
        }
    }
    let parts =
        |mut config: l7::Backend| BackendParts { guard: config.guard.take().map(Box::new), config: Arc::new(config) };
    Ok(messages.into_iter().map(parts).collect())
}

/// Server names that cannot be used are left out, and rules of which none is left: nobody can ask for them.
fn tls_rules(
    messages: Vec<l7::TlsRule>,
    backends: usize,
    impaired: &mut Vec<BadResource>,
) -> Result<Arc<[TlsRule]>, BadResource> {
    let mut rules = Vec::new();
    for (n, message) in messages.into_iter().enumerate() {
        let mut hostnames: Vec<Box<str>> = Vec::new();
        for (at, hostname) in message.hostnames.iter().enumerate() {
            match mesh_route::host::pattern(hostname) {
                Ok(_) => hostnames.push(hostname.to_ascii_lowercase().into()),
                Err(error) => impaired.push(error.within(format!("tls_rules[{n}].hostnames[{at}]")).into()),
            }
        }
        let mut rule = l4_rule(&format!("tls_rules[{n}].rule"), message.rule.unwrap_or_default(), backends, impaired)?;
        if message.origin.is_some() {
            rule.origin = origin(message.origin.as_ref());
        }
        if !hostnames.is_empty() || message.hostnames.is_empty() {
            rules.push(TlsRule { hostnames: hostnames.into(), rule });
        }
    }
    Ok(rules.into())
}

fn tcp_rules(
    messages: Vec<l7::L4Rule>,
    backends: usize,
    impaired: &mut Vec<BadResource>,
) -> Result<Arc<[L4Rule]>, BadResource> {
    let rules = messages.into_iter().enumerate();
    rules.map(|(n, message)| l4_rule(&format!("tcp_rules[{n}]"), message, backends, impaired)).collect()
}

/// A rule of which a range of addresses cannot be used takes what the others cover, or everything where none is left, and
/// closes it: it is not known what it was meant for.
fn l4_rule(
    field: &str,
    message: l7::L4Rule,
    backends: usize,
    impaired: &mut Vec<BadResource>,
) -> Result<L4Rule, BadResource> {
    let mut weighted = Vec::new();
    for (n, one) in message.backends.into_iter().enumerate() {
        let target = match one.target {
            Some(Target::Backend(index)) => match usize::try_from(index).ok().filter(|index| *index < backends) {
                Some(index) => Ok(index),
                None => {
                    let expected = format!("an index below {backends}");
                    return Err(BadResource::new(format!("{field}.backends[{n}].backend"), index, expected));
                }
            },
            Some(Target::Unusable(unusable)) => Err(unusable.reason.into()),
            None => Err("no target".into()),
        };
        weighted.push(Weighted { weight: one.weight, target });
    }
    let mut subnets = Vec::new();
    for (n, text) in message.destination_subnets.iter().enumerate() {
        match text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from)) {
            Ok(subnet) => subnets.push(subnet),
            Err(_) => {
                let field = format!("{field}.destination_subnets[{n}]");
                let bad = BadResource::new(field, format!("{text:?}"), "an address or a range such as 10.0.0.0/8");
                let reason: Arc<str> = bad.to_string().into();
                weighted.iter_mut().for_each(|one| one.target = Err(reason.clone()));
                impaired.push(bad);
            }
        }
    }
    let port = port_number(&format!("{field}.port"), message.port)?;
    Ok(L4Rule {
        origin: origin(message.origin.as_ref()),
        backends: weighted.into(),
        subnets: subnets.into(),
        port: (port != 0).then_some(port),
    })
}

fn origin(message: Option<&l7::Origin>) -> Arc<str> {
    message.map_or_else(Arc::default, |one| format!("{}/{}/{}/{}", one.kind, one.namespace, one.name, one.rule).into())
}

fn reason(text: String) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// Zero or absent: none.
fn duration(field: &str, value: Option<WireDuration>) -> Result<Option<Duration>, BadResource> {
    let Some(value) = value else { return Ok(None) };
    let duration =
        Duration::try_from(value).map_err(|error| BadResource::new(field, error, "a duration that is not negative"))?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn port_number(field: &str, value: u32) -> Result<u16, BadResource> {
    u16::try_from(value).map_err(|_| BadResource::new(field, value, "a port below 65536"))
}

fn number<E: TryFrom<i32>>(field: &str, value: i32, expected: &str) -> Result<E, BadResource> {
    E::try_from(value).map_err(|_| BadResource::new(field, format!("unknown number {value}"), expected))
}
