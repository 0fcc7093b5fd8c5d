//! Rules of GRPCRoutes.

use mesh_api::gateway::{GRPCRouteSpec, GrpcRouteMatch, GrpcRouteRule};
use mesh_wire::l7;

use super::backends::{Weighted, action};
use super::filter::{Filter, Level, effects};
use super::{Context, Converted, Problem, enter, matching, origin, place, policy, unusable};
use crate::translate::l7::retry;
use crate::translate::route::view::Route;

/// Every rule of a GRPCRoute.
pub(super) fn rules(context: &mut Context<'_, '_, '_>, route: Route<'_>, spec: &GRPCRouteSpec, into: &mut Converted) {
    for (index, written) in spec.rules.iter().enumerate() {
        one(context, route, index, written, into);
    }
}

fn one(
    context: &mut Context<'_, '_, '_>,
    route: Route<'_>,
    index: usize,
    written: &GrpcRouteRule,
    into: &mut Converted,
) {
    let origin = || origin(route, index, written.name.as_deref());
    let everything = [GrpcRouteMatch::default()];
    let matches = if written.matches.is_empty() { &everything } else { written.matches.as_slice() };
    let mut good = Vec::new();
    for (number, one) in matches.iter().enumerate() {
        let matched = matching::grpc(one, &place(route, index, number), context.patterns);
        match matched.problem {
            None => good.push((matched.rank, matched.matching)),
            Some(problem) => {
                let problem = problem.within(&format!("rule {index}"));
                context.problems.add(problem.clone());
                enter(context, unusable(origin(), true, &problem), vec![(matched.rank, matched.matching)], into);
            }
        }
    }
    if good.is_empty() {
        return;
    }
    let conditions: Vec<_> = good.iter().map(|(_, matching)| matching.clone()).collect();
    let rule = match rule(context, written, &conditions) {
        Ok(rule) => l7::HttpRule { origin: Some(origin()), ..rule },
        Err(problem) => {
            let problem = problem.within(&format!("rule {index}"));
            context.problems.add(problem.clone());
            unusable(origin(), true, &problem)
        }
    };
    enter(context, rule, good, into);
}

fn rule(
    context: &mut Context<'_, '_, '_>,
    written: &GrpcRouteRule,
    matches: &[l7::HttpMatch],
) -> Result<l7::HttpRule, Problem> {
    let filters = written.filters.iter().map(Filter::of_grpc);
    let effects = effects(context, filters, Level::Rule, false)?;
    let session = written.session_persistence.as_ref().map(|one| policy::session(one, matches)).transpose()?;
    let backends = written
        .backend_refs
        .iter()
        .map(|one| Weighted { reference: &one.backend, filters: one.filters.iter().map(Filter::of_grpc).collect() });
    Ok(l7::HttpRule {
        action: Some(action(context, backends, false)?),
        request_headers: effects.request_headers,
        response_headers: effects.response_headers,
        mirrors: effects.mirrors,
        retry: retry::usual(context.world.settings()),
        session,
        grpc: true,
        ..l7::HttpRule::default()
    })
}
