//! Messages and conversations on top of [`crate::peer`]: what a management server says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{Authority, Peer};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
const NODE: i64 = 0x1e00_ae00_002a;

/// A message, taken apart by hand.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) flags: u16,
    pub(crate) sequence: i64,
    pub(crate) management: i64,
    pub(crate) agent: i64,
    pub(crate) via: i64,
    pub(crate) json: Value,
}

impl Message {
    fn parse(bytes: &[u8]) -> Self {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let flags = u16::from_be_bytes([bytes[2], bytes[3]]);
        assert_eq!(&bytes[..2], [0, 0]);
        let mut body = bytes[40..].to_vec();
        if flags & 0x80 != 0 {
            body = gunzip(&body);
        }
        let declared = u32::from_be_bytes(bytes[12..16].try_into().unwrap());
        assert_eq!(usize::try_from(declared).unwrap(), body.len());
        Self {
            flags: flags & !0x80,
            sequence: long(4),
            management: long(16),
            agent: long(24),
            via: long(32),
            json: serde_json::from_slice(&body).unwrap(),
        }
    }

    /// Class without package, and body, of the element at `index`.
    pub(crate) fn element(&self, index: usize) -> (&str, &Value) {
        let (class, body) = self.json[index].as_object().unwrap().iter().next().unwrap();
        (class.rsplit('.').next().unwrap(), body)
    }

    pub(crate) fn class(&self) -> &str {
        self.element(0).0
    }

    pub(crate) fn body(&self) -> &Value {
        self.element(0).1
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

pub(crate) fn message(flags: u16, sequence: i64, agent: i64, json: &Value) -> Vec<u8> {
    let body = json.to_string().into_bytes();
    let mut bytes = vec![0, 0];
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    for id in [NODE, agent, agent] {
        bytes.extend_from_slice(&id.to_be_bytes());
    }
    bytes.extend_from_slice(&body);
    bytes
}

pub(crate) struct Server {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new();
        let config = authority.server_config();
        Self::with(authority, config).await
    }

    pub(crate) async fn with(authority: Authority, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { authority, address: listener.local_addr().unwrap(), listener, config }
    }

    /// Another certificate on the same port.
    pub(crate) fn present(&mut self, authority: Authority) {
        self.config = authority.server_config();
        self.authority = authority;
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await;
        accepted.expect("nobody connects").unwrap().0
    }

    /// A connection whose handshake may fail.
    pub(crate) async fn try_accept(&self) -> std::io::Result<Conversation> {
        let stream = self.accept_tcp().await;
        let peer = Peer::accept(stream, Arc::clone(&self.config)).await?;
        Ok(Conversation { peer, sequence: 0x2f1c << 48, host: -1 })
    }

    pub(crate) async fn accept(&self) -> Conversation {
        self.try_accept().await.unwrap()
    }

    /// A registered agent; the startup command too.
    pub(crate) async fn register(&self, host: i64) -> (Conversation, Message) {
        let mut conversation = self.accept().await;
        let startup = conversation.startup().await;
        conversation.host = host;
        for number in 1..=2 {
            let answer = conversation.ask("com.cloud.agent.api.ReadyCommand", &ready(host)).await;
            assert_eq!((answer.class(), number), ("ReadyAnswer", number));
        }
        (conversation, startup)
    }
}

pub(crate) fn ready(host: i64) -> Value {
    json!({"hostId": host, "hostUuid": "u-1", "hostName": "s-1-VM", "contextMap": {}, "wait": 60})
}

pub(crate) struct Conversation {
    pub(crate) peer: Peer<TcpStream>,
    pub(crate) sequence: i64,
    pub(crate) host: i64,
}

impl Conversation {
    /// The next message; `None` at the end of the link.
    pub(crate) async fn try_receive(&mut self) -> Option<Message> {
        let received = tokio::time::timeout(LIMIT, self.peer.receive()).await;
        match received.expect("the agent says nothing") {
            Ok(message) => Some(Message::parse(&message?.0)),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                None
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> Message {
        self.try_receive().await.expect("the link ended")
    }

    pub(crate) async fn send(&mut self, flags: u16, sequence: i64, json: &Value) {
        let bytes = message(flags, sequence, self.host, json);
        self.peer.send(&bytes).await.unwrap();
    }

    /// Takes the startup command and answers it as the server does: id 0, an interval.
    pub(crate) async fn startup(&mut self) -> Message {
        let startup = self.receive().await;
        assert_eq!(startup.flags, 0x05);
        let answer = json!([{"com.cloud.agent.api.StartupAnswer":
            {"hostId": 0, "hostName": "", "hostUuid": "", "pingInterval": 60, "result": true}}]);
        self.send(0x24, startup.sequence, &answer).await;
        startup
    }

    /// Sends a command without waiting; returns its sequence.
    pub(crate) async fn command(&mut self, class: &str, body: &Value) -> i64 {
        self.sequence += 1;
        let json = json!([{class: body}]);
        self.send(0x27, self.sequence, &json).await;
        self.sequence
    }

    /// Sends a command and checks the header of its answer.
    pub(crate) async fn ask(&mut self, class: &str, body: &Value) -> Message {
        let sequence = self.command(class, body).await;
        let answer = self.receive().await;
        assert_eq!((answer.flags, answer.sequence), (0x06, sequence));
        assert_eq!((answer.management, answer.agent, answer.via), (NODE, self.host, self.host));
        answer
    }

    pub(crate) async fn answer_ping(&mut self, ping: &Message, body: &Value) {
        let answer = json!([{"com.cloud.agent.api.PingAnswer": body}]);
        self.send(0x22, ping.sequence, &answer).await;
    }

    /// Reads to the end of the link; what comes before is dropped.
    pub(crate) async fn end(mut self) {
        while self.try_receive().await.is_some() {}
    }
}
