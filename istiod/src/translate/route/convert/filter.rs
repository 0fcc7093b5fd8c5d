//! Filters of HTTPRoutes and GRPCRoutes.
//!
//! # Source
//! spec of routing, sections 2.4, 2.5 and 2.8.

use mesh_api::gateway::{
    CorsFilter, GrpcRouteFilter, GrpcRouteFilterType, HeaderFilter, HttpPathModifier, HttpPathModifierType,
    HttpRouteFilter, HttpRouteFilterType, RequestMirrorFilter, RequestRedirectFilter, UrlRewriteFilter,
};
use mesh_route::{Edits, pattern};
use mesh_wire::l7::{self, mirror, path_rewrite, string_match};

use super::{Context, Problem};
use crate::translate::route::backend::resolve;

/// A filter of either kind of route.
#[derive(Clone, Copy)]
pub(super) enum Filter<'a> {
    RequestHeaders(&'a HeaderFilter),
    ResponseHeaders(&'a HeaderFilter),
    Mirror(&'a RequestMirrorFilter),
    Redirect(&'a RequestRedirectFilter),
    Rewrite(&'a UrlRewriteFilter),
    Cors(&'a CorsFilter),
    /// One that cannot be honoured: what to say of it.
    Unserved(&'static str),
}

impl<'a> Filter<'a> {
    pub(super) fn of_http(written: &'a HttpRouteFilter) -> Self {
        let found = match written.type_ {
            HttpRouteFilterType::RequestHeaderModifier => {
                written.request_header_modifier.as_ref().map(Self::RequestHeaders)
            }
            HttpRouteFilterType::ResponseHeaderModifier => {
                written.response_header_modifier.as_ref().map(Self::ResponseHeaders)
            }
            HttpRouteFilterType::RequestMirror => written.request_mirror.as_ref().map(Self::Mirror),
            HttpRouteFilterType::RequestRedirect => written.request_redirect.as_ref().map(Self::Redirect),
            HttpRouteFilterType::UrlRewrite => written.url_rewrite.as_ref().map(Self::Rewrite),
            HttpRouteFilterType::Cors => written.cors.as_ref().map(Self::Cors),
            HttpRouteFilterType::ExtensionRef => Some(Self::Unserved(EXTENSION)),
            HttpRouteFilterType::ExternalAuth => Some(Self::Unserved("filters of type ExternalAuth are not served")),
            HttpRouteFilterType::Unknown => Some(Self::Unserved(UNKNOWN)),
        };
        found.unwrap_or(Self::Unserved(EMPTY))
    }

    pub(super) fn of_grpc(written: &'a GrpcRouteFilter) -> Self {
        let found = match written.type_ {
            GrpcRouteFilterType::RequestHeaderModifier => {
                written.request_header_modifier.as_ref().map(Self::RequestHeaders)
            }
            GrpcRouteFilterType::ResponseHeaderModifier => {
                written.response_header_modifier.as_ref().map(Self::ResponseHeaders)
            }
            GrpcRouteFilterType::RequestMirror => written.request_mirror.as_ref().map(Self::Mirror),
            GrpcRouteFilterType::ExtensionRef => Some(Self::Unserved(EXTENSION)),
            GrpcRouteFilterType::Unknown => Some(Self::Unserved(UNKNOWN)),
        };
        found.unwrap_or(Self::Unserved(EMPTY))
    }
}

const EXTENSION: &str = "filters of type ExtensionRef are not served: there is no filter that they could name";
const UNKNOWN: &str = "a filter has a type that is not served";
const EMPTY: &str = "a filter lacks the settings of its type";

/// What filters do together.
#[derive(Clone, Debug, Default)]
pub(super) struct Effects {
    pub(super) request_headers: Option<l7::HeaderEdits>,
    pub(super) response_headers: Option<l7::HeaderEdits>,
    pub(super) mirrors: Vec<l7::Mirror>,
    pub(super) redirect: Option<l7::Redirect>,
    pub(super) rewrite: Option<l7::Rewrite>,
    pub(super) cors: Option<l7::Cors>,
}

/// Whose filters they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Of a rule.
    Rule,
    /// Of one backend.
    Backend,
}

/// What filters do. `prefixes` tells whether every match of the rule has a prefix that can be replaced.
///
/// # Errors
/// One of them cannot be honoured; none is left out.
pub(super) fn effects<'a>(
    context: &mut Context<'_, '_, '_>,
    filters: impl Iterator<Item = Filter<'a>>,
    level: Level,
    prefixes: bool,
) -> Result<Effects, Problem> {
    let mut effects = Effects::default();
    for filter in filters {
        match filter {
            Filter::RequestHeaders(one) => once(&mut effects.request_headers, edits(one)?, "RequestHeaderModifier")?,
            Filter::ResponseHeaders(one) => once(&mut effects.response_headers, edits(one)?, "ResponseHeaderModifier")?,
            Filter::Redirect(one) => once(&mut effects.redirect, redirect(one, prefixes)?, "RequestRedirect")?,
            Filter::Rewrite(one) => once(&mut effects.rewrite, rewrite(one, prefixes)?, "URLRewrite")?,
            Filter::Mirror(one) if level == Level::Rule => effects.mirrors.extend(mirror(context, one)),
            Filter::Cors(one) if level == Level::Rule => once(&mut effects.cors, cors(one), "CORS")?,
            Filter::Mirror(_) => {
                return Err(Problem::filter("RequestMirror is not served at a backend, only at a rule"));
            }
            Filter::Cors(_) => return Err(Problem::filter("CORS is not served at a backend, only at a rule")),
            Filter::Unserved(why) => return Err(Problem::filter(why)),
        }
    }
    if effects.redirect.is_some() && effects.rewrite.is_some() {
        return Err(Problem::filter("RequestRedirect and URLRewrite exclude each other"));
    }
    Ok(effects)
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Problem> {
    if place.is_some() {
        return Err(Problem::filter(format!("{name} is there more than once")));
    }
    *place = Some(value);
    Ok(())
}

/// Of several entries of one name the first counts. Names of pseudo headers mean nothing.
fn edits(written: &HeaderFilter) -> Result<l7::HeaderEdits, Problem> {
    let list = |headers: &[mesh_api::gateway::HttpHeader]| {
        let mut all: Vec<l7::Header> = Vec::new();
        for header in headers {
            let name = header.name.to_ascii_lowercase();
            if !name.starts_with(':') && !all.iter().any(|one| one.name == name) {
                all.push(l7::Header { name, value: header.value.clone(), template: false });
            }
        }
        all
    };
    let remove = written.remove.iter().map(|name| name.to_ascii_lowercase());
    let remove = remove.filter(|name| name != "host" && !name.starts_with(':')).collect();
    let edits = l7::HeaderEdits { remove, set: list(&written.set), add: list(&written.add) };
    match Edits::compile(Some(&edits)) {
        Ok(_) => Ok(edits),
        Err(error) => Err(Problem::filter(format!("header modifier: {error}"))),
    }
}

fn redirect(written: &RequestRedirectFilter, prefixes: bool) -> Result<l7::Redirect, Problem> {
    let status = written.status_code.unwrap_or(302);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let message = format!("statusCode {status} of RequestRedirect is not 301, 302, 303, 307 or 308");
        return Err(Problem::filter(message));
    }
    Ok(l7::Redirect {
        scheme: written.scheme.clone().unwrap_or_default(),
        hostname: written.hostname.clone().unwrap_or_default(),
        port: written.port,
        derive_port: l7::redirect::DerivePort::Gateway.into(),
        path: written.path.as_ref().map(|path| modifier(path, prefixes)).transpose()?,
        status,
    })
}

fn rewrite(written: &UrlRewriteFilter, prefixes: bool) -> Result<l7::Rewrite, Problem> {
    Ok(l7::Rewrite {
        authority: written.hostname.clone().unwrap_or_default(),
        path: written.path.as_ref().map(|path| modifier(path, prefixes)).transpose()?,
    })
}

fn modifier(written: &HttpPathModifier, prefixes: bool) -> Result<l7::PathRewrite, Problem> {
    let kind = match written.type_ {
        HttpPathModifierType::ReplaceFullPath => {
            path_rewrite::Kind::Full(written.replace_full_path.clone().unwrap_or_default())
        }
        HttpPathModifierType::ReplacePrefixMatch if prefixes => {
            path_rewrite::Kind::Prefix(written.replace_prefix_match.clone().unwrap_or_default())
        }
        HttpPathModifierType::ReplacePrefixMatch => {
            return Err(Problem::filter("ReplacePrefixMatch needs matches whose path is of type PathPrefix"));
        }
        HttpPathModifierType::Unknown => {
            return Err(Problem::filter("a path modifier has a type that is not served"));
        }
    };
    Ok(l7::PathRewrite { kind: Some(kind) })
}

/// A mirror that cannot be used is told, and disturbs nothing else. None of a mirror that copies nothing.
fn mirror(context: &mut Context<'_, '_, '_>, written: &RequestMirrorFilter) -> Option<l7::Mirror> {
    let target = match resolve(context.world, context.referrer, &written.backend_ref.weighted(), context.sink) {
        Ok(backend) => match context.sink.index(&backend, context.call()) {
            Ok(index) => mirror::Target::Backend(index),
            Err(unusable) => mirror::Target::Unusable(unusable),
        },
        Err(failure) => {
            let problem = failure.problem.within("mirror");
            context.problems.add(problem.clone());
            mirror::Target::Unusable(problem.answer())
        }
    };
    let per_million = written.per_million();
    (per_million > 0).then_some(l7::Mirror { target: Some(target), per_million })
}

fn cors(written: &CorsFilter) -> l7::Cors {
    l7::Cors {
        origins: written.allow_origins.iter().filter(|one| *one != "*").map(|one| origin(one)).collect(),
        any_origin: written.allow_origins.iter().any(|one| one == "*"),
        methods: written.allow_methods.clone(),
        headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        credentials: written.allow_credentials.unwrap_or_default(),
        max_age: Some(prost_types::Duration { seconds: written.max_age.unwrap_or(5).into(), nanos: 0 }),
        forward_unmatched_preflights: false,
    }
}

/// An origin; wildcards in other places than before a domain become patterns.
fn origin(text: &str) -> l7::StringMatch {
    let stars = text.matches('*').count();
    let simple = stars == 0 || (stars == 1 && text.contains("://*."));
    let kind = if simple {
        string_match::Kind::Exact(text.to_owned())
    } else {
        let parts: Vec<_> = text.split('*').map(super::matching::escaped).collect();
        let regex = parts.join("[^/]+");
        match pattern::check(&regex) {
            Ok(()) => string_match::Kind::Regex(regex),
            Err(_) => string_match::Kind::Exact(text.to_owned()),
        }
    };
    l7::StringMatch { kind: Some(kind), ignore_case: false }
}
