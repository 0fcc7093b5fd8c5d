//! `exec`, `log` and `portforward`: what a client does inside a running pod.

mod exec;
mod forward;
mod spdy;
mod tunnel;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, ws::WebSocketUpgrade},
    response::Response,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{
    ApiServer,
    clock::now,
    query::Params,
    status::{ApiError, bytes_response},
    write::Target,
};
use crate::{
    backend::{ExecRequest, LogOptions},
    store::{Object, meta},
};

/// Longest message accepted from a client, in bytes. Clients send input in pieces of 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Ports that one connection may forward.
const FORWARDED_PORTS_MAX: usize = 16;
/// Names the container meant when a request names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A container of a pod on its node.
struct Place {
    pod: Arc<Object>,
    node: String,
}

impl ApiServer {
    /// `pods/{name}/log`.
    pub(crate) async fn logs(&self, at: &Target<'_>, name: &str, params: &Params) -> Result<Response, ApiError> {
        let place = self.place(at, name)?;
        let container = container(place.pod.value(), params.text("container"))?;
        let options = log_options(params)?;
        let stream = self.config.node_backend.logs(&place.node, place.pod.uid(), &container, options).await?;
        Ok(bytes_response(StatusCode::OK, "text/plain; charset=utf-8", Body::from_stream(stream)))
    }

    /// `pods/{name}/exec` over a WebSocket.
    pub(crate) async fn exec(
        &self,
        at: &Target<'_>,
        name: &str,
        params: &Params,
        parts: &mut Parts,
    ) -> Result<Response, ApiError> {
        let place = self.place(at, name)?;
        let container = container(place.pod.value(), params.text("container"))?;
        let (upgrade, protocol) = upgrade(parts, &["v5.channel.k8s.io", "v4.channel.k8s.io"], "exec").await?;
        let request = ExecRequest {
            argv: params.all("command").map(str::to_owned).collect(),
            stdin: params.flag("stdin"),
            tty: params.flag("tty"),
        };
        if request.argv.is_empty() {
            return Err(ApiError::bad_request("you must specify at least one command for the container"));
        }
        let session = self.config.node_backend.exec(&place.node, place.pod.uid(), &container, request).await?;
        let closes = protocol == "v5.channel.k8s.io";
        Ok(upgrade.on_upgrade(move |socket| exec::run(socket, session, closes)))
    }

    /// `pods/{name}/portforward`: SPDY on the connection itself or inside a WebSocket, as `kubectl`
    /// does it, or the channels of a WebSocket.
    pub(crate) async fn port_forward(
        &self,
        at: &Target<'_>,
        name: &str,
        params: &Params,
        parts: &mut Parts,
    ) -> Result<Response, ApiError> {
        let place = self.place(at, name)?;
        let backend = self.config.node_backend.clone();
        let (node, uid) = (place.node, place.pod.uid().to_owned());
        if wants_spdy(parts) {
            return spdy_upgrade(parts, tunnel::Pod { backend, node, uid });
        }
        let (upgrade, protocol) = upgrade(parts, &[SPDY_TUNNEL, "v4.channel.k8s.io"], "portforward").await?;
        if protocol == SPDY_TUNNEL {
            let pod = tunnel::Pod { backend, node, uid };
            return Ok(upgrade.on_upgrade(move |socket| tunnel::over_websocket(socket, pod)));
        }
        let mut ports = Vec::new();
        for text in params.all("ports").flat_map(|list| list.split(',')) {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0);
            ports.push(port.ok_or_else(|| ApiError::bad_request(format!("{text:?} is not a port number")))?);
        }
        if ports.is_empty() || ports.len() > FORWARDED_PORTS_MAX {
            let message = format!("name 1 to {FORWARDED_PORTS_MAX} ports in the query, found {}", ports.len());
            return Err(ApiError::bad_request(message));
        }
        Ok(upgrade.on_upgrade(move |socket| async move { forward::run(socket, backend, &node, &uid, ports).await }))
    }

    fn place(&self, at: &Target<'_>, name: &str) -> Result<Place, ApiError> {
        let pod = self.fetch(at, name)?;
        let node = pod.value().pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
        if node.is_empty() {
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        }
        Ok(Place { pod, node })
    }
}

/// The WebSocket protocol in which a SPDY session is carried.
const SPDY_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What a client asks for that speaks SPDY on the connection itself.
const SPDY: &str = "SPDY/3.1";
/// The protocol inside SPDY.
const FORWARD_PROTOCOL: &str = "portforward.k8s.io";

fn wants_spdy(parts: &Parts) -> bool {
    parts.headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(SPDY.as_bytes()))
}

/// Switches a connection to SPDY.
fn spdy_upgrade(parts: &mut Parts, pod: tunnel::Pod) -> Result<Response, ApiError> {
    let offered = parts.headers.get_all("x-stream-protocol-version").iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|list| list.split(',')).any(|protocol| protocol.trim() == FORWARD_PROTOCOL) {
        return Err(ApiError::forbidden(format!("portforward over SPDY needs the stream protocol {FORWARD_PROTOCOL}")));
    }
    let Some(upgrade) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        return Err(ApiError::bad_request("this connection cannot be upgraded: use HTTP/1.1"));
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => tunnel::run(TokioIo::new(connection), pod).await,
            Err(error) => tracing::debug!(%error, "the switch to SPDY failed"),
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, SPDY)
        .header("x-stream-protocol-version", FORWARD_PROTOCOL)
        .body(Body::empty());
    response.map_err(|error| ApiError::internal(error.to_string()))
}

/// The container meant: the named one, the annotated one, or the only one.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let names: Vec<Vec<&str>> = lists
        .iter()
        .map(|list| {
            let containers = pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
            containers.filter_map(|container| container.get("name")?.as_str()).collect()
        })
        .collect();
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let annotated =
        meta(pod, "annotations").and_then(|annotations| annotations.get(DEFAULT_CONTAINER)).and_then(Value::as_str);
    if let Some(wanted) = asked.or(annotated) {
        return match names.iter().flatten().find(|known| **known == wanted) {
            Some(found) => Ok((*found).to_owned()),
            None => Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        };
    }
    match names.first().map(Vec::as_slice) {
        Some([only]) => Ok((*only).to_owned()),
        _ => {
            let known = names.concat().join(" ");
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{known}]"
            )))
        }
    }
}

fn log_options(params: &Params) -> Result<LogOptions, ApiError> {
    let since_seconds = params.number("sinceSeconds")?;
    let since = match (since_seconds, params.text("sinceTime")) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
        }
        (Some(seconds), None) => now().checked_sub(std::time::Duration::from_secs(seconds)).ok(),
        (None, Some(text)) => {
            let time = text
                .parse()
                .map_err(|_| ApiError::bad_request(format!("sinceTime {text:?} is not an RFC 3339 time")))?;
            Some(time)
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: params.flag("follow"),
        tail_lines: params.number("tailLines")?,
        previous: params.flag("previous"),
        timestamps: params.flag("timestamps"),
        since,
        limit_bytes: params.number("limitBytes")?,
    })
}

/// The WebSocket upgrade of a request that speaks one of `protocols`, and which.
async fn upgrade(
    parts: &mut Parts,
    protocols: &'static [&'static str],
    what: &str,
) -> Result<(WebSocketUpgrade, String), ApiError> {
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(parts, &()).await else {
        let message = format!(
            "Upgrade request required: {what} is served over WebSockets only (kubectl 1.31 and newer; older ones with \
             KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)"
        );
        return Err(ApiError::bad_request(message));
    };
    let upgrade = upgrade.protocols(protocols.iter().copied()).max_message_size(MESSAGE_BYTES_MAX);
    match upgrade.selected_protocol().map(HeaderValue::to_str) {
        Some(Ok(protocol)) => {
            let protocol = protocol.to_owned();
            Ok((upgrade, protocol))
        }
        _ => {
            let wanted = protocols.join(", ");
            Err(ApiError::bad_request(format!("{what} needs one of the WebSocket protocols {wanted}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn which_container_is_meant() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, None).unwrap(), "a");
        assert!(container(&one, Some("x")).is_err());
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let error = container(&two, None).unwrap_err();
        assert!(error.message.ends_with("choose one of: [a b i]"), "{error}");
        assert_eq!(container(&two, Some("i")).unwrap(), "i");
        let mut annotated = two;
        annotated["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&annotated, None).unwrap(), "b");
    }
}
