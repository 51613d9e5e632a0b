//! The step to a webhook of the server, whose events wake the sync. *Pure*.
//!
//! It is made by the administrator who makes the network: the user of the sync only reads.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use bedrock::Secret;
use cloudstack_api::commands::{CreateWebhook, UpdateWebhook};

use super::look::Seen;
use super::{Action, SetUp, Step, enable};

/// Where events go and what they are signed with.
#[derive(Debug, Clone)]
pub(crate) struct WebhookWish {
    pub(crate) url: PayloadUrl,
    pub(crate) secret: Secret<String>,
}

/// A URL that the server sends events to. It refuses IPv6, the loopback and what is no host's
/// address; it takes a host without a scheme for http.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PayloadUrl(String);

impl fmt::Display for PayloadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PayloadUrl {
    fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl FromStr for PayloadUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: reqwest::Url = text.parse().map_err(|_odd| "give http://HOST:PORT/PATH")?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("give http:// or https://");
        }
        let host = url.host_str().ok_or("it names no host")?;
        if host.starts_with('[') {
            return Err("the server refuses IPv6 addresses: give an IPv4 address or a name");
        }
        let address: Option<IpAddr> = host.parse().ok();
        let refused = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => {
                ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
            }
            IpAddr::V6(_) => true,
        };
        if host == "localhost" || address.as_ref().is_some_and(refused) {
            return Err("the server refuses it: give this machine's address in its network");
        }
        Ok(Self(url.to_string()))
    }
}

/// The step, done or not.
pub(crate) fn step(seen: &Seen, wish: &WebhookWish) -> Step {
    let name = format!("quickcloud-dhcp-{}", seen.zone.name);
    let url = wish.url.to_string();
    let (enabled, global) = (Some("Enabled".to_owned()), Some("Global".to_owned()));
    // A certificate that nobody checks protects nothing; plain http has none.
    let ssl_verification = wish.url.is_https().then_some(true);
    let there = seen.webhooks.iter().find(|webhook| webhook.name == name);
    let is_so = there.is_some_and(|webhook| {
        webhook.payload_url.as_ref() == Some(&url)
            && webhook.state == enabled
            && webhook.scope == global
            // Servers that show no secret are believed.
            && webhook.secret_key.as_ref().is_none_or(|secret| secret == &wish.secret)
    });
    let secret_key = Some(wish.secret.clone());
    let call = match there {
        Some(webhook) => SetUp::ChangeWebhook(Box::new(UpdateWebhook {
            id: webhook.id,
            payload_url: Some(url.clone()),
            secret_key,
            scope: global,
            state: enabled,
            ssl_verification,
        })),
        None => SetUp::Webhook(Box::new(CreateWebhook {
            name: name.clone(),
            payload_url: url.clone(),
            secret_key,
            scope: global,
            state: enabled,
            ssl_verification,
        })),
    };
    let now = there.map_or("absent", |webhook| webhook.payload_url.as_deref().unwrap_or("there"));
    Step {
        done: is_so,
        then: url,
        why:
            "events wake the sync: renames and removals are seen at once, not with the next listing"
                .to_owned(),
        undo: "deleteWebhook".to_owned(),
        ..enable::step(format!("webhook {name}"), Action::SetUp(call), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_the_server_refuses_are_refused_before() {
        let check = |text: &str| text.parse::<PayloadUrl>();
        assert_eq!(check("http://10.1.1.2:8252/v1/x").unwrap().0, "http://10.1.1.2:8252/v1/x");
        assert!(check("https://dhcp.example/x").unwrap().is_https());
        for (text, expected) in [
            ("10.1.1.2", "give http://HOST"),
            ("ftp://10.1.1.2/", "give http:// or https://"),
            ("http://[fd00::1]/", "the server refuses IPv6"),
            ("http://127.0.0.1:8252/", "the server refuses it"),
            ("http://localhost/", "the server refuses it"),
            ("http://169.254.1.1/", "the server refuses it"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
