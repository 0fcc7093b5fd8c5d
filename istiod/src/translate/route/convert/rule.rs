//! One rule of a route, whichever of the two kinds it is of.

use mesh_route::precedence::Place;
use mesh_wire::l7;

use super::matching::Matched;
use super::patterns::Patterns;
use super::{Context, Converted, Problem, enter, origin, place, unusable};
use crate::translate::route::view::Route;

/// What rules of both kinds have.
pub(super) trait Rule {
    /// What chooses requests. The default is every request.
    type Match: Default;
    /// Whether errors are told as gRPC tells them.
    const GRPC: bool;

    /// The name that it was given.
    fn name(&self) -> Option<&str>;

    /// As they were written; none is every request.
    fn matches(&self) -> &[Self::Match];

    /// Reads a match.
    fn read(written: &Self::Match, place: &Place<'_>, patterns: &mut Patterns) -> Matched;

    /// What is done with the requests that these choose.
    ///
    /// # Errors
    /// Something concerns the rule as a whole.
    fn make(&self, context: &mut Context<'_, '_, '_>, matches: &[l7::HttpMatch]) -> Result<l7::HttpRule, Problem>;
}

/// Enters the rules of a route in their order.
pub(super) fn all<R: Rule>(context: &mut Context<'_, '_, '_>, route: Route<'_>, written: &[R], into: &mut Converted) {
    written.iter().enumerate().for_each(|(index, one)| rule(context, route, index, one, into));
}

/// A match that cannot be honoured keeps its place and answers with an error; the others lead to the rule.
fn rule<R: Rule>(context: &mut Context<'_, '_, '_>, route: Route<'_>, index: usize, written: &R, into: &mut Converted) {
    let origin = || origin(route, index, written.name());
    let outer = match written.name() {
        Some(name) => format!("rule {index} ({name})"),
        None => format!("rule {index}"),
    };
    let everything = [R::Match::default()];
    let matches = if written.matches().is_empty() { &everything } else { written.matches() };
    let mut good = Vec::new();
    for (number, one) in matches.iter().enumerate() {
        let matched = R::read(one, &place(route, index, number), context.patterns);
        match matched.problem {
            None => good.push((matched.rank, matched.matching)),
            Some(problem) => {
                let problem = problem.within(&outer);
                context.problems.add(problem.clone());
                enter(context, unusable(origin(), R::GRPC, &problem), vec![(matched.rank, matched.matching)], into);
            }
        }
    }
    if good.is_empty() {
        return;
    }
    let conditions: Vec<_> = good.iter().map(|(_, matching)| matching.clone()).collect();
    let rule = match written.make(context, &conditions) {
        Ok(rule) => l7::HttpRule { origin: Some(origin()), ..rule },
        Err(problem) => {
            let problem = problem.within(&outer);
            context.problems.add(problem.clone());
            unusable(origin(), R::GRPC, &problem)
        }
    };
    enter(context, rule, good, into);
}
