//! Rules of HTTPRoutes and GRPCRoutes become rules of a table.

mod backends;
mod filter;
mod grpc;
mod http;
mod matching;
mod patterns;
mod policy;
mod rule;

use mesh_api::gateway::HttpRouteRule;
use mesh_route::precedence::{Place, Rank};
use mesh_route::{Limits, Table};
use mesh_wire::l7::{self, http_rule};

use super::backend::{Call, Referrer, Sink};
use super::problem::{Problem, Problems};
use super::view::Route;
use crate::world::{Kind, World};
use patterns::Patterns;

/// What a route becomes.
#[derive(Clone, Debug, Default)]
pub(super) struct Converted {
    /// Rules of the table.
    pub(super) rules: Vec<l7::HttpRule>,
    /// One entry a match.
    pub(super) entries: Vec<Item>,
    /// What cannot be honoured.
    pub(super) problems: Problems,
}

/// A match, its place among others, and the rule that it leads to.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) rank: Rank,
    pub(super) matching: l7::HttpMatch,
    /// Index among [`Converted::rules`].
    pub(super) rule: usize,
}

/// Makes rules and entries of an HTTPRoute or GRPCRoute; of others none.
pub(super) fn convert(world: &World, route: Route<'_>, granted: bool, sink: &mut Sink<'_>) -> Converted {
    let mut converted = Converted::default();
    let referrer = Referrer { kind: route.kind(), namespace: &route.key().namespace, granted };
    let mut problems = Problems::default();
    let mut patterns = Patterns::default();
    let mut context = Context { world, referrer, sink, problems: &mut problems, patterns: &mut patterns };
    match route {
        // Without rules there is one for every path.
        Route::Http(one) if one.spec.rules.is_empty() => {
            rule::all(&mut context, route, &[HttpRouteRule::default()], &mut converted);
        }
        Route::Http(one) => rule::all(&mut context, route, &one.spec.rules, &mut converted),
        Route::Grpc(one) => rule::all(&mut context, route, &one.spec.rules, &mut converted),
        Route::Tls(_) | Route::Tcp(_) | Route::Udp(_) => {}
    }
    converted.problems = problems;
    converted
}

/// What is at hand while a route is converted.
struct Context<'a, 's, 't> {
    world: &'a World,
    referrer: Referrer<'a>,
    sink: &'s mut Sink<'t>,
    problems: &'s mut Problems,
    patterns: &'s mut Patterns,
}

impl Context<'_, '_, '_> {
    /// What backends are sent.
    fn call(&self) -> Call {
        if self.referrer.kind == Kind::GrpcRoute { Call::Grpc } else { Call::Request }
    }
}

/// Where a rule was written.
pub(super) fn origin(route: Route<'_>, rule: usize, name: Option<&str>) -> l7::Origin {
    l7::Origin {
        kind: route.kind().name().to_owned(),
        namespace: route.key().namespace.to_string(),
        name: route.key().name.to_string(),
        rule: u32::try_from(rule).unwrap_or(u32::MAX),
        rule_name: name.unwrap_or_default().to_owned(),
    }
}

fn place(route: Route<'_>, rule: usize, matching: usize) -> Place<'_> {
    let (created_s, key, _) = route.age();
    Place { created_s, namespace: &key.namespace, name: &key.name, rule, matching }
}

/// A rule that keeps its place and answers with an error.
fn unusable(origin: l7::Origin, grpc: bool, problem: &Problem) -> l7::HttpRule {
    let action = Some(http_rule::Action::Unusable(problem.answer()));
    l7::HttpRule { origin: Some(origin), action, grpc, ..l7::HttpRule::default() }
}

/// Enters a rule with its matches. Proxies refuse a table as a whole, so nothing that they would refuse leaves from here.
fn enter(
    context: &mut Context<'_, '_, '_>,
    rule: l7::HttpRule,
    matches: Vec<(Rank, l7::HttpMatch)>,
    into: &mut Converted,
) {
    let index = into.rules.len();
    let (rule, matches) = match check(&rule, &matches) {
        Ok(()) => (rule, matches),
        Err(problem) => {
            context.problems.add(problem.clone());
            let rule = unusable(rule.origin.clone().unwrap_or_default(), rule.grpc, &problem);
            let bare = check(&rule, &matches).is_err();
            let keep = |(rank, matching)| (rank, if bare { l7::HttpMatch::default() } else { matching });
            (rule, matches.into_iter().map(keep).collect())
        }
    };
    into.rules.push(rule);
    into.entries.extend(matches.into_iter().map(|(rank, matching)| Item { rank, matching, rule: index }));
}

/// Whether a proxy takes this rule. Patterns of matches were looked at when they were read.
fn check(rule: &l7::HttpRule, matches: &[(Rank, l7::HttpMatch)]) -> Result<(), Problem> {
    let entry = |(_, matching): &(Rank, l7::HttpMatch)| {
        let mut matching = matching.clone();
        patterns::simplify(&mut matching);
        l7::HttpEntry { r#match: Some(matching), rule: 0 }
    };
    let host = l7::VirtualHost { hostnames: vec!["*".to_owned()], entries: matches.iter().map(entry).collect() };
    let table = l7::HttpTable { hosts: vec![host], rules: vec![rule.clone()] };
    match Table::compile(&table, &Limits::default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::value(error.to_string())),
    }
}
