//! Rules from the wire.

use std::time::Duration;

use http::StatusCode;
use mesh_wire::l7;
use mesh_wire::l7::http_rule::Action as WireAction;

use super::{
    Action, Direct, Forward, Mirror, Origin, Rule, SessionKind, SessionPersistence, Target, Unusable, Weighted,
};
use crate::limits::DIRECT_BODY_BYTES_MAX;
use crate::pattern::Cache;
use crate::{CompileError, Cors, Edits, Fault, Redirect, Retry, Rewrite};

/// What compiling a table's rules needs to know.
pub(crate) struct Context {
    /// Indices of backends are below.
    pub(crate) backends: usize,
    pub(crate) cache: Cache,
}

impl Rule {
    pub(crate) fn compile(wire: &l7::HttpRule, context: &mut Context) -> Result<Self, CompileError> {
        let edits = |field: &'static str, wire: &Option<l7::HeaderEdits>| {
            Edits::compile(wire.as_ref()).map_err(|error| error.within(field))
        };
        let mirrors = wire.mirrors.iter().enumerate().map(|(n, mirror)| {
            Mirror::compile(mirror, context.backends).map_err(|error| error.within(format!("mirrors[{n}]")))
        });
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        Ok(Self {
            origin: wire.origin.as_ref().map(Origin::from).unwrap_or_default(),
            action: Action::compile(wire.action.as_ref(), context.backends)?,
            request_headers: edits("request_headers", &wire.request_headers)?,
            response_headers: edits("response_headers", &wire.response_headers)?,
            rewrite: rewrite(wire.rewrite.as_ref())?,
            mirrors,
            cors: section("cors", wire.cors.as_ref(), |cors| Cors::compile(cors, &mut context.cache))?,
            fault: section("fault", wire.fault.as_ref(), Fault::compile)?,
            timeout: duration("timeout", wire.timeout.as_ref())?,
            retry: section("retry", wire.retry.as_ref(), |retry| Retry::compile(retry, &mut context.cache))?,
            session: section("session", wire.session.as_ref(), SessionPersistence::compile)?,
            grpc: wire.grpc,
            grpc_timeout_max: duration("grpc_timeout_max", wire.grpc_timeout_max.as_ref())?,
        })
    }
}

impl From<&l7::Origin> for Origin {
    fn from(wire: &l7::Origin) -> Self {
        Self {
            kind: wire.kind.clone(),
            namespace: wire.namespace.clone(),
            name: wire.name.clone(),
            rule: wire.rule,
            rule_name: wire.rule_name.clone(),
        }
    }
}

impl Action {
    fn compile(wire: Option<&WireAction>, backends: usize) -> Result<Self, CompileError> {
        Ok(match wire {
            None => Self::Forward(Forward::default()),
            Some(WireAction::Forward(forward)) => {
                Self::Forward(Forward::compile(&forward.backends, backends).map_err(|error| error.within("forward"))?)
            }
            Some(WireAction::Redirect(redirect)) => {
                Self::Redirect(Redirect::compile(redirect).map_err(|error| error.within("redirect"))?)
            }
            Some(WireAction::DirectResponse(direct)) => {
                Self::Direct(Direct::compile(direct).map_err(|error| error.within("direct_response"))?)
            }
            Some(WireAction::Unusable(unusable)) => {
                Self::Unusable(Unusable::compile(unusable).map_err(|error| error.within("unusable"))?)
            }
        })
    }
}

impl Forward {
    /// Backends of the wire, of an HTTP rule or of a layer-4 one.
    ///
    /// # Errors
    /// Names the field that has no meaning; indices are to be below `backends`.
    pub fn compile(wire: &[l7::WeightedBackend], backends: usize) -> Result<Self, CompileError> {
        let compiled = wire.iter().enumerate().map(|(n, backend)| {
            Weighted::compile(backend, backends).map_err(|error| error.within(format!("backends[{n}]")))
        });
        Ok(Self::new(compiled.collect::<Result<_, _>>()?))
    }
}

impl Weighted {
    fn compile(wire: &l7::WeightedBackend, backends: usize) -> Result<Self, CompileError> {
        use l7::weighted_backend::Target as WireTarget;
        let target = match (&wire.redirect, &wire.target) {
            (Some(redirect), _) => {
                Target::Redirect(Redirect::compile(redirect).map_err(|error| error.within("redirect"))?)
            }
            (None, Some(WireTarget::Backend(index))) => Target::Backend(backend(*index, backends)?),
            (None, Some(WireTarget::Unusable(unusable))) => {
                Target::Unusable(Unusable::compile(unusable).map_err(|error| error.within("unusable"))?)
            }
            (None, None) => return Err(CompileError::new("target", "", "a backend, a redirect or an error")),
        };
        Ok(Self {
            weight: wire.weight,
            target,
            request_headers: section_edits("request_headers", wire.request_headers.as_ref())?,
            response_headers: section_edits("response_headers", wire.response_headers.as_ref())?,
            rewrite: rewrite(wire.rewrite.as_ref())?,
        })
    }
}

impl Mirror {
    fn compile(wire: &l7::Mirror, backends: usize) -> Result<Self, CompileError> {
        use l7::mirror::Target as WireTarget;
        let target = match &wire.target {
            Some(WireTarget::Backend(index)) => Ok(backend(*index, backends)?),
            Some(WireTarget::Unusable(unusable)) => {
                Err(Unusable::compile(unusable).map_err(|error| error.within("unusable"))?)
            }
            None => return Err(CompileError::new("target", "", "a backend or an error")),
        };
        if wire.per_million > 1_000_000 {
            return Err(CompileError::new("per_million", wire.per_million, "at most 1000000"));
        }
        Ok(Self { target, per_million: wire.per_million })
    }
}

impl Direct {
    fn compile(wire: &l7::DirectResponse) -> Result<Self, CompileError> {
        if wire.body.len() > DIRECT_BODY_BYTES_MAX {
            let expected = format!("a body of at most {DIRECT_BODY_BYTES_MAX} bytes");
            return Err(CompileError::new("body", format!("{} bytes", wire.body.len()), expected));
        }
        Ok(Self { status: final_status("status", wire.status)?, body: wire.body.clone().into() })
    }
}

impl Unusable {
    fn compile(wire: &l7::Unusable) -> Result<Self, CompileError> {
        let status = if wire.status == 0 { 500 } else { wire.status };
        let status = final_status("status", status)?;
        Ok(Self { status, flag: wire.flag.clone(), reason: wire.reason.clone() })
    }
}

impl SessionPersistence {
    fn compile(wire: &l7::SessionPersistence) -> Result<Self, CompileError> {
        let kind = match wire.kind() {
            l7::session_persistence::Kind::Cookie => SessionKind::Cookie,
            l7::session_persistence::Kind::Header => SessionKind::Header,
        };
        let token = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !token(&wire.name) {
            return Err(CompileError::new("name", &wire.name, "a name of a header or cookie"));
        }
        Ok(Self {
            kind,
            name: wire.name.clone(),
            path: wire.path.clone(),
            lifetime: duration("lifetime", wire.lifetime.as_ref())?,
            idle_timeout: duration("idle_timeout", wire.idle_timeout.as_ref())?,
            absolute_timeout: duration("absolute_timeout", wire.absolute_timeout.as_ref())?,
        })
    }
}

/// A duration that is set; `None` for zero.
pub(crate) fn duration(field: &str, wire: Option<&prost_types::Duration>) -> Result<Option<Duration>, CompileError> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    let duration = Duration::try_from(*wire)
        .map_err(|_| CompileError::new(field, format!("{}s {}ns", wire.seconds, wire.nanos), "a positive duration"))?;
    Ok((!duration.is_zero()).then_some(duration))
}

/// The status of an answer that ends a request.
pub(crate) fn final_status(field: &str, status: u32) -> Result<StatusCode, CompileError> {
    let code = u16::try_from(status).ok().filter(|code| (200..=599).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| CompileError::new(field, status, "a status from 200 to 599"))
}

fn backend(index: u32, backends: usize) -> Result<usize, CompileError> {
    let found = usize::try_from(index).ok().filter(|index| *index < backends);
    found.ok_or_else(|| CompileError::new("backend", index, format!("below {backends}, the number of backends")))
}

fn rewrite(wire: Option<&l7::Rewrite>) -> Result<Option<Rewrite>, CompileError> {
    section("rewrite", wire, Rewrite::compile)
}

fn section_edits(field: &str, wire: Option<&l7::HeaderEdits>) -> Result<Edits, CompileError> {
    Edits::compile(wire).map_err(|error| error.within(field))
}

fn section<W, T>(
    field: &str,
    wire: Option<&W>,
    compile: impl FnOnce(&W) -> Result<T, CompileError>,
) -> Result<Option<T>, CompileError> {
    wire.map(compile).transpose().map_err(|error| error.within(field))
}
