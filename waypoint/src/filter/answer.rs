//! Rules that answer without an upstream: redirects, fixed answers, and rules that need what is not there.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use mesh_route::grpc::status::UNAVAILABLE;
use mesh_route::redirect::location;
use mesh_route::{Direct, Entry, Redirect, RequestView, Unusable};

use crate::http::local::Local;
use crate::report::Flags;

/// Sends the client elsewhere.
pub(crate) fn redirect(redirect: &Redirect, view: &RequestView<'_>, entry: Option<&Entry>) -> Local {
    let made = entry.and_then(|entry| location(redirect, view, entry).ok());
    match made.and_then(|location| HeaderValue::try_from(location).ok()) {
        Some(location) => Local::new(redirect.status, "direct_response").header(LOCATION, location),
        None => Local::new(StatusCode::INTERNAL_SERVER_ERROR, "redirect_cannot_be_sent"),
    }
}

/// A fixed answer.
pub(crate) fn direct(direct: &Direct) -> Local {
    Local::new(direct.status, "direct_response").body(direct.body.clone())
}

/// Something that the rule needs is not there.
pub(crate) fn unusable(unusable: &Unusable) -> Local {
    let flags = Flags::named(&unusable.flag);
    let details = if flags == Flags::NC { "cluster_not_found" } else { "direct_response" };
    let mut local = Local::new(unusable.status, details).flags(flags).grpc_status(UNAVAILABLE);
    local.denial = Some(unusable.reason.clone());
    local
}

/// No backend has any weight.
pub(crate) fn no_backend() -> Local {
    Local::new(StatusCode::INTERNAL_SERVER_ERROR, "direct_response").grpc_status(UNAVAILABLE)
}
