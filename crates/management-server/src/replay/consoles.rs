//! Tokens for the consoles of a recording: the recorded browser's links were not recorded, but all
//! that they said was, and the key is in the conversation too.

use std::net::IpAddr;

use agent_protocol::console::{
    ConsoleAccessAuthenticationCommand, StartConsoleProxyAgentHttpHandlerCommand,
};
use bedrock::Secret;
use serde_json::Value;

use super::compare::Replacements;
use super::conversation::{self, Conversation};
use crate::token::{ClientParameters, TokenError, TokenKey};

/// A console that the recorded agent asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedConsole {
    /// UUID of its session.
    pub session: String,
    /// A token with which a browser makes the agent ask for it again.
    pub token: String,
    /// Line of the recorded question.
    pub line: usize,
}

/// The consoles of a conversation, in the order they were asked for; none without a key.
pub(super) fn tokens(
    conversation: &Conversation,
    replacements: &Replacements,
    source: IpAddr,
) -> Result<Vec<RecordedConsole>, TokenError> {
    let key = conversation.commands().find_map(|command| {
        let envelopes = conversation::envelopes(&command.json);
        let start: StartConsoleProxyAgentHttpHandlerCommand = envelopes.first()?.open().ok()?;
        TokenKey::parse(start.encryptor_password?.reveal())
    });
    let Some(key) = key else { return Ok(Vec::new()) };
    let questions = conversation.requests().filter_map(|request| {
        let json: Value = replacements.apply(&request.json);
        let envelopes = conversation::envelopes(&json);
        let question: ConsoleAccessAuthenticationCommand = envelopes.first()?.open().ok()?;
        Some((request.line, question))
    });
    let consoles = questions.map(|(line, question)| {
        let secret = |field: Option<Secret<String>>| field.unwrap_or_default().reveal().clone();
        let session = question.session_uuid.unwrap_or_default();
        let parameters = ClientParameters {
            client_host_address: question.host.unwrap_or_default(),
            client_host_port: question.port.and_then(|port| port.parse().ok()).unwrap_or(-1),
            client_host_password: secret(question.sid),
            client_tag: question.vm_id.unwrap_or_default(),
            client_display_name: "vm1".to_owned(),
            ticket: secret(question.ticket),
            locale: None,
            session_requires_new_viewer: false,
            source_ip: source.to_string(),
            session_uuid: session.clone(),
            extra_security_token: None,
        };
        Ok(RecordedConsole { session, token: key.encrypt(&parameters)?, line })
    });
    consoles.collect()
}

#[cfg(test)]
mod tests {
    use agent_protocol::Body as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_made_for_each_recorded_question() {
        let line = |dir: &str, flags: u16, class: &str, body: Value| {
            json!({"dir": dir, "hdr": {"flags": flags, "seq": 1, "size": 0, "mgmt": 1, "agent": 1,
                "via": 1}, "json": [{class: body}]})
            .to_string()
        };
        let start = line(
            "m2a",
            0x27,
            StartConsoleProxyAgentHttpHandlerCommand::CLASS,
            json!({"encryptorPassword": TokenKey::generate().unwrap().encryptor_password()}),
        );
        let question = line(
            "a2m",
            0x03,
            ConsoleAccessAuthenticationCommand::CLASS,
            json!({"_host": "10.0.0.1", "_port": "5901", "sessionUuid": "s"}),
        );
        let text = [start, question.clone()].join("\n");
        let tokens_of = |text: &str| {
            let conversation = Conversation::parse(text).unwrap();
            let source = IpAddr::from([127, 0, 0, 1]);
            tokens(&conversation, &Replacements::default(), source).unwrap()
        };
        let consoles = tokens_of(&text);
        assert_eq!((consoles.len(), consoles[0].line), (1, 2));
        assert_eq!(consoles[0].session, "s");
        assert!(consoles[0].token.len() > 300);
        assert_eq!(tokens_of(&question), [], "without a key there are no tokens");
    }
}
