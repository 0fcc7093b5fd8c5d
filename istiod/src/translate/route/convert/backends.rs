//! Backends of a rule, with their shares.
//!
//! # Source
//! spec of routing, section 2.6.

use mesh_api::gateway::BackendReference;
use mesh_wire::l7::{self, http_rule, weighted_backend};

use super::filter::{Effects, Filter, Level, effects};
use super::{Context, Problem};
use crate::translate::route::backend::resolve;

/// A backend of either kind of route.
pub(super) struct Weighted<'a> {
    pub(super) reference: &'a BackendReference,
    pub(super) filters: Vec<Filter<'a>>,
}

/// What answers the requests of a rule: its backends, by their declared shares. The share of a backend that cannot be used
/// is answered with an error.
///
/// # Errors
/// A reference has no meaning, which concerns the whole rule.
pub(super) fn action<'a>(
    context: &mut Context<'_, '_, '_>,
    written: impl Iterator<Item = Weighted<'a>>,
    prefixes: bool,
) -> Result<http_rule::Action, Problem> {
    let mut backends = Vec::new();
    let mut declared = 0_usize;
    let mut malformed = None;
    for (index, one) in written.enumerate() {
        declared += 1;
        let weight = one.reference.weight();
        match backend(context, &one, prefixes, weight > 0) {
            Ok(_) if weight == 0 => {}
            Ok(backend) => backends.push(l7::WeightedBackend { weight, ..backend }),
            Err(problem) => drop(malformed.get_or_insert(problem.within(&format!("backendRefs[{index}]")))),
        }
    }
    if let Some(problem) = malformed {
        return Err(problem);
    }
    if backends.is_empty() {
        let reason = if declared == 0 { "the rule has no backendRefs" } else { "all backendRefs have weight 0" };
        let unusable = l7::Unusable { status: 500, flag: String::new(), reason: reason.to_owned() };
        return Ok(http_rule::Action::Unusable(unusable));
    }
    Ok(http_rule::Action::Forward(l7::Forward { backends }))
}

fn backend(
    context: &mut Context<'_, '_, '_>,
    written: &Weighted<'_>,
    prefixes: bool,
    used: bool,
) -> Result<l7::WeightedBackend, Problem> {
    let target = match resolve(context.world, context.referrer, written.reference, context.sink) {
        Ok(backend) if used => match context.sink.index(&backend, context.call()) {
            Ok(index) => weighted_backend::Target::Backend(index),
            Err(unusable) => weighted_backend::Target::Unusable(unusable),
        },
        Ok(_) => weighted_backend::Target::Unusable(l7::Unusable::default()),
        Err(failure) if failure.malformed => return Err(failure.problem),
        Err(failure) => {
            context.problems.add(failure.problem.clone());
            weighted_backend::Target::Unusable(failure.problem.answer())
        }
    };
    let Effects { request_headers, response_headers, redirect, rewrite, .. } =
        match effects(context, written.filters.iter().copied(), Level::Backend, prefixes) {
            Ok(effects) => effects,
            Err(problem) => {
                let problem = problem.within(&format!("filter of backend {}", written.reference.name));
                context.problems.add(problem.clone());
                let target = Some(weighted_backend::Target::Unusable(problem.answer()));
                return Ok(l7::WeightedBackend { target, ..l7::WeightedBackend::default() });
            }
        };
    Ok(l7::WeightedBackend { weight: 0, target: Some(target), request_headers, response_headers, rewrite, redirect })
}
