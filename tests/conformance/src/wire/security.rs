//! Package `istio.security`.

#[derive(Clone, PartialEq, prost::Message)]
pub struct Authorization {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(int32, tag = "3")]
    pub scope: i32,
    #[prost(int32, tag = "4")]
    pub action: i32,
    #[prost(message, repeated, tag = "5")]
    pub rules: Vec<Rule>,
    #[prost(bool, tag = "6")]
    pub dry_run: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Rule {
    #[prost(message, repeated, tag = "1")]
    pub clauses: Vec<Clause>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Clause {
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<Match>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Match {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "2")]
    pub not_namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "3")]
    pub principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "4")]
    pub not_principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "5")]
    pub source_ips: Vec<Cidr>,
    #[prost(message, repeated, tag = "6")]
    pub not_source_ips: Vec<Cidr>,
    #[prost(message, repeated, tag = "7")]
    pub destination_ips: Vec<Cidr>,
    #[prost(message, repeated, tag = "8")]
    pub not_destination_ips: Vec<Cidr>,
    #[prost(uint32, repeated, tag = "9")]
    pub destination_ports: Vec<u32>,
    #[prost(uint32, repeated, tag = "10")]
    pub not_destination_ports: Vec<u32>,
    #[prost(message, repeated, tag = "11")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    #[prost(message, repeated, tag = "12")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Cidr {
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StringMatch {
    #[prost(oneof = "Text", tags = "1, 2, 3, 4")]
    pub text: Option<Text>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Text {
    #[prost(string, tag = "1")]
    Exact(String),
    #[prost(string, tag = "2")]
    Prefix(String),
    #[prost(string, tag = "3")]
    Suffix(String),
    #[prost(message, tag = "4")]
    Presence(()),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceAccountMatch {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub service_account: String,
}

pub const GLOBAL: i32 = 0;
pub const NAMESPACE: i32 = 1;
pub const WORKLOAD_SELECTOR: i32 = 2;
pub const ALLOW: i32 = 0;
pub const DENY: i32 = 1;

/// Exactly this text.
#[must_use]
pub fn exact(text: &str) -> StringMatch {
    StringMatch { text: Some(Text::Exact(text.to_owned())) }
}

/// Text that starts so.
#[must_use]
pub fn prefix(text: &str) -> StringMatch {
    StringMatch { text: Some(Text::Prefix(text.to_owned())) }
}

/// Any text but none.
#[must_use]
pub fn presence() -> StringMatch {
    StringMatch { text: Some(Text::Presence(())) }
}

/// One rule whose clauses hold one match each.
#[must_use]
pub fn rule(clauses: Vec<Match>) -> Rule {
    Rule { clauses: clauses.into_iter().map(|one| Clause { matches: vec![one] }).collect() }
}
