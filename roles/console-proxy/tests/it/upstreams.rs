//! Links to hosts that no browser can be shown, or that lead elsewhere: refused for what they are,
//! before anything is used up.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use management_server::TokenKey;
use sha2::{Digest, Sha256};

use crate::viewer::open_at;
use crate::world::{Options, start};

const KEY: [u8; 16] = [1; 16];
const VECTOR: [u8; 16] = [2; 16];

/// A token as a server with that key makes it.
fn token(members: &str) -> String {
    let plaintext = format!(
        r#"{{"clientHostAddress":"10.0.0.5","clientHostPort":-1,"clientHostPassword":"p",
            "clientTag":"vm-1","clientDisplayName":"vm1","ticket":"t","sessionUuid":"s-1",{members}}}"#
    );
    let payload = Payload { msg: plaintext.as_bytes(), aad: &VECTOR };
    let nonce = [3; 12];
    let cipher = Aes256Gcm::new(&Sha256::digest(KEY));
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).unwrap();
    STANDARD.encode([&nonce[..], &sealed].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_of_host_that_is_not_dialled_is_refused_by_its_name() {
    let server = |config: &mut management_server::ServerConfig| {
        config.console.token_key = Some(TokenKey::of(KEY, VECTOR));
    };
    let world = start(Options { server: Box::new(server), ..Options::default() }).await;
    let check = async |members: &str, words: &str| {
        let path = format!("/websockify?token={}", token(members));
        let refused = open_at(world.addr, &path).await.err().unwrap();
        assert_eq!(refused.reason, words, "{members}");
        let (code, reason) = refused.close.unwrap();
        assert!(code == 1008 && words.starts_with(&reason), "{members}: {reason}");
    };
    // Each of them twice: what is refused for its kind is not used up.
    let nowhere = "this console link does not say where the virtual machine's screen is";
    for _ in 0..2 {
        check(
            r#""hypervHost":"10.0.0.5""#,
            "the screen of this virtual machine is on Hyper-V, which no browser can show: open 10.0.0.5 \
             with a Remote Desktop client that knows Hyper-V consoles",
        )
        .await;
        // No port, and no other way.
        check(r#""clientTunnelUrl":"https://10.0.0.5/console?uuid=x""#, nowhere).await;
        // Not a ticket of an ESXi host, but another service of another machine.
        check(r#""websocketUrl":"wss://10.0.0.5:8250/ticket/1""#, nowhere).await;
        check(r#""websocketUrl":"ws://10.0.0.5:443/ticket/1""#, nowhere).await;
    }
}
