//! Compiled tables: hosts, entries in written order, rules.

mod entry;
mod explain;
mod index;
mod prefix;

use mesh_wire::l7;

use crate::host_table::HostTable;
use crate::pattern::Cache;
use crate::rule::Context;
use crate::{CompileError, Limits, RequestView, Rule};

pub use entry::{Entry, PathCondition};
pub use explain::{Candidate, Explanation, Miss};
use index::Index;

/// Routes by host, then in written order. A lookup costs about the same among ten entries and ten thousand.
#[derive(Debug, Default)]
pub struct Table {
    names: HostTable<usize>,
    hosts: Vec<Host>,
    rules: Vec<Rule>,
}

/// The entries of one virtual host.
#[derive(Debug)]
struct Host {
    hostnames: Vec<String>,
    entries: Vec<Entry>,
    index: Index,
}

/// What a request matched.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// What to do.
    pub rule: &'a Rule,
    /// Position among [`Table::rules`].
    pub rule_index: usize,
    /// What matched; tells what a prefix rewrite replaces.
    pub entry: &'a Entry,
}

impl Table {
    /// Compiles what the wire says.
    ///
    /// # Errors
    /// Names the first field that has no meaning.
    pub fn compile(wire: &l7::HttpTable, limits: &Limits) -> Result<Self, CompileError> {
        let entries: usize = wire.hosts.iter().map(|host| host.entries.len()).sum();
        if entries > limits.entries {
            return Err(CompileError::new("hosts.entries", entries, format!("at most {} entries", limits.entries)));
        }
        if wire.rules.len() > limits.rules {
            return Err(CompileError::new("rules", wire.rules.len(), format!("at most {} rules", limits.rules)));
        }
        let mut context = Context { backends: limits.backends, cache: Cache::new(limits.patterns) };
        let rules =
            wire.rules.iter().enumerate().map(|(n, rule)| {
                Rule::compile(rule, &mut context).map_err(|error| error.within(format!("rules[{n}]")))
            });
        let rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
        let mut names = HostTable::default();
        let mut hosts = Vec::with_capacity(wire.hosts.len());
        for (n, host) in wire.hosts.iter().enumerate() {
            let within = |error: CompileError| error.within(format!("hosts[{n}]"));
            for (position, name) in host.hostnames.iter().enumerate() {
                names.insert(name, n).map_err(|error| within(error.within(format!("hostnames[{position}]"))))?;
            }
            hosts.push(Host::compile(host, rules.len(), limits, &mut context.cache).map_err(within)?);
        }
        Ok(Self { names, hosts, rules })
    }

    /// The rule that a request takes.
    #[must_use]
    pub fn find(&self, request: &RequestView<'_>) -> Option<Found<'_>> {
        let host = self.hosts.get(*self.names.find(request.authority)?)?;
        let entry = host.entries.get(host.index.find(request, &host.entries)?)?;
        Some(Found { rule: self.rules.get(entry.rule)?, rule_index: entry.rule, entry })
    }

    /// Why a request takes the rule that it takes: every entry of its host in order, and what of it does not hold.
    #[must_use]
    pub fn explain(&self, request: &RequestView<'_>) -> Explanation {
        explain::explain(self, request)
    }

    /// All rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Virtual hosts in the order of the wire: their names, and their entries in the order in which they count.
    pub fn hosts(&self) -> impl Iterator<Item = (&[String], &[Entry])> {
        self.hosts.iter().map(|host| (host.hostnames.as_slice(), host.entries.as_slice()))
    }

    /// How many entries all hosts have.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.hosts.iter().map(|host| host.entries.len()).sum()
    }
}

impl Host {
    fn compile(wire: &l7::VirtualHost, rules: usize, limits: &Limits, cache: &mut Cache) -> Result<Self, CompileError> {
        let mut entries = Vec::with_capacity(wire.entries.len());
        for (n, entry) in wire.entries.iter().enumerate() {
            let within = |error: CompileError| error.within(format!("entries[{n}]"));
            let entry = Entry::compile(entry, limits.conditions, cache).map_err(within)?;
            if entry.rule >= rules {
                return Err(within(CompileError::new(
                    "rule",
                    entry.rule,
                    format!("below {rules}, the number of rules"),
                )));
            }
            entries.push(entry);
        }
        let index = Index::new(&entries);
        Ok(Self { hostnames: wire.hostnames.clone(), entries, index })
    }
}

#[cfg(test)]
pub(crate) mod tests;
