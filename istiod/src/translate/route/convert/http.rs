//! Rules of HTTPRoutes.

use mesh_api::gateway::{HTTPRouteSpec, HttpRouteMatch, HttpRouteRule};
use mesh_wire::l7::{self, http_rule, path_match};

use super::backends::{Weighted, action};
use super::filter::{Filter, Level, effects};
use super::{Context, Converted, Problem, enter, matching, origin, place, policy, unusable};
use crate::translate::l7::retry;
use crate::translate::route::view::Route;

/// Every rule of an HTTPRoute; without rules there is one for every path.
pub(super) fn rules(context: &mut Context<'_, '_, '_>, route: Route<'_>, spec: &HTTPRouteSpec, into: &mut Converted) {
    let everything = [HttpRouteRule::default()];
    let rules = if spec.rules.is_empty() { &everything } else { spec.rules.as_slice() };
    for (index, written) in rules.iter().enumerate() {
        one(context, route, index, written, into);
    }
}

fn one(
    context: &mut Context<'_, '_, '_>,
    route: Route<'_>,
    index: usize,
    written: &HttpRouteRule,
    into: &mut Converted,
) {
    let origin = || origin(route, index, written.name.as_deref());
    let everything = [HttpRouteMatch::default()];
    let matches = if written.matches.is_empty() { &everything } else { written.matches.as_slice() };
    let mut good = Vec::new();
    for (number, one) in matches.iter().enumerate() {
        let matched = matching::http(one, &place(route, index, number), context.patterns);
        match matched.problem {
            None => good.push((matched.rank, matched.matching)),
            Some(problem) => {
                let problem = problem.within(&at(index, written));
                context.problems.add(problem.clone());
                enter(context, unusable(origin(), false, &problem), vec![(matched.rank, matched.matching)], into);
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
            let problem = problem.within(&at(index, written));
            context.problems.add(problem.clone());
            unusable(origin(), false, &problem)
        }
    };
    enter(context, rule, good, into);
}

fn rule(
    context: &mut Context<'_, '_, '_>,
    written: &HttpRouteRule,
    matches: &[l7::HttpMatch],
) -> Result<l7::HttpRule, Problem> {
    let prefixes = matches.iter().all(has_prefix);
    let filters = written.filters.iter().map(Filter::of_http);
    let effects = effects(context, filters, Level::Rule, prefixes)?;
    let (timeout, retry) = policy::times(written.timeouts.as_ref(), written.retry.as_ref())?;
    let session = written.session_persistence.as_ref().map(|one| policy::session(one, matches)).transpose()?;
    let action = match effects.redirect {
        Some(redirect) => http_rule::Action::Redirect(redirect),
        None => {
            let backends = written.backend_refs.iter().map(|one| Weighted {
                reference: &one.backend,
                filters: one.filters.iter().map(Filter::of_http).collect(),
            });
            action(context, backends, prefixes)?
        }
    };
    Ok(l7::HttpRule {
        action: Some(action),
        request_headers: effects.request_headers,
        response_headers: effects.response_headers,
        rewrite: effects.rewrite,
        mirrors: effects.mirrors,
        cors: effects.cors,
        timeout,
        retry: retry.or_else(|| retry::usual(context.world.settings())),
        session,
        ..l7::HttpRule::default()
    })
}

/// Whether a part of the path is matched that can be replaced.
fn has_prefix(matching: &l7::HttpMatch) -> bool {
    match matching.path.as_ref().and_then(|path| path.kind.as_ref()) {
        // No path is the prefix `/`.
        None | Some(path_match::Kind::SegmentPrefix(_)) => true,
        Some(_) => false,
    }
}

/// Names a rule in messages.
fn at(index: usize, rule: &HttpRouteRule) -> String {
    match rule.name.as_deref() {
        Some(name) => format!("rule {index} ({name})"),
        None => format!("rule {index}"),
    }
}
