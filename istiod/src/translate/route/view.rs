//! A route of any kind.

use std::sync::Arc;

use mesh_api::gateway::ParentReference;
use mesh_core::names::NamespacedName;

use crate::world::{GrpcRoute, HttpRoute, Kind, ParentKind, TcpRoute, TlsRoute, UdpRoute, World};

/// A route of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// An HTTPRoute.
    Http(&'a Arc<HttpRoute>),
    /// A GRPCRoute.
    Grpc(&'a Arc<GrpcRoute>),
    /// A TLSRoute.
    Tls(&'a Arc<TlsRoute>),
    /// A TCPRoute.
    Tcp(&'a Arc<TcpRoute>),
    /// A UDPRoute: it has a place nowhere.
    Udp(&'a Arc<UdpRoute>),
}

impl<'a> Route<'a> {
    /// The route of that name, if its namespace is looked at.
    pub fn find(world: &'a World, kind: Kind, key: &NamespacedName) -> Option<Self> {
        if !world.visible(&key.namespace) {
            return None;
        }
        match kind {
            Kind::HttpRoute => world.http_route(key).map(Self::Http),
            Kind::GrpcRoute => world.grpc_route(key).map(Self::Grpc),
            Kind::TlsRoute => world.tls_route(key).map(Self::Tls),
            Kind::TcpRoute => world.tcp_route(key).map(Self::Tcp),
            Kind::UdpRoute => world.udp_route(key).map(Self::Udp),
            _ => None,
        }
    }

    /// Its kind.
    pub fn kind(self) -> Kind {
        match self {
            Self::Http(_) => Kind::HttpRoute,
            Self::Grpc(_) => Kind::GrpcRoute,
            Self::Tls(_) => Kind::TlsRoute,
            Self::Tcp(_) => Kind::TcpRoute,
            Self::Udp(_) => Kind::UdpRoute,
        }
    }

    /// Whether it routes requests.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http(_) | Self::Grpc(_))
    }

    /// Namespace and name.
    pub fn key(self) -> &'a NamespacedName {
        match self {
            Self::Http(one) => &one.key,
            Self::Grpc(one) => &one.key,
            Self::Tls(one) => &one.key,
            Self::Tcp(one) => &one.key,
            Self::Udp(one) => &one.key,
        }
    }

    /// The order of routes that are equal otherwise: the older, then the first by name, then by kind.
    pub fn age(self) -> (i64, &'a NamespacedName, Kind) {
        let (created_s, key) = match self {
            Self::Http(one) => one.age(),
            Self::Grpc(one) => one.age(),
            Self::Tls(one) => one.age(),
            Self::Tcp(one) => one.age(),
            Self::Udp(one) => one.age(),
        };
        (created_s, key, self.kind())
    }

    /// `metadata.generation`.
    pub fn generation(self) -> i64 {
        match self {
            Self::Http(one) => one.generation,
            Self::Grpc(one) => one.generation,
            Self::Tls(one) => one.generation,
            Self::Tcp(one) => one.generation,
            Self::Udp(one) => one.generation,
        }
    }

    /// `spec.parentRefs`.
    pub fn parents(self) -> &'a [ParentReference] {
        match self {
            Self::Http(one) => &one.spec.parent_refs,
            Self::Grpc(one) => &one.spec.parent_refs,
            Self::Tls(one) => &one.spec.parent_refs,
            Self::Tcp(one) => &one.spec.parent_refs,
            Self::Udp(one) => &one.spec.parent_refs,
        }
    }

    /// Those that name this parent.
    pub fn parents_named(self, kind: ParentKind, key: &NamespacedName) -> impl Iterator<Item = &'a ParentReference> {
        let namespace = &self.key().namespace;
        self.parents().iter().filter(move |one| {
            ParentKind::of(one) == Some(kind)
                && *one.name == *key.name
                && one.namespace.as_deref().unwrap_or(namespace) == &*key.namespace
        })
    }

    /// `spec.hostnames`.
    pub fn hostnames(self) -> &'a [String] {
        match self {
            Self::Http(one) => &one.spec.hostnames,
            Self::Grpc(one) => &one.spec.hostnames,
            Self::Tls(one) => &one.spec.hostnames,
            Self::Tcp(_) | Self::Udp(_) => &[],
        }
    }
}
