//! Response flags: what went wrong with a request or connection, as dashboards know it.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of response flags. Shown joined by commas, `-` when there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(Flags, &str)] = &[$((Flags::$name, stringify!($name)),)*];
    };
}

flags! {
    /// No healthy upstream.
    UH = 0;
    /// Upstream connection failure.
    UF = 1;
    /// Upstream overflow: a circuit breaker.
    UO = 2;
    /// No route or chain.
    NR = 3;
    /// Retry limit exceeded.
    URX = 4;
    /// Cluster not found.
    NC = 5;
    /// Downstream's longest duration is over.
    DT = 6;
    /// Downstream connection termination.
    DC = 7;
    /// Local reset.
    LR = 8;
    /// Upstream request timeout.
    UT = 9;
    /// Upstream remote reset.
    UR = 10;
    /// Upstream connection termination.
    UC = 11;
    /// Delay injected.
    DI = 12;
    /// Fault abort.
    FI = 13;
    /// Rate limited.
    RL = 14;
    /// Denied by external authorization.
    UAEX = 15;
    /// Stream idle timeout.
    SI = 16;
    /// Downstream protocol error.
    DPE = 17;
    /// Upstream protocol error.
    UPE = 18;
    /// Overload.
    OM = 19;
    /// DNS resolution failure.
    DF = 20;
    /// Downstream remote reset.
    DR = 21;
    /// Upstream's longest duration is over.
    UMSDR = 22;
}

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);

    /// The flag of a name; none for a name that no flag has.
    #[must_use]
    pub fn named(name: &str) -> Self {
        NAMES.iter().find(|(_, known)| *known == name).map_or(Self::NONE, |(flag, _)| *flag)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
            if !first {
                f.write_str(",")?;
            }
            first = false;
            f.write_str(name)?;
        }
        if first { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_joined_by_commas() {
        assert_eq!(Flags::NONE.to_string(), "-");
        assert_eq!(Flags::UH.to_string(), "UH");
        let mut both = Flags::URX | Flags::UF;
        assert_eq!(both.to_string(), "UF,URX");
        both |= Flags::UF;
        assert!(both.contains(Flags::UF) && !both.contains(Flags::UH) && !both.is_empty());
        assert_eq!(NAMES.len(), 23, "each bit has one name");
    }
}
