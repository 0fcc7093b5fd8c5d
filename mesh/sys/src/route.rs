//! Policy routes inside a pod: packets of marked connections come back through the loopback interface.

use std::process::Command;

/// Address family of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A rule "packets with this mark use that table" and a table that delivers everything locally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPolicyRoute {
    /// Packet mark.
    pub mark: u32,
    /// Which bits of the mark count.
    pub mask: u32,
    /// Routing table.
    pub table: u32,
    /// Priority of the rule.
    pub priority: u32,
}

impl LocalPolicyRoute {
    /// Adds the rule and the route in the calling thread's network namespace; present ones are kept.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn add(&self, family: Family) -> Result<(), RouteError> {
        let rule = self.rule("add");
        ip(family, &rule.iter().map(String::as_str).collect::<Vec<_>>(), &["File exists"])?;
        let table = self.table.to_string();
        ip(family, &["route", "replace", "local", "default", "dev", "lo", "table", &table], &[])
    }

    /// Removes rule and route; missing ones are fine.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn delete(&self, family: Family) -> Result<(), RouteError> {
        let gone = ["No such file or directory", "No such process", "does not exist"];
        let rule = self.rule("del");
        ip(family, &rule.iter().map(String::as_str).collect::<Vec<_>>(), &gone)?;
        let table = self.table.to_string();
        ip(family, &["route", "del", "local", "default", "dev", "lo", "table", &table], &gone)
    }

    fn rule(&self, verb: &str) -> Vec<String> {
        let mark = format!("{:#x}/{:#x}", self.mark, self.mask);
        ["rule", verb, "fwmark", &mark, "lookup", &self.table.to_string(), "priority", &self.priority.to_string()]
            .map(str::to_owned)
            .to_vec()
    }
}

fn ip(family: Family, args: &[&str], tolerated: &[&str]) -> Result<(), RouteError> {
    let flag = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let output = Command::new("ip").arg(flag).args(args).output().map_err(|source| RouteError::Start { source })?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || tolerated.iter().any(|text| message.contains(text)) {
        return Ok(());
    }
    Err(RouteError::Refused { command: args.join(" "), message: message.trim().to_owned() })
}

/// Why a route is not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The tool is missing or cannot be run. Retry after installing the package `iproute2`.
    #[error("cannot run ip (package iproute2)")]
    Start {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused. Never worth a retry unchanged.
    #[error("ip {command}: {message}")]
    Refused {
        /// What was asked for.
        command: String,
        /// The tool's own words.
        message: String,
    },
}
