//! Kinds of objects that are made for a Gateway.

/// What may be made for a Gateway, in the order in which it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kinds {
    /// Identity of the proxies.
    ServiceAccount,
    /// The proxies.
    Deployment,
    /// How they are reached.
    Service,
    /// How many there are; only where an overlay asks for it.
    HorizontalPodAutoscaler,
    /// How many stay when nodes are drained; only where an overlay asks for it.
    PodDisruptionBudget,
}

impl Kinds {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Deployment,
        Self::Service,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
    ];

    /// As Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }

    /// Group and version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
            Self::PodDisruptionBudget => "policy/v1",
        }
    }

    /// Key of a ConfigMap with an overlay for it.
    pub fn overlay_key(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceAccount",
            Self::Deployment => "deployment",
            Self::Service => "service",
            Self::HorizontalPodAutoscaler => "horizontalPodAutoscaler",
            Self::PodDisruptionBudget => "podDisruptionBudget",
        }
    }

    /// Whether it exists without anybody asking for it.
    pub fn is_usual(self) -> bool {
        matches!(self, Self::ServiceAccount | Self::Deployment | Self::Service)
    }
}
