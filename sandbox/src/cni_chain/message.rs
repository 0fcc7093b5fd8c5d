//! What plugins answer: results and errors.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::ordered;

/// What the runtime needs of a chain's last result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniResult {
    ips: Vec<IpAddr>,
}

impl CniResult {
    /// Reads the addresses of a result: `ips[].address` since 0.3.0, `ip4.ip` and `ip6.ip` before.
    ///
    /// # Errors
    ///
    /// A sentence when there is no address or one is unreadable.
    pub fn parse(result: &Value) -> Result<Self, String> {
        let listed = result.get("ips").and_then(Value::as_array).into_iter().flatten();
        let listed = listed.filter_map(|entry| entry.get("address"));
        let early = ["/ip4/ip", "/ip6/ip"].into_iter().filter_map(|pointer| result.pointer(pointer));
        let mut ips = Vec::new();
        for address in listed.chain(early) {
            let text = address.as_str().ok_or_else(|| format!("address {address} of its result is no text"))?;
            let net: IpNet =
                text.parse().map_err(|_| format!("address {text:?} of its result is not address/prefix"))?;
            ips.push(net.addr());
        }
        if ips.is_empty() {
            return Err("its result has no address".to_owned());
        }
        Ok(Self { ips: ordered(ips) })
    }

    /// The pod's addresses, IPv4 first.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.ips.clone()
    }
}

/// The text of a plugin's failure: the error object it wrote, else what it said.
pub(crate) fn error_text(stdout: &[u8], stderr: &str) -> String {
    let object: Value = serde_json::from_slice(stdout).unwrap_or_default();
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    match (word("msg"), word("details")) {
        ("", _) if !stderr.is_empty() => stderr.to_owned(),
        ("", _) => format!("no error message, output {:?}", String::from_utf8_lossy(stdout)),
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}; {details}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_of_old_and_new_results() {
        let new = json!({"ips": [{"address": "fd00::2/64"}, {"address": "10.0.0.2/24"}]});
        let ips = CniResult::parse(&new).unwrap().ips();
        assert_eq!(ips, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        let old = json!({"ip4": {"ip": "10.0.0.3/24"}});
        assert_eq!(CniResult::parse(&old).unwrap().ips(), ["10.0.0.3".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn results_without_a_readable_address_are_refused() {
        for result in
            [json!({}), json!({"ips": []}), json!({"ips": [{"address": 1}]}), json!({"ips": [{"address": "x"}]})]
        {
            assert!(CniResult::parse(&result).is_err(), "{result}");
        }
    }

    #[test]
    fn errors_prefer_the_plugins_own_words() {
        let text = br#"{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"x"}"#;
        assert_eq!(error_text(text, "noise"), "bad subnet; x");
        assert_eq!(error_text(b"", "panic"), "panic");
        assert_eq!(error_text(b"?", ""), "no error message, output \"?\"");
    }
}
