//! Rules of GRPCRoutes.

use mesh_api::gateway::{GrpcRouteMatch, GrpcRouteRule};
use mesh_route::precedence::Place;
use mesh_wire::l7;

use super::backends::{Weighted, action};
use super::filter::{Filter, Level, effects};
use super::matching::{self, Matched};
use super::patterns::Patterns;
use super::rule::Rule;
use super::{Context, Problem, policy};
use crate::translate::l7::retry;

impl Rule for GrpcRouteRule {
    type Match = GrpcRouteMatch;
    const GRPC: bool = true;

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn matches(&self) -> &[GrpcRouteMatch] {
        &self.matches
    }

    fn read(written: &GrpcRouteMatch, place: &Place<'_>, patterns: &mut Patterns) -> Matched {
        matching::grpc(written, place, patterns)
    }

    fn make(&self, context: &mut Context<'_, '_, '_>, matches: &[l7::HttpMatch]) -> Result<l7::HttpRule, Problem> {
        let filters = self.filters.iter().map(Filter::of_grpc);
        let effects = effects(context, filters, Level::Rule, false)?;
        let session = self.session_persistence.as_ref().map(|one| policy::session(one, matches)).transpose()?;
        let backends = self.backend_refs.iter().map(|one| Weighted {
            reference: &one.backend,
            filters: one.filters.iter().map(Filter::of_grpc).collect(),
        });
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
}
