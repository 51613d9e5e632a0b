//! Whether a dnsmasq that runs also answers. One that was stopped, or waits for something that never
//! comes, holds its ports and serves nobody; it is ended, and started like one that died.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::Reconciler;
use crate::machine::{addresses_of, is_stopped};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(5);
/// For an answer; a reload of thousands is waited for elsewhere.
const ANSWER: Duration = Duration::from_secs(1);
/// So many questions without an answer are no bad luck.
const MISSES: u32 = 3;

/// What is known of the one that runs.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    asked: Option<Instant>,
    misses: u32,
}

impl Reconciler {
    /// Ends a dnsmasq that does not answer any more.
    pub(super) async fn look_at_life(&mut self) {
        let Some((child, _)) = &self.process else {
            self.liveness = Liveness::default();
            return;
        };
        let pid = child.pid;
        let reason = if is_stopped(pid.as_raw()) {
            "it was stopped by a signal"
        } else if self.is_mute().await {
            "it does not answer any more"
        } else {
            return;
        };
        tracing::warn!(pid = pid.as_raw(), reason, "dnsmasq is ended");
        self.liveness = Liveness::default();
        if let Some((child, _)) = &mut self.process {
            // The end is noted like any other.
            child.kill().await;
        }
    }

    /// Whether several questions went without an answer.
    async fn is_mute(&mut self) -> bool {
        let due = self.liveness.asked.is_none_or(|asked| asked.elapsed() >= EVERY);
        if !self.settings.dns || !due {
            return false;
        }
        // Without an address it listens nowhere.
        let addresses = addresses_of(&self.settings.interface).unwrap_or_default();
        let Some(address) = addresses.first().copied() else { return false };
        let answered = answers((address, 53).into()).await;
        self.liveness.asked = Some(Instant::now());
        self.liveness.misses = if answered { 0 } else { self.liveness.misses + 1 };
        self.liveness.misses >= MISSES
    }
}

/// `version.bind`, class CHAOS, type TXT: dnsmasq answers it by itself.
const QUESTION: &[u8] =
    b"\x51\x43\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03";

/// Whether a name server answers, whatever it says.
async fn answers(server: SocketAddr) -> bool {
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(server).await?;
        socket.send(QUESTION).await?;
        let mut answer = [0; 512];
        loop {
            let length = socket.recv(&mut answer).await?;
            if answer.get(..2) == QUESTION.get(..2) && length >= 12 {
                return std::io::Result::Ok(());
            }
        }
    };
    match tokio::time::timeout(ANSWER, ask).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%server, %error, "dnsmasq is asked in vain");
            false
        }
        Err(_elapsed) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_answers_lives() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let serve = async {
            let mut question = [0; 512];
            let (length, client) = server.recv_from(&mut question).await.unwrap();
            assert_eq!(&question[..length], QUESTION);
            // Somebody else's answer first.
            server.send_to(&[0; 20], client).await.unwrap();
            server.send_to(&question[..length], client).await.unwrap();
        };
        let (answered, ()) = tokio::join!(answers(address), serve);
        assert!(answered);
        drop(server);
        // Nobody listens there now, and says so at once.
        assert!(!answers(address).await);
    }
}
