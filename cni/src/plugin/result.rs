//! Results of the plugins before us: read in the version they were written in, handed on in the version of the
//! configuration, content unchanged.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::VERSIONS;
use crate::event::{IpConfig, IpMask};

/// The earlier result.
#[derive(Debug, Clone)]
pub struct PrevResult {
    /// As it came.
    raw: Map<String, Value>,
    /// How the result is written.
    form: Form,
}

/// The three ways in which results have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `ip4` and `ip6`: 0.1.0, 0.2.0.
    First,
    /// `ips` that name their family: 0.3.0 to 0.4.0.
    Second,
    /// `ips` that do not: from 1.0.0.
    Third,
}

impl PrevResult {
    /// Reads a result. `version` is that of the configuration; a result that names its own is read by that.
    ///
    /// # Errors
    /// Names the key that is not as it should be.
    pub fn parse(value: &Value, version: &str) -> Result<Self, String> {
        let Value::Object(raw) = value else { return Err("prevResult: expected an object".to_owned()) };
        let own = raw.get("cniVersion").and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or(version);
        let form = form(own).ok_or_else(|| format!("prevResult.cniVersion: {own:?} is not supported"))?;
        let result = Self { raw: raw.clone(), form };
        result.ips()?;
        Ok(result)
    }

    /// The pod's addresses.
    ///
    /// # Errors
    /// Names the address that is none.
    pub fn ips(&self) -> Result<Vec<IpConfig>, String> {
        if self.form == Form::First {
            let both = ["ip4", "ip6"].iter().filter_map(|key| self.raw.get(*key).map(|value| (*key, value)));
            return both.map(|(key, one)| address(key, one.get("ip"), one.get("gateway"), None)).collect();
        }
        let list = match self.raw.get("ips") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err("prevResult.ips: expected a list".to_owned()),
        };
        list.iter().map(|one| address("ips", one.get("address"), one.get("gateway"), one.get("interface"))).collect()
    }

    /// The result in the given version.
    ///
    /// # Errors
    /// When an address cannot be read.
    pub fn print(&self, version: &str) -> Result<String, String> {
        let mut out = self.raw.clone();
        match (self.form, form(version).ok_or_else(|| format!("version {version:?} is not supported"))?) {
            (from, to) if from == to => {}
            (Form::First, to) => widen(&mut out, to),
            (_, Form::First) => narrow(&mut out),
            (Form::Second, _) => each_ip(&mut out, |one| drop(one.remove("version"))),
            (_, to) => each_ip(&mut out, |one| name_family(one, to)),
        }
        out.insert("cniVersion".to_owned(), json!(version));
        Ok(Value::Object(out).to_string())
    }
}

/// The result to print when there was none before.
#[must_use]
pub fn empty(version: &str) -> String {
    match form(version) {
        Some(Form::First) => json!({"cniVersion": version, "dns": {}}).to_string(),
        _ => json!({"cniVersion": version, "interfaces": [], "ips": [], "dns": {}}).to_string(),
    }
}

fn form(version: &str) -> Option<Form> {
    Some(match VERSIONS.iter().position(|known| *known == version)? {
        0 | 1 => Form::First,
        2..=4 => Form::Second,
        _ => Form::Third,
    })
}

fn address(key: &str, ip: Option<&Value>, gateway: Option<&Value>, index: Option<&Value>) -> Result<IpConfig, String> {
    let text = ip.and_then(Value::as_str).unwrap_or_default();
    let wrong = || format!("prevResult.{key}: {text:?} is not an address with a prefix length");
    let net: IpNet = text.parse().map_err(|_| wrong())?;
    Ok(IpConfig {
        interface: index.and_then(Value::as_i64),
        address: IpMask::new(net.addr(), net.prefix_len()),
        gateway: gateway.and_then(Value::as_str).map(str::to_owned),
    })
}

/// `ip4`, `ip6` become `ips`; routes, which were per family, become one list.
fn widen(out: &mut Map<String, Value>, to: Form) {
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for key in ["ip4", "ip6"] {
        let Some(Value::Object(mut one)) = out.remove(key) else { continue };
        if let Some(Value::Array(list)) = one.remove("routes") {
            routes.extend(list);
        }
        let mut ip = Map::new();
        ip.extend(one.remove("ip").map(|address| ("address".to_owned(), address)));
        ip.extend(one.remove("gateway").map(|gateway| ("gateway".to_owned(), gateway)));
        name_family(&mut ip, to);
        ips.push(Value::Object(ip));
    }
    out.insert("ips".to_owned(), Value::Array(ips));
    if !routes.is_empty() {
        out.insert("routes".to_owned(), Value::Array(routes));
    }
}

/// The first address of each family, with the routes of that family; interfaces did not exist.
fn narrow(out: &mut Map<String, Value>) {
    let ips = out.remove("ips");
    let routes = out.remove("routes");
    out.remove("interfaces");
    let list = |value: &Option<Value>| value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    for (key, v6) in [("ip4", false), ("ip6", true)] {
        let Some(ip) = list(&ips).into_iter().find(|one| is_v6(one.get("address")) == v6) else { continue };
        let routes: Vec<Value> = list(&routes).into_iter().filter(|one| is_v6(one.get("dst")) == v6).collect();
        let mut one = Map::new();
        one.extend(ip.get("address").map(|address| ("ip".to_owned(), address.clone())));
        one.extend(ip.get("gateway").map(|gateway| ("gateway".to_owned(), gateway.clone())));
        if !routes.is_empty() {
            one.insert("routes".to_owned(), Value::Array(routes));
        }
        out.insert(key.to_owned(), Value::Object(one));
    }
}

fn name_family(one: &mut Map<String, Value>, to: Form) {
    if to == Form::Second {
        let family = if is_v6(one.get("address")) { "6" } else { "4" };
        one.insert("version".to_owned(), json!(family));
    }
}

fn each_ip(out: &mut Map<String, Value>, change: impl Fn(&mut Map<String, Value>)) {
    if let Some(Value::Array(list)) = out.get_mut("ips") {
        list.iter_mut().filter_map(Value::as_object_mut).for_each(change);
    }
}

fn is_v6(address: Option<&Value>) -> bool {
    let text = address.and_then(Value::as_str).unwrap_or_default();
    let ip = text.split('/').next().unwrap_or_default();
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn third() -> Value {
        json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "m", "sandbox": "s"}],
               "ips": [{"interface": 0, "address": "10.0.0.7/24", "gateway": "10.0.0.1"},
                       {"interface": 0, "address": "fd00::7/64"}],
               "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dns": {}, "x-unknown": 1})
    }

    fn printed(value: &Value, configured: &str, wanted: &str) -> Value {
        let text = PrevResult::parse(value, configured).unwrap().print(wanted).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_same_form_is_handed_on_unchanged() {
        assert_eq!(printed(&third(), "1.0.0", "1.0.0"), third());
        let mut newer = third();
        newer["cniVersion"] = json!("1.1.0");
        assert_eq!(printed(&third(), "1.1.0", "1.1.0"), newer);
    }

    #[test]
    fn families_are_named_where_the_version_wants_it() {
        let second = printed(&third(), "1.0.0", "0.3.1");
        assert_eq!(second["ips"][0]["version"], "4");
        assert_eq!(second["ips"][1]["version"], "6");
        assert_eq!(printed(&second, "0.3.1", "1.0.0"), third());
    }

    #[test]
    fn the_first_form_has_one_address_a_family() {
        let first = printed(&third(), "1.0.0", "0.2.0");
        assert_eq!(
            first,
            json!({"cniVersion": "0.2.0", "dns": {}, "x-unknown": 1,
                   "ip4": {"ip": "10.0.0.7/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
                   "ip6": {"ip": "fd00::7/64", "routes": [{"dst": "::/0"}]}})
        );
        let back = printed(&first, "0.2.0", "0.4.0");
        assert_eq!(back["ips"][0]["version"], "4");
        assert_eq!(back["routes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn addresses_are_found_in_every_form() {
        for version in VERSIONS {
            let value = printed(&third(), "1.0.0", version);
            let ips = PrevResult::parse(&value, version).unwrap().ips().unwrap();
            let texts: Vec<&str> = ips.iter().map(|one| one.address.ip.as_str()).collect();
            assert_eq!(texts, ["10.0.0.7", "fd00::7"], "{version}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (value, part) in [
            (json!([]), "expected an object"),
            (json!({"cniVersion": "9.9.9"}), "9.9.9"),
            (json!({"ips": 7}), "prevResult.ips"),
            (json!({"ips": [{"address": "ten"}]}), "ten"),
        ] {
            let error = PrevResult::parse(&value, "1.0.0").unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn without_a_result_before_the_result_is_empty_in_the_version_asked_for() {
        let empty: Value = serde_json::from_str(&empty("1.0.0")).unwrap();
        assert_eq!(empty, json!({"cniVersion": "1.0.0", "interfaces": [], "ips": [], "dns": {}}));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,100}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = PrevResult::parse(&value, "1.0.0");
            }
        }
    }
}
