//! Routes of requests, in their written order.

use std::sync::Arc;

use mesh_api::networking::{Delegate, HttpMatch, HttpRoute};
use mesh_core::names::NamespacedName;
use mesh_route::{Limits, Table as Compiled};
use mesh_wire::l7;
use mesh_wire::l7::http_rule::Action;

use super::delegate::merged;
use super::matching::{Applies, matching};
use super::rule::rule;
use super::{At, Rules, no_cluster, origin};
use crate::translate::l7::backend::Backends;
use crate::translate::l7::rule::exported;
use crate::world::VirtualService;

/// A table that is being made.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<l7::HttpEntry>,
    rules: Vec<l7::HttpRule>,
    /// An entry takes every request: what comes after it is never looked at.
    pub(super) closed: bool,
}

impl Table {
    /// The table; none where no route is for this port, whatever is written for others.
    pub(super) fn finish(self) -> Option<l7::HttpTable> {
        let host = l7::VirtualHost { hostnames: vec!["*".to_owned()], entries: self.entries };
        (!self.rules.is_empty()).then(|| l7::HttpTable { hosts: vec![host], rules: self.rules })
    }

    /// Adds a rule with what it is for. Proxies refuse a table as a whole, so nothing that they would refuse gets in.
    /// Tells why one was left out.
    fn add(&mut self, rule: l7::HttpRule, matches: Vec<l7::HttpMatch>) -> Option<String> {
        let index = u32::try_from(self.rules.len()).ok()?;
        let mut left_out = None;
        let bare =
            |one: &l7::HttpMatch| l7::HttpMatch { name: String::new(), ..one.clone() } == l7::HttpMatch::default();
        self.closed |= matches.iter().any(bare);
        let (rule, matches) = match check(&rule, &matches) {
            Ok(()) => (rule, matches),
            Err(reason) => {
                left_out = Some(reason.clone());
                let answer = l7::Unusable { status: 500, flag: String::new(), reason };
                let rule = l7::HttpRule {
                    origin: rule.origin,
                    action: Some(Action::Unusable(answer)),
                    ..l7::HttpRule::default()
                };
                // What it is for cannot be read: nothing behind it is reached.
                let readable = check(&rule, &matches).is_ok();
                self.closed |= !readable;
                (rule, if readable { matches } else { vec![l7::HttpMatch::default()] })
            }
        };
        self.rules.push(rule);
        let entry = |one| l7::HttpEntry { r#match: Some(one), rule: index };
        self.entries.extend(matches.into_iter().map(entry));
        left_out
    }
}

/// Whether a proxy takes this rule.
fn check(rule: &l7::HttpRule, matches: &[l7::HttpMatch]) -> Result<(), String> {
    let entry = |one: &l7::HttpMatch| l7::HttpEntry { r#match: Some(one.clone()), rule: 0 };
    let host = l7::VirtualHost { hostnames: vec!["*".to_owned()], entries: matches.iter().map(entry).collect() };
    let table = l7::HttpTable { hosts: vec![host], rules: vec![rule.clone()] };
    Compiled::compile(&table, &Limits::default()).map(drop).map_err(|error| error.to_string())
}

impl Rules<'_> {
    /// Adds the routes of one VirtualService, and of those that it delegates to.
    pub(super) fn add_http(&self, one: &VirtualService, table: &mut Table, backends: &mut Backends<'_>) {
        for (number, route) in one.spec.http.iter().enumerate() {
            match &route.delegate {
                None => self.add_route(one, number, route, table, backends),
                Some(delegate) => self.add_delegate(one, number, (route, delegate), table, backends),
            }
            if table.closed {
                return;
            }
        }
    }

    fn add_route(
        &self,
        one: &VirtualService,
        number: usize,
        route: &HttpRoute,
        table: &mut Table,
        backends: &mut Backends<'_>,
    ) {
        let matches = self.matches(&route.matches);
        if matches.is_empty() {
            return;
        }
        let at = At::new(one, format!("http[{number}]"));
        let mut rule = rule(self, &at, route, backends);
        rule.origin = Some(origin(one, number, route.name.as_deref()));
        // What replaces a prefix replaces the least one where none is asked for.
        let rewrites = route.rewrite.as_ref().is_some_and(|rewrite| rewrite.uri.is_some());
        let rooted = |mut one: l7::HttpMatch| {
            if rewrites && one.path.is_none() {
                let kind = Some(l7::path_match::Kind::Prefix("/".to_owned()));
                one.path = Some(l7::PathMatch { kind, ignore_case: false });
            }
            one
        };
        let closes = matches.iter().any(|one| one.path.is_none()) && rewrites;
        let closes =
            closes && matches.iter().any(|one| *one == l7::HttpMatch { name: one.name.clone(), ..Default::default() });
        if let Some(reason) = table.add(rule, matches.into_iter().map(rooted).collect()) {
            at.remark(&format!("{reason}: requests of it are answered with 500"), backends);
        }
        table.closed |= closes;
    }

    /// Another VirtualService without hosts of its own takes over; one level, no more.
    fn add_delegate(
        &self,
        root: &VirtualService,
        number: usize,
        (route, delegate): (&HttpRoute, &Delegate),
        table: &mut Table,
        backends: &mut Backends<'_>,
    ) {
        let namespace = delegate.namespace.as_deref().filter(|one| !one.is_empty()).map(Arc::from);
        let namespace = namespace.unwrap_or_else(|| root.key.namespace.clone());
        let key = NamespacedName::new(namespace, delegate.name.as_deref().unwrap_or_default());
        let usual = &self.world.settings().l7.virtual_services_export_to;
        let usable = |one: &&Arc<VirtualService>| {
            one.spec.hosts.is_empty()
                && self.world.visible(&one.key.namespace)
                && exported(&one.spec.export_to, usual, &one.key.namespace, &root.key.namespace)
        };
        let Some(one) = self.world.virtual_service(&key).filter(usable) else {
            let matches = self.matches(&route.matches);
            if !matches.is_empty() {
                let reason = format!("delegate {key} is no VirtualService without hosts that may be used here");
                let at = At::new(root, format!("http[{number}].delegate"));
                let remedy = "create it, without hosts and exported to this namespace";
                at.remark(&format!("{reason}, so requests of it are answered with 503: {remedy}"), backends);
                let action = Some(Action::Unusable(no_cluster(&reason)));
                let origin = Some(origin(root, number, route.name.as_deref()));
                table.add(l7::HttpRule { origin, action, ..l7::HttpRule::default() }, matches);
            }
            return;
        };
        for (inner, own) in one.spec.http.iter().enumerate().filter(|(_, own)| own.delegate.is_none()) {
            if let Some(own) = merged(route, own) {
                self.add_route(one, inner, &own, table, backends);
            }
            if table.closed {
                return;
            }
        }
    }

    /// What a route is for, as far as it applies to this port; nothing at all where it does not.
    fn matches(&self, written: &[HttpMatch]) -> Vec<l7::HttpMatch> {
        if written.is_empty() {
            return vec![l7::HttpMatch::default()];
        }
        let applies = |one: &&HttpMatch| Applies::of(one).here(self.port.number);
        written.iter().filter(applies).map(matching).collect()
    }
}
