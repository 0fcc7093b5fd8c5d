//! Token requests and the reviews: answered at once, never stored.

use serde_json::{Value, json};

use super::{
    ApiServer,
    clock::{now, seconds, timestamp},
    names,
    status::ApiError,
    tokens::{Bound, Claims, ISSUER, Reference, TokenError},
    user::User,
};
use crate::store::{Object, ObjectKey, ResourceKey, meta_str};

/// Life of a token that asks for none.
const EXPIRATION_DEFAULT_SECONDS: i64 = 3_600;
/// Shortest life that may be asked for, as in Kubernetes.
const EXPIRATION_MIN_SECONDS: i64 = 600;
/// Longest life that may be asked for, as in Kubernetes.
const EXPIRATION_MAX_SECONDS: i64 = 1 << 32;
/// How long a token outlives the moment at which its pod had to be gone.
const POD_LEEWAY_SECONDS: i64 = 60;

impl ApiServer {
    /// `serviceaccounts/{name}/token`.
    pub(crate) fn request_token(&self, namespace: &str, name: &str, mut request: Value) -> Result<Value, ApiError> {
        let accounts = ResourceKey::new("", "serviceaccounts");
        let account = self.store.get(&accounts, &ObjectKey::namespaced(namespace, name));
        let account = account.ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
        let text = |path: &str| request.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let audiences = strings(request.pointer("/spec/audiences"));
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
        let life = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
        let life = life.unwrap_or(EXPIRATION_DEFAULT_SECONDS);
        if !(EXPIRATION_MIN_SECONDS..=EXPIRATION_MAX_SECONDS).contains(&life) {
            let reason = format!(
                "Invalid value: {life}: may not specify a duration less than 10 minutes or longer than 2^32 seconds"
            );
            return Err(invalid_request(name, "spec.expirationSeconds", reason));
        }
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: reference(&account),
            pod: None,
            node: None,
            secret: None,
        };
        if request.pointer("/spec/boundObjectRef").is_some_and(|reference| !reference.is_null()) {
            let wanted = (text("/spec/boundObjectRef/kind"), text("/spec/boundObjectRef/name"));
            self.bind(&mut bound, wanted, text("/spec/boundObjectRef/uid"), &account)?;
        }
        let issued = seconds(now());
        let claims = Claims {
            aud: audiences.clone(),
            exp: issued + life,
            iat: issued,
            nbf: issued,
            iss: ISSUER.to_owned(),
            jti: names::uid(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            kubernetes: bound,
        };
        let token = self.signer.sign(&claims).map_err(|_| ApiError::internal("signing the token failed"))?;
        let expires = timestamp(claims.exp);
        let answer = json!({"token": token, "expirationTimestamp": expires});
        if let Some(fields) = request.as_object_mut() {
            fields.insert("kind".to_owned(), json!("TokenRequest"));
            fields.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
            fields.insert("metadata".to_owned(), json!({"name": name, "namespace": namespace}));
            let spec = fields.entry("spec").or_insert_with(|| json!({}));
            if let Some(spec) = spec.as_object_mut() {
                spec.insert("audiences".to_owned(), json!(audiences));
                spec.insert("expirationSeconds".to_owned(), json!(life));
            }
            fields.insert("status".to_owned(), answer);
        }
        Ok(request)
    }

    fn bind(&self, bound: &mut Bound, (kind, name): (&str, &str), uid: &str, account: &Object) -> Result<(), ApiError> {
        let (resource, key) = match kind {
            "Pod" => ("pods", ObjectKey::namespaced(&bound.namespace, name)),
            "Secret" => ("secrets", ObjectKey::namespaced(&bound.namespace, name)),
            "Node" => ("nodes", ObjectKey::cluster(name)),
            other => {
                let reason = format!("cannot bind token to object of type {other:?}, only to Pod, Secret or Node");
                return Err(invalid_request(account.name(), "spec.boundObjectRef.kind", reason));
            }
        };
        let object = self.store.get(&ResourceKey::new("", resource), &key);
        let object = object.ok_or_else(|| ApiError::not_found("", resource, name))?;
        if !uid.is_empty() && uid != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record ({})",
                object.uid()
            );
            return Err(ApiError::conflict("", resource, name, &why));
        }
        match kind {
            "Secret" => bound.secret = Some(reference(&object)),
            "Node" => bound.node = Some(reference(&object)),
            _ => {
                let user = object.value().pointer("/spec/serviceAccountName").and_then(Value::as_str);
                if user != Some(account.name()) {
                    let reason = format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name",
                        account.name()
                    );
                    return Err(invalid_request(account.name(), "spec.boundObjectRef.name", reason));
                }
                let node = object.value().pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
                let node = self.store.get(&ResourceKey::new("", "nodes"), &ObjectKey::cluster(node));
                bound.node = node.as_deref().map(reference);
                bound.pod = Some(reference(&object));
            }
        }
        Ok(())
    }

    /// The user a bearer token stands for and the audiences it is good for here. Without `audiences`
    /// the token has to be for this API server.
    pub(crate) fn user_of_token(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), TokenError> {
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own } else { audiences };
        if self.admin_token.matches(token) {
            return Ok((User::admin(), wanted.to_vec()));
        }
        let now = seconds(now());
        let claims = self.signer.verify(token, now)?;
        let common: Vec<String> = wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(TokenError::Audience { found: claims.aud, wanted: wanted.to_vec() });
        }
        self.check_bound(&claims.kubernetes, now)?;
        Ok((service_account_user(&claims), common))
    }

    fn check_bound(&self, bound: &Bound, now: i64) -> Result<(), TokenError> {
        let namespace = Some(bound.namespace.as_str());
        self.check_alive("service account", "serviceaccounts", namespace, &bound.serviceaccount, now)?;
        if let Some(pod) = &bound.pod {
            self.check_alive("pod", "pods", namespace, pod, now)?;
        }
        if let Some(secret) = &bound.secret {
            self.check_alive("secret", "secrets", namespace, secret, now)?;
        }
        match &bound.node {
            // A token of a pod names its node for information; only its own binding counts.
            Some(node) if bound.pod.is_none() => self.check_alive("node", "nodes", None, node, now),
            _ => Ok(()),
        }
    }

    fn check_alive(
        &self,
        kind: &'static str,
        resource: &str,
        namespace: Option<&str>,
        reference: &Reference,
        now: i64,
    ) -> Result<(), TokenError> {
        let object = self.store.get(&ResourceKey::new("", resource), &ObjectKey::new(namespace, &reference.name));
        let alive = object.is_some_and(|object| {
            let deleted =
                meta_str(object.value(), "deletionTimestamp").and_then(|text| text.parse::<jiff::Timestamp>().ok());
            object.uid() == reference.uid && deleted.is_none_or(|time| now <= seconds(time) + POD_LEEWAY_SECONDS)
        });
        if alive { Ok(()) } else { Err(TokenError::Unbound { kind, name: reference.name.clone() }) }
    }

    /// Answers a review of any kind.
    pub(crate) fn review(
        &self,
        kind: &str,
        user: &User,
        namespace: Option<&str>,
        mut body: Value,
    ) -> Result<Value, ApiError> {
        let status = match kind {
            "TokenReview" => self.token_review(&body),
            "SelfSubjectReview" => json!({"userInfo": user.to_value()}),
            "SelfSubjectRulesReview" => self.rules_review(user, &body)?,
            _ => self.access_review(kind, user, namespace, &body)?,
        };
        let group = if kind == "TokenReview" || kind == "SelfSubjectReview" {
            "authentication.k8s.io"
        } else {
            "authorization.k8s.io"
        };
        let fields = body.as_object_mut().ok_or_else(|| ApiError::bad_request(format!("{kind} must be an object")))?;
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("apiVersion".to_owned(), json!(format!("{group}/v1")));
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            if let Some(namespace) = namespace {
                metadata.insert("namespace".to_owned(), json!(namespace));
            }
        }
        fields.insert("status".to_owned(), status);
        Ok(body)
    }

    fn token_review(&self, body: &Value) -> Value {
        let token = body.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        let audiences = strings(body.pointer("/spec/audiences"));
        match self.user_of_token(token, &audiences) {
            Ok((user, audiences)) => json!({"authenticated": true, "user": user.to_value(), "audiences": audiences}),
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        }
    }
}

fn service_account_user(claims: &Claims) -> User {
    let bound = &claims.kubernetes;
    let mut user = User {
        name: claims.sub.clone(),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
            "system:authenticated".to_owned(),
        ],
        extra: std::collections::BTreeMap::new(),
    };
    let mut add = |name: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
    };
    add("credential-id", &format!("JTI={}", claims.jti));
    if let Some(pod) = &bound.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    user
}

fn invalid_request(name: &str, path: &str, reason: String) -> ApiError {
    let error = crate::schema::FieldError { path: path.to_owned(), reason };
    ApiError::invalid("authentication.k8s.io", "TokenRequest", name, vec![error])
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.name().to_owned(), uid: object.uid().to_owned() }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
