//! Cluster IPs: which are taken, and which a service gets.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Map, Value, json};

use crate::schema::FieldError;

/// Offset of the first address given out automatically. Lower ones are left for services that ask
/// for a fixed address, such as the cluster's DNS.
const DYNAMIC_OFFSET: u32 = 256;

/// The cluster IPs of one API server.
#[derive(Debug)]
pub(crate) struct Addresses {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: BTreeSet<IpAddr>,
    next: u32,
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl Addresses {
    pub(crate) fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Self {
        Self { ipv4, ipv6, state: Mutex::new(State { taken: BTreeSet::new(), next: DYNAMIC_OFFSET }) }
    }

    /// The addresses of `default/kubernetes`.
    pub(crate) fn first(&self) -> [IpAddr; 2] {
        [self.nth(Family::V4, 1), self.nth(Family::V6, 1)]
    }

    /// Fills `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` of a service's
    /// specification and takes the addresses. `kept` are those that the service already has.
    ///
    /// Returns the addresses taken, to be released if the service is not stored.
    pub(crate) fn assign(&self, spec: &mut Map<String, Value>, kept: &[IpAddr]) -> Result<Vec<IpAddr>, FieldError> {
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP");
        if kind == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
            return Ok(Vec::new());
        }
        let asked = asked_addresses(spec)?;
        let headless = asked.headless;
        let families = families(spec, &asked.addresses)?;
        let policy = match spec.get("ipFamilyPolicy").and_then(Value::as_str) {
            Some(policy) => policy.to_owned(),
            None if families.len() > 1 => "PreferDualStack".to_owned(),
            None => "SingleStack".to_owned(),
        };
        let names: Vec<&str> = families.iter().map(|family| family.name()).collect();
        spec.insert("ipFamilies".to_owned(), json!(names));
        spec.insert("ipFamilyPolicy".to_owned(), json!(policy));
        if headless {
            spec.insert("clusterIP".to_owned(), json!("None"));
            spec.insert("clusterIPs".to_owned(), json!(["None"]));
            return Ok(Vec::new());
        }
        let (addresses, taken) = self.take_all(&families, &asked.addresses, kept)?;
        spec.insert("clusterIP".to_owned(), json!(addresses.first()));
        spec.insert("clusterIPs".to_owned(), json!(addresses));
        Ok(taken)
    }

    fn take_all(
        &self,
        families: &[Family],
        asked: &[IpAddr],
        kept: &[IpAddr],
    ) -> Result<(Vec<IpAddr>, Vec<IpAddr>), FieldError> {
        let (mut addresses, mut taken) = (Vec::new(), Vec::new());
        for family in families {
            let asked = asked.iter().copied().find(|address| Family::of(*address) == *family);
            let kept_here = kept.iter().copied().find(|address| Family::of(*address) == *family);
            let result = match (asked, kept_here) {
                (Some(asked), Some(kept)) if asked == kept => {
                    addresses.push(kept);
                    continue;
                }
                (Some(asked), _) => self.take(asked),
                (None, Some(kept)) => {
                    addresses.push(kept);
                    continue;
                }
                (None, None) => self.take_any(*family),
            };
            match result {
                Ok(address) => {
                    addresses.push(address);
                    taken.push(address);
                }
                Err(error) => {
                    self.release(&taken);
                    return Err(error);
                }
            }
        }
        Ok((addresses, taken))
    }

    fn take(&self, address: IpAddr) -> Result<IpAddr, FieldError> {
        let inside = match address {
            IpAddr::V4(address) => self.ipv4.contains(&address),
            IpAddr::V6(address) => self.ipv6.contains(&address),
        };
        let invalid = |why: &str| {
            let reason = format!("Invalid value: [\"{address}\"]: failed to allocate IP {address}: {why}");
            FieldError { path: "spec.clusterIPs".to_owned(), reason }
        };
        if !inside {
            let range = if address.is_ipv4() { self.ipv4.to_string() } else { self.ipv6.to_string() };
            return Err(invalid(&format!(
                "the provided IP is not in the valid range. The range of valid IPs is {range}"
            )));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken.insert(address) { Ok(address) } else { Err(invalid("provided IP is already allocated")) }
    }

    fn take_any(&self, family: Family) -> Result<IpAddr, FieldError> {
        let size = match family {
            Family::V4 => 1_u64 << (32 - self.ipv4.prefix_len()),
            Family::V6 => 1_u64 << (128 - self.ipv6.prefix_len()).min(20),
        };
        // The last address of an IPv4 range is a broadcast address.
        let size = u32::try_from(size - 1).unwrap_or(u32::MAX);
        let low = DYNAMIC_OFFSET.min(size / 2).max(1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in low..size {
            let offset = if (low..size).contains(&state.next) { state.next } else { low };
            let address = self.nth(family, offset);
            // The counter moves only past taken addresses, so that a dual-stack service gets the
            // same offset in both ranges where possible.
            if state.taken.insert(address) {
                state.next = offset;
                return Ok(address);
            }
            state.next = offset + 1;
        }
        let reason = format!("Invalid value: no free {} cluster IP is left", family.name());
        Err(FieldError { path: "spec.clusterIPs".to_owned(), reason })
    }

    fn nth(&self, family: Family, offset: u32) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from(u32::from(self.ipv4.network()).saturating_add(offset)).into(),
            Family::V6 => Ipv6Addr::from(u128::from(self.ipv6.network()).saturating_add(offset.into())).into(),
        }
    }

    /// Takes the addresses of a service that was stored before this server started.
    pub(crate) fn retake(&self, addresses: &[IpAddr]) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.extend(addresses);
    }

    /// Gives addresses back.
    pub(crate) fn release(&self, addresses: &[IpAddr]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            state.taken.remove(address);
        }
    }
}

/// The cluster IPs in a service's specification.
pub(crate) fn of_service(service: &Value) -> Vec<IpAddr> {
    let list = service.pointer("/spec/clusterIPs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|address| address.as_str()?.parse().ok()).collect()
}

struct Asked {
    headless: bool,
    addresses: Vec<IpAddr>,
}

fn asked_addresses(spec: &Map<String, Value>) -> Result<Asked, FieldError> {
    let single = spec.get("clusterIP").and_then(Value::as_str).filter(|text| !text.is_empty());
    let list: Vec<&str> = spec
        .get("clusterIPs")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if let (Some(single), Some(first)) = (single, list.first())
        && single != *first
    {
        let reason = format!("Invalid value: {list:?}: first value must match `clusterIP`");
        return Err(FieldError { path: "spec.clusterIPs".to_owned(), reason });
    }
    let texts = if list.is_empty() { single.into_iter().collect() } else { list };
    if texts.first() == Some(&"None") {
        return Ok(Asked { headless: true, addresses: Vec::new() });
    }
    let parse = |text: &&str| {
        text.parse::<IpAddr>().map_err(|_| {
            let reason = format!("Invalid value: {text:?}: must be a valid IP address or \"None\"");
            FieldError { path: "spec.clusterIPs".to_owned(), reason }
        })
    };
    Ok(Asked { headless: false, addresses: texts.iter().map(parse).collect::<Result<_, _>>()? })
}

/// The families of a service: those it names, or those of its addresses; a second one is added
/// unless it asks for a single stack.
fn families(spec: &Map<String, Value>, addresses: &[IpAddr]) -> Result<Vec<Family>, FieldError> {
    let mut families = Vec::new();
    for name in spec.get("ipFamilies").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let family = Family::parse(name).ok_or_else(|| FieldError {
            path: "spec.ipFamilies".to_owned(),
            reason: format!("Unsupported value: {name:?}: supported values: \"IPv4\", \"IPv6\""),
        })?;
        if families.contains(&family) {
            let reason = format!("Duplicate value: {name:?}");
            return Err(FieldError { path: "spec.ipFamilies".to_owned(), reason });
        }
        families.push(family);
    }
    if families.is_empty() {
        families = addresses.iter().map(|address| Family::of(*address)).collect();
        families.dedup();
    }
    let first = families.first().copied().unwrap_or(Family::V4);
    if let Some(address) = addresses.first()
        && Family::of(*address) != first
    {
        let reason =
            format!("Invalid value: \"{address}\": expected an {} value as indicated by `ipFamilies[0]`", first.name());
        return Err(FieldError { path: "spec.clusterIPs[0]".to_owned(), reason });
    }
    match spec.get("ipFamilyPolicy").and_then(Value::as_str) {
        Some("SingleStack") => Ok(vec![first]),
        Some("PreferDualStack" | "RequireDualStack") => Ok(vec![first, first.other()]),
        // Two families have to be asked for.
        None if families.len() < 2 => Ok(vec![first]),
        None => Ok(vec![first, first.other()]),
        Some(other) => {
            let reason = format!(
                "Unsupported value: {other:?}: supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\""
            );
            Err(FieldError { path: "spec.ipFamilyPolicy".to_owned(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::new("10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap())
    }

    fn assign(pool: &Addresses, spec: Value) -> Result<Value, FieldError> {
        let mut spec = spec.as_object().unwrap().clone();
        pool.assign(&mut spec, &[]).map(|_| Value::Object(spec))
    }

    #[test]
    fn services_are_single_stack_unless_they_ask_otherwise() {
        let pool = addresses();
        let plain = assign(&pool, json!({})).unwrap();
        assert_eq!((&plain["clusterIPs"], &plain["ipFamilyPolicy"]), (&json!(["10.96.1.0"]), &json!("SingleStack")));
        let dual = assign(&pool, json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
        assert_eq!(dual["clusterIPs"], json!(["10.96.1.1", "fd00:10:96::101"]));
        let both = assign(&pool, json!({"ipFamilies": ["IPv6", "IPv4"]})).unwrap();
        assert_eq!(both["ipFamilyPolicy"], "PreferDualStack");
        let six = assign(&pool, json!({"ipFamilies": ["IPv6"]})).unwrap();
        assert_eq!((&six["ipFamilies"], &six["ipFamilyPolicy"]), (&json!(["IPv6"]), &json!("SingleStack")));
    }

    #[test]
    fn explicit_headless_and_external() {
        let pool = addresses();
        let dns = assign(&pool, json!({"clusterIP": "10.96.0.10"})).unwrap();
        assert_eq!(dns["clusterIPs"], json!(["10.96.0.10"]));
        let again = assign(&pool, json!({"clusterIP": "10.96.0.10"})).unwrap_err();
        assert!(again.reason.contains("already allocated"), "{}", again.reason);
        let outside = assign(&pool, json!({"clusterIP": "192.0.2.1"})).unwrap_err();
        assert!(outside.reason.contains("10.96.0.0/16"), "{}", outside.reason);
        let headless = assign(&pool, json!({"clusterIP": "None"})).unwrap();
        assert_eq!(headless["clusterIPs"], json!(["None"]));
        let external = assign(&pool, json!({"type": "ExternalName", "externalName": "example.org"})).unwrap();
        assert_eq!(external.get("clusterIP"), None);
    }

    #[test]
    fn a_full_range_says_so_and_released_addresses_return() {
        let pool = Addresses::new("10.0.0.0/29".parse().unwrap(), "fd00::/125".parse().unwrap());
        let single = || assign(&pool, json!({"ipFamilyPolicy": "SingleStack"}));
        let first = single().unwrap();
        while single().is_ok() {}
        pool.release(&[first["clusterIP"].as_str().unwrap().parse().unwrap()]);
        assert_eq!(single().unwrap()["clusterIP"], first["clusterIP"]);
    }
}
