//! What kinds of gateways there are, by the controllers of their classes.

use mesh_api::labels::{WAYPOINT_CLASS, WAYPOINT_CONTROLLER};

use crate::world::{EAST_WEST_CLASS, EAST_WEST_CONTROLLER, MeshSettings, World};

/// A kind of gateways: what is deployed for them and what they may listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Ingress and egress.
    Edge,
    /// Between workloads.
    Waypoint,
    /// Between networks.
    EastWest,
    /// Of another cluster: nothing is deployed.
    Remote,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Waypoint, Self::EastWest, Self::Remote];

    /// Controller of the classes of this family; also the field manager of what is written.
    pub fn controller(self, settings: &MeshSettings) -> &str {
        match self {
            Self::Edge => &settings.proxies.edge_controller,
            Self::Waypoint => WAYPOINT_CONTROLLER,
            Self::EastWest => EAST_WEST_CONTROLLER,
            Self::Remote => REMOTE_CONTROLLER,
        }
    }

    /// The class that exists without anybody making it.
    pub fn built_in_class(self, settings: &MeshSettings) -> &str {
        match self {
            Self::Edge => &settings.proxies.edge_class,
            Self::Waypoint => WAYPOINT_CLASS,
            Self::EastWest => EAST_WEST_CLASS,
            Self::Remote => REMOTE_CLASS,
        }
    }

    /// Whether classes of this family exist in this mesh.
    pub fn exists(self, settings: &MeshSettings) -> bool {
        match self {
            Self::EastWest => settings.multi_network,
            Self::Edge | Self::Waypoint | Self::Remote => true,
        }
    }

    /// The family of a class; none for classes of other controllers. Built-in names work while the class does not exist.
    pub fn of_class(world: &World, class: &str) -> Option<Self> {
        let settings = world.settings();
        let mut existing = Self::ALL.into_iter().filter(|family| family.exists(settings));
        match world.gateway_class(class) {
            Some(class) => existing.find(|family| *family.controller(settings) == *class.controller),
            None => existing.find(|family| family.built_in_class(settings) == class),
        }
    }

    /// Type of the Services that are made.
    pub fn service_type(self) -> &'static str {
        match self {
            Self::Edge | Self::EastWest => "LoadBalancer",
            Self::Waypoint | Self::Remote => "ClusterIP",
        }
    }

    /// Whether the class is part of the names of what is made.
    pub fn names_class(self) -> bool {
        matches!(self, Self::Edge | Self::Remote)
    }

    /// Whether ListenerSets may add listeners.
    pub fn takes_listener_sets(self) -> bool {
        self == Self::Edge
    }

    /// Whether its proxies are what workloads' traffic passes inside the mesh.
    pub fn inside(self) -> bool {
        matches!(self, Self::Waypoint | Self::EastWest)
    }
}

/// Class of gateways of other clusters.
const REMOTE_CLASS: &str = "istio-remote";
/// Its controller.
const REMOTE_CONTROLLER: &str = "istio.io/unmanaged-gateway";
