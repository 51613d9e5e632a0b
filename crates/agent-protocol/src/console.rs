//! Bodies for the console proxy.

use bedrock::Secret;

use crate::Envelope;
use crate::agent::{AgentControlAnswer, AnswerBase, CommandBase, PlainAnswer};

java! {
    /// Start serving consoles; later ones only change the keys and the address check.
    StartConsoleProxyAgentHttpHandlerCommand =
        "com.cloud.agent.api.proxy.StartConsoleProxyAgentHttpHandlerCommand"
    {
        /// A Java key store with the TLS key; absent without TLS.
        "keystoreBits" keystore_bits: Option<Secret<Vec<u8>>>,
        "keystorePassword" keystore_password: Option<Secret<String>>,
        /// JSON text with the key of console tokens.
        "encryptorPassword" encryptor_password: Option<Secret<String>>,
        /// Admit a console only from the address its link was made for.
        "isSourceIpCheckEnabled" is_source_ip_check_enabled: bool,
    }
    extends base: CommandBase
}

java! {
    /// Announces a console before its browser connects.
    AllowConsoleAccessCommand = "com.cloud.agent.api.proxy.AllowConsoleAccessCommand" {
        "sessionUuid" session_uuid: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Asks for the load once; no server of today sends it.
    CheckConsoleProxyLoadCommand = "com.cloud.agent.api.proxy.CheckConsoleProxyLoadCommand" {
        "proxyVmId" proxy_vm_id: i64,
        "proxyVmName" proxy_vm_name: Option<String>,
        "proxyManagementIp" proxy_management_ip: Option<String>,
        "proxyCmdPort" proxy_cmd_port: i32,
    }
    extends base: CommandBase
}

java! {
    /// Asks for the load again and again: answers repeat under the same sequence number. The one
    /// recurring command that an agent of these roles can meet; no server of today sends it.
    WatchConsoleProxyLoadCommand = "com.cloud.agent.api.proxy.WatchConsoleProxyLoadCommand" {
        "proxyVmId" proxy_vm_id: i64,
        "proxyVmName" proxy_vm_name: Option<String>,
        "proxyManagementIp" proxy_management_ip: Option<String>,
        "proxyCmdPort" proxy_cmd_port: i32,
        /// Seconds between answers.
        "interval" interval: i32,
    }
    extends base: CommandBase
}

java! {
    /// The load; its JSON text is in `details`.
    ConsoleProxyLoadAnswer = "com.cloud.agent.api.proxy.ConsoleProxyLoadAnswer" {
        "proxyVmId" proxy_vm_id: i64,
        "proxyVmName" proxy_vm_name: Option<String>,
    }
    extends base: AnswerBase
}

java! {
    /// May this browser see this console? Asked by the proxy.
    ConsoleAccessAuthenticationCommand =
        "com.cloud.agent.api.ConsoleAccessAuthenticationCommand"
    {
        "_host" host: Option<String>,
        /// A number as text.
        "_port" port: Option<String>,
        "_vmId" vm_id: Option<String>,
        /// VNC password of the VM.
        "_sid" sid: Option<Secret<String>>,
        "_ticket" ticket: Option<Secret<String>>,
        "sessionUuid" session_uuid: Option<String>,
        /// Address of the browser.
        "clientAddress" client_address: Option<String>,
        "_isReauthenticating" is_reauthenticating: bool,
    }
    extends base: CommandBase
}

java! {
    /// `success` decides; `result` only says that the server handled the question.
    ConsoleAccessAuthenticationAnswer =
        "com.cloud.agent.api.ConsoleAccessAuthenticationAnswer"
    {
        "_success" success: bool,
        "_isReauthenticating" is_reauthenticating: bool,
        "_host" host: Option<String>,
        "_port" port: i32,
        "_tunnelUrl" tunnel_url: Option<crate::UrlText>,
        "_tunnelSession" tunnel_session: Option<Secret<String>>,
    }
    extends base: AnswerBase
}

java! {
    /// Which consoles are open; sent by the proxy all the time.
    ConsoleProxyLoadReportCommand = "com.cloud.agent.api.ConsoleProxyLoadReportCommand" {
        "_proxyVmId" proxy_vm_id: i64,
        /// JSON text; must stay under 64 KiB.
        "_loadInfo" load_info: Option<String>,
    }
    extends base: CommandBase
}

impl CheckConsoleProxyLoadCommand {
    fn failed_answer(&self, details: &str) -> Envelope {
        Envelope::of(&ConsoleProxyLoadAnswer {
            proxy_vm_id: self.proxy_vm_id,
            proxy_vm_name: self.proxy_vm_name.clone(),
            base: AnswerBase::failed(details),
        })
    }
}

answers!(ConsoleProxyLoadAnswer, ConsoleAccessAuthenticationAnswer);
commands! {
    StartConsoleProxyAgentHttpHandlerCommand.base => PlainAnswer, true;
    AllowConsoleAccessCommand.base => PlainAnswer, false;
    CheckConsoleProxyLoadCommand.base => ConsoleProxyLoadAnswer, false,
        CheckConsoleProxyLoadCommand::failed_answer;
    WatchConsoleProxyLoadCommand.base => PlainAnswer, false;
    ConsoleAccessAuthenticationCommand.base => ConsoleAccessAuthenticationAnswer, false;
    ConsoleProxyLoadReportCommand.base => AgentControlAnswer, false;
}

command_set! {
    /// What a management server may ask of a console proxy, besides the session's commands.
    ConsoleCommand {
        StartConsoleProxyAgentHttpHandler(StartConsoleProxyAgentHttpHandlerCommand),
        AllowConsoleAccess(AllowConsoleAccessCommand),
        CheckConsoleProxyLoad(CheckConsoleProxyLoadCommand),
        WatchConsoleProxyLoad(WatchConsoleProxyLoadCommand),
    }
}
