//! A screen to look at without a virtual machine: a real VNC server that shows a moving test
//! picture, the time and the keys typed.
//!
//! It stands in for a hypervisor's VNC display in `quickcloud dev` and in tests. Everything a
//! viewer sees travels over TCP as RFB; [`DemoScreen::keys`] tells what was typed.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests spawn"))]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rfb::{ServerSecurity, Version};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::scene::{KEYS_SHOWN, Scene, key_text};

mod encrypted;
mod font;
mod scene;
mod viewer;

/// Viewers at the same time; further ones are turned away.
const VIEWERS: usize = 256;
/// Key symbols remembered.
const KEYS_KEPT: usize = 4096;
/// How often the picture moves while somebody looks.
const TICK: Duration = Duration::from_millis(200);

/// How the screen is set up.
#[derive(Clone)]
pub struct DemoOptions {
    /// Pixels, at most 4096 in each direction.
    pub width: u16,
    pub height: u16,
    /// VNC authentication with this password (its first eight bytes); without one, none.
    pub password: Option<String>,
    /// Desktop name, also shown as the title.
    pub name: String,
    /// Highest protocol version offered.
    pub version: Version,
    /// Viewers are let in over VeNCrypt with X.509 alone, with this certificate.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl std::fmt::Debug for DemoOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoOptions")
            .field("width", &self.width)
            .field("height", &self.height)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("name", &self.name)
            .field("version", &self.version)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            width: 640,
            height: 400,
            password: None,
            name: "QuickCloud demo screen".to_owned(),
            version: Version::V8,
            tls: None,
        }
    }
}

/// A demo screen. Cloneable; clones share the picture and the keys.
#[derive(Debug, Clone)]
pub struct DemoScreen {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    password: Option<Zeroizing<String>>,
    version: Version,
    tls: Option<TlsAcceptor>,
    scene: watch::Sender<Scene>,
    keys: Mutex<VecDeque<u32>>,
    viewers: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("viewers", &self.viewers).finish_non_exhaustive()
    }
}

impl DemoScreen {
    pub fn new(options: DemoOptions) -> Self {
        let scene = Scene {
            width: options.width.clamp(1, 4096),
            height: options.height.clamp(1, 4096),
            step: 0,
            title: options.name,
            clock: clock(),
            keys: String::new(),
        };
        Self {
            shared: Arc::new(Shared {
                password: options.password.map(Zeroizing::new),
                version: options.version,
                tls: options.tls.map(TlsAcceptor::from),
                scene: watch::Sender::new(scene),
                keys: Mutex::default(),
                viewers: AtomicUsize::new(0),
            }),
        }
    }

    /// Serves viewers until `stop` fires; every connection has ended when this returns.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let viewers = TaskTracker::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.view(&viewers, stream, peer, stop.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a viewer");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                // Nobody looks, nothing moves.
                _ = tick.tick(), if self.viewers() > 0 => self.shared.scene.send_modify(|scene| {
                    scene.step = scene.step.wrapping_add(1);
                    scene.clock = clock();
                }),
            }
        }
        viewers.close();
        viewers.wait().await;
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns; serve() joins")]
    fn view(
        &self,
        viewers: &TaskTracker,
        stream: TcpStream,
        peer: std::net::SocketAddr,
        stop: CancellationToken,
    ) {
        if self.viewers() >= VIEWERS {
            tracing::warn!(%peer, "viewer turned away, too many are connected");
            return;
        }
        let guard = ViewerGuard::enter(&self.shared);
        tokio::spawn(viewers.track_future(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = viewer::serve(stream, &guard.0) => match outcome {
                    Ok(()) => tracing::debug!(%peer, "viewer left"),
                    Err(error) => tracing::debug!(%peer, %error, "viewer dropped"),
                },
            }
        }));
    }

    /// Key symbols typed so far, by all viewers, oldest first; the last 4096.
    pub fn keys(&self) -> Vec<u32> {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// The printable keys typed so far as a text, others as `<name>`.
    pub fn typed_text(&self) -> String {
        self.keys().into_iter().map(key_text).collect()
    }

    /// Viewers connected now.
    pub fn viewers(&self) -> usize {
        self.shared.viewers.load(Ordering::Relaxed)
    }
}

/// Counts a viewer as long as it lives.
struct ViewerGuard(Arc<Shared>);

impl ViewerGuard {
    fn enter(shared: &Arc<Shared>) -> Self {
        shared.viewers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn security(&self) -> (ServerSecurity, Version) {
        let security = match &self.password {
            None => ServerSecurity::None,
            Some(password) => ServerSecurity::VncAuth {
                password: password.clone(),
                challenge: uuid::Uuid::new_v4().into_bytes(),
            },
        };
        (security, self.version)
    }

    /// Notes a key and shows it at once.
    fn typed(&self, keysym: u32) {
        let shown = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.len() == KEYS_KEPT {
                keys.pop_front();
            }
            keys.push_back(keysym);
            let start = keys.len().saturating_sub(KEYS_SHOWN);
            keys.iter().skip(start).map(|key| key_text(*key)).collect::<String>()
        };
        let excess = shown.chars().count().saturating_sub(KEYS_SHOWN);
        let shown: String = shown.chars().skip(excess).collect();
        self.scene.send_modify(|scene| scene.keys = shown);
    }
}

/// The time of day in UTC, to the second.
fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S UTC").to_string()
}
