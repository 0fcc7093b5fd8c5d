//! `/sandbox/faults`: the rules over HTTP, for the administrator.

use axum::{body::Body, response::Response};
use http::{Method, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        ApiServer, body,
        query::Params,
        status::{ApiError, json_response},
        user::User,
    },
    Ending, Fault, Faults, Filter,
};

/// Where the rules are.
pub(crate) const FAULTS_PATH: &str = "/sandbox/faults";
/// Where watches are ended.
pub(crate) const DROP_PATH: &str = "/sandbox/faults/drop-watches";

/// The body of a `POST` to [`FAULTS_PATH`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    rules: Vec<Fault>,
}

/// The body of a `POST` to [`DROP_PATH`].
#[derive(Debug, Default, Deserialize)]
struct Drop {
    #[serde(flatten)]
    filter: Filter,
    #[serde(default)]
    ending: Ending,
}

impl ApiServer {
    /// The faults of this server.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Answers a request about faults.
    pub(crate) async fn answer_faults(&self, user: &User, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        if !user.is_master() {
            return Err(ApiError::forbidden(format!("User {:?} may not rule the sandbox's faults", user.name)));
        }
        let answer = match (parts.method.clone(), parts.uri.path().trim_end_matches('/')) {
            (Method::GET, FAULTS_PATH) => {
                json!({"rules": self.faults.list(), "openWatches": self.faults.open_watches()})
            }
            (Method::POST, FAULTS_PATH) => {
                let sent: Sent = decode(parts, body).await?;
                let added: Result<Vec<u64>, _> = sent.rules.into_iter().map(|rule| self.faults.add(rule)).collect();
                json!({"ids": added.map_err(|error| ApiError::bad_request(error.to_string()))?})
            }
            (Method::DELETE, FAULTS_PATH) => {
                let id = Params::from_uri(&parts.uri)?.number("id")?;
                json!({"cleared": self.faults.clear(id)})
            }
            (Method::POST, DROP_PATH) => {
                let sent: Drop = decode(parts, body).await?;
                json!({"dropped": self.faults.drop_watches(&sent.filter, sent.ending)})
            }
            (method, path) => return Err(ApiError::method_not_allowed(format!("{method} is not supported on {path}"))),
        };
        Ok(json_response(StatusCode::OK, &answer))
    }
}

async fn decode<T: for<'a> Deserialize<'a>>(parts: &Parts, body: Body) -> Result<T, ApiError> {
    let bytes = body::read(body).await?;
    let value = if bytes.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        body::decode(&parts.headers, &bytes)?.value
    };
    serde_json::from_value(value)
        .map_err(|error| ApiError::bad_request(format!("the faults are not understood: {error}")))
}
