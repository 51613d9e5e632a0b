//! Parameters of a call and their signature, as the server verifies it.
//!
//! The server sorts the names as sent and lower-cases afterwards; with lower-case names from the
//! start both orders are one. Names are not escaped in the text that is signed, values are, in the
//! manner of Java's `URLEncoder` with `%20` for the space (dhcp-dns.md §3.3).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock::Secret;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use uuid::Uuid;

/// What Java's `URLEncoder` leaves alone.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'*').remove(b'_');

/// Key pair of one user of the API.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Sent with every call.
    pub api_key: Secret<String>,
    /// Signs, never sent.
    pub secret_key: Secret<String>,
}

/// Parameters of one call, by lower-case name. `Debug` shows names only: values may be passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, String>);

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Parameters {
    /// Sets a parameter; the name is lower-cased.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_ascii_lowercase(), value.into());
    }

    /// The value of a parameter, by lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The text that is signed.
    pub fn canonical(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={}", escape(value)));
        pairs.collect::<Vec<_>>().join("&").to_lowercase()
    }

    /// Query or form body with the signature as its last parameter.
    pub fn signed(mut self, credentials: &Credentials) -> Secret<String> {
        self.set("apikey", credentials.api_key.reveal().as_str());
        let signature = signature(&self.canonical(), &credentials.secret_key);
        let pairs =
            self.0.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
        let mut text: String = pairs.map(|pair| pair + "&").collect();
        text.push_str("signature=");
        text.push_str(&escape(&signature));
        Secret::new(text)
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// HMAC-SHA1 of the canonical text, base64 with padding.
pub fn signature(canonical: &str, key: &Secret<String>) -> String {
    // A key of any length is a key of HMAC.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key.reveal().as_bytes()) else {
        return String::new();
    };
    mac.update(canonical.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// A value that can be a parameter.
pub trait Parameter {
    /// Sets the parameter `name`, or several that begin with it, or none when there is no value.
    fn put(&self, name: &str, parameters: &mut Parameters);
}

macro_rules! parameter_by_text {
    ($($kind:ty),*) => {
        $(impl Parameter for $kind {
            fn put(&self, name: &str, parameters: &mut Parameters) {
                parameters.set(name, self.to_string());
            }
        })*
    };
}

parameter_by_text!(String, bool, u32, i64, Uuid, IpAddr);

impl Parameter for Secret<String> {
    fn put(&self, name: &str, parameters: &mut Parameters) {
        parameters.set(name, self.reveal().as_str());
    }
}

impl<T: Parameter> Parameter for Option<T> {
    fn put(&self, name: &str, parameters: &mut Parameters) {
        if let Some(value) = self {
            value.put(name, parameters);
        }
    }
}

/// A list of words, joined by commas: `supportedservices=Dhcp,Dns`.
impl Parameter for Vec<String> {
    fn put(&self, name: &str, parameters: &mut Parameters) {
        if !self.is_empty() {
            parameters.set(name, self.join(","));
        }
    }
}

/// Details by name: `details[0].key=enable.secstorage.vm`, `details[0].value=false`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details(pub Vec<(String, String)>);

impl Parameter for Details {
    fn put(&self, name: &str, parameters: &mut Parameters) {
        for (index, (key, value)) in self.0.iter().enumerate() {
            parameters.set(&format!("{name}[{index}].key"), key.as_str());
            parameters.set(&format!("{name}[{index}].value"), value.as_str());
        }
    }
}

/// Which provider serves which service of a network offering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceProviders(pub Vec<(String, String)>);

impl Parameter for ServiceProviders {
    fn put(&self, name: &str, parameters: &mut Parameters) {
        for (index, (service, provider)) in self.0.iter().enumerate() {
            parameters.set(&format!("{name}[{index}].service"), service.as_str());
            parameters.set(&format!("{name}[{index}].provider"), provider.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            parameters.set(name, *value);
        }
        parameters
    }

    /// The vectors of dhcp-dns.md §3.3.
    fn check(pairs: &[(&str, &str)], canonical: &str, expected: &str) {
        let mut parameters = parameters(pairs);
        parameters.set("apiKey", "EXAMPLE-Api_Key");
        assert_eq!(parameters.canonical(), canonical);
        let secret = Secret::new("EXAMPLE-Secret".to_owned());
        assert_eq!(signature(canonical, &secret), expected);
        let key = Secret::new("EXAMPLE-Api_Key".to_owned());
        let sent = parameters.signed(&Credentials { api_key: key, secret_key: secret });
        let escaped = expected.replace('=', "%3D").replace('/', "%2F").replace('+', "%2B");
        assert!(sent.reveal().ends_with(&format!("&signature={escaped}")), "{}", sent.reveal());
    }

    #[test]
    fn signatures_are_those_of_the_server() {
        check(
            &[("command", "listZones"), ("name", "Zone A+B*~c"), ("response", "json")],
            "apikey=example-api_key&command=listzones&name=zone%20a%2bb*%7ec&response=json",
            "TQdWM8zNnItKmnc9uERKHAntFCA=",
        );
        check(
            &[
                ("command", "listVirtualMachines"),
                ("details", "nics"),
                ("expires", "2030-01-01T00:00:00+0000"),
                ("listall", "true"),
                ("page", "1"),
                ("pagesize", "500"),
                ("projectid", "-1"),
                ("response", "json"),
                ("signatureversion", "3"),
                ("zoneid", "1d8d87d4-1425-459c-8d81-c6f57dca2bd2"),
            ],
            "apikey=example-api_key&command=listvirtualmachines&details=nics\
             &expires=2030-01-01t00%3a00%3a00%2b0000&listall=true&page=1&pagesize=500&projectid=-1\
             &response=json&signatureversion=3&zoneid=1d8d87d4-1425-459c-8d81-c6f57dca2bd2",
            "bqJDXfpo+rlUljwXy6u/PLrm2Y4=",
        );
    }

    #[test]
    fn names_are_escaped_when_sent_and_not_when_signed() {
        let mut parameters = Parameters::default();
        ServiceProviders(vec![("Dhcp".into(), "ConfigDrive".into())])
            .put("serviceproviderlist", &mut parameters);
        assert_eq!(
            parameters.canonical(),
            "serviceproviderlist[0].provider=configdrive&serviceproviderlist[0].service=dhcp"
        );
        let key = || Secret::new("k".to_owned());
        let sent = parameters.signed(&Credentials { api_key: key(), secret_key: key() });
        assert!(sent.reveal().contains("serviceproviderlist%5B0%5D.service=Dhcp"));
    }

    #[test]
    fn values_and_keys_do_not_print() {
        let secret = parameters(&[("password", "hunter2")]);
        assert_eq!(format!("{secret:?}"), "{\"password\"}");
        let key = || Secret::new("hunter2".to_owned());
        assert!(
            !format!("{:?}", Credentials { api_key: key(), secret_key: key() }).contains("hunter")
        );
        let sent = secret.signed(&Credentials { api_key: key(), secret_key: key() });
        assert!(!format!("{sent:?}{sent}").contains("hunter"));
    }
}
