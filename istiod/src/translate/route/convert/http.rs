//! Rules of HTTPRoutes.

use mesh_api::gateway::{HttpRouteMatch, HttpRouteRule};
use mesh_route::precedence::Place;
use mesh_wire::l7::{self, http_rule, path_match};

use super::backends::{Weighted, action};
use super::filter::{Filter, Level, effects};
use super::matching::{self, Matched};
use super::patterns::Patterns;
use super::rule::Rule;
use super::{Context, Problem, policy};
use crate::translate::l7::retry;

impl Rule for HttpRouteRule {
    type Match = HttpRouteMatch;
    const GRPC: bool = false;

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn matches(&self) -> &[HttpRouteMatch] {
        &self.matches
    }

    fn read(written: &HttpRouteMatch, place: &Place<'_>, patterns: &mut Patterns) -> Matched {
        matching::http(written, place, patterns)
    }

    fn make(&self, context: &mut Context<'_, '_, '_>, matches: &[l7::HttpMatch]) -> Result<l7::HttpRule, Problem> {
        let prefixes = matches.iter().all(has_prefix);
        let filters = self.filters.iter().map(Filter::of_http);
        let effects = effects(context, filters, Level::Rule, prefixes)?;
        let (timeout, retry) = policy::times(self.timeouts.as_ref(), self.retry.as_ref())?;
        let session = self.session_persistence.as_ref().map(|one| policy::session(one, matches)).transpose()?;
        let action = match effects.redirect {
            Some(redirect) => http_rule::Action::Redirect(redirect),
            None => {
                let backends = self.backend_refs.iter().map(|one| Weighted {
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
}

/// Whether a part of the path is matched that can be replaced.
fn has_prefix(matching: &l7::HttpMatch) -> bool {
    match matching.path.as_ref().and_then(|path| path.kind.as_ref()) {
        // No path is the prefix `/`.
        None | Some(path_match::Kind::SegmentPrefix(_)) => true,
        Some(_) => false,
    }
}
