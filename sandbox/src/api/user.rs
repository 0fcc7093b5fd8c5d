//! Who is calling, and how that is proved.

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{ApiServer, status::ApiError};

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Such as `system:serviceaccount:demo:web`.
    pub(crate) name: String,
    /// The service account's UID; empty for others.
    pub(crate) uid: String,
    /// Groups, `system:authenticated` included.
    pub(crate) groups: Vec<String>,
    /// Further facts, such as the pod a token is bound to.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Marks a request that never left this process. Put there by the in-process client only: request
/// extensions cannot be set from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InProcess;

/// The verified client certificate of the connection a request came on.
#[derive(Debug, Clone)]
pub(crate) struct PeerCertificate {
    /// Common name.
    pub(crate) name: String,
    /// Organisations.
    pub(crate) groups: Vec<String>,
}

/// The group that may do everything.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// The administrator.
    pub(crate) fn admin() -> Self {
        Self::of_groups("kubernetes-admin", &[MASTERS])
    }

    /// The sandbox's own controllers and kubelets.
    pub(crate) fn in_process() -> Self {
        Self::of_groups("system:sandbox", &[MASTERS])
    }

    fn of_groups(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.to_owned(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// Whether the caller may do everything.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// The `UserInfo` of the authentication API.
    pub(crate) fn to_value(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if let Some(fields) = info.as_object_mut() {
            if !self.uid.is_empty() {
                fields.insert("uid".to_owned(), json!(self.uid));
            }
            if !self.extra.is_empty() {
                fields.insert("extra".to_owned(), json!(self.extra));
            }
        }
        info
    }

    fn impersonated(&self, headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(name) = text(headers, "impersonate-user") else { return Ok(None) };
        if !self.is_master() {
            let message = format!(
                "users \"{name}\" is forbidden: User \"{}\" cannot impersonate resource \"users\" at the cluster scope",
                self.name
            );
            return Err(ApiError::forbidden(message));
        }
        let groups: Vec<&str> =
            headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).collect();
        let mut groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        if let Some((namespace, _)) = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
            && groups.is_empty()
        {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        Ok(Some(Self::of_groups(name, &groups.iter().map(String::as_str).collect::<Vec<_>>())))
    }
}

/// Decides who is calling; `None` for an anonymous request.
///
/// # Errors
///
/// 401 when credentials are given and wrong, 403 for an impersonation that is not allowed.
pub(crate) fn authenticate(server: &ApiServer, request: &http::request::Parts) -> Result<Option<User>, ApiError> {
    let Some(user) = caller(server, request)? else { return Ok(None) };
    let impersonated = user.impersonated(&request.headers)?;
    Ok(Some(impersonated.unwrap_or(user)))
}

/// Whether a request comes from a part of the sandbox itself.
pub(crate) fn is_inside(request: &http::request::Parts) -> bool {
    request.extensions.get::<InProcess>().is_some()
}

fn caller(server: &ApiServer, request: &http::request::Parts) -> Result<Option<User>, ApiError> {
    if is_inside(request) {
        return Ok(Some(User::in_process()));
    }
    if let Some(authorization) = request.headers.get(header::AUTHORIZATION) {
        let value = authorization.to_str().map_err(|_| ApiError::unauthorized())?;
        let (scheme, token) = value.split_once(' ').ok_or_else(ApiError::unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::unauthorized());
        }
        return server.user_of_token(token.trim(), &[]).map(|(user, _)| Some(user)).map_err(|reason| {
            tracing::debug!(%reason, "bearer token refused");
            ApiError::unauthorized()
        });
    }
    let certificate = request.extensions.get::<PeerCertificate>();
    Ok(certificate.map(|peer| {
        let groups: Vec<&str> = peer.groups.iter().map(String::as_str).collect();
        User::of_groups(&peer.name, &groups)
    }))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
