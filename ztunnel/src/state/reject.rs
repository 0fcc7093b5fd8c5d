//! Why a resource of the control plane is refused: always the field, the value and what was expected.

use std::fmt;

/// One unusable field. The resource is refused as a whole; an earlier good copy stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found}, expected {expected}")]
pub struct FieldError {
    /// Path of the field in the message, such as `services[a/b].ports[0].target_port`.
    pub field: String,
    /// The value as it came.
    pub found: String,
    /// What would have been fine.
    pub expected: &'static str,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, found: impl fmt::Display, expected: &'static str) -> Self {
        Self { field: field.into(), found: found.to_string(), expected }
    }

    /// The same error within an outer message.
    #[must_use]
    pub(crate) fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// A port number of the wire, which carries 32 bits.
pub(crate) fn port(field: &str, value: u32) -> Result<u16, FieldError> {
    u16::try_from(value).map_err(|_| FieldError::new(field, value, "a port below 65536"))
}

/// An address of the wire.
pub(crate) fn ip(field: &str, bytes: &[u8]) -> Result<std::net::IpAddr, FieldError> {
    mesh_core::addr::ip_from_bytes(bytes)
        .ok_or_else(|| FieldError::new(field, format!("{} bytes {bytes:02x?}", bytes.len()), "4 or 16 bytes"))
}

/// An enum number that this proxy does not know.
pub(crate) fn number<E: TryFrom<i32>>(field: &str, value: i32, expected: &'static str) -> Result<E, FieldError> {
    E::try_from(value).map_err(|_| FieldError::new(field, format!("unknown number {value}"), expected))
}
