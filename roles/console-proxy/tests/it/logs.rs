//! What the log says of consoles: whose role it was, and which virtual machine.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use http_front::{HttpFront, Site, Transport, TrustedProxies};
use management_server::ConsoleLink;
use role::TaskScope;
use tracing::Instrument;

use crate::viewer::{open_at, raw_path};
use crate::world::{LOCAL, Options, start, vm};

/// Virtual machines and a client that no other test has.
const SEEN: usize = 7001;
const UNREACHABLE: usize = 7002;
const CLIENT: &str = "203.0.113.77";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The one line with these words.
    fn line(&self, words: &[&str]) -> String {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        let line = lines.next().unwrap_or_else(|| panic!("{words:?} in {text}"));
        assert_eq!(lines.next(), None, "{words:?}");
        line.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_console_names_its_role_and_its_virtual_machine() {
    let log = Log::default();
    let written = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone());
    // The process's: one of a thread alone misses lines that other tests wrote first. Theirs are in
    // this log too; what is looked at here is told apart by its virtual machine or client.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    // The storage role binds the port first.
    let front = HttpFront::new(TaskScope::new());
    let site = Site {
        owner: "ss",
        addr: SocketAddr::new(LOCAL, 0),
        prefixes: &["/userdata/"],
        router: Router::new(),
        tasks: TaskScope::new(),
        trusted_proxies: TrustedProxies::default(),
        transport: Transport::default(),
    };
    let storage = front.register(site).instrument(tracing::error_span!("role", role = "ss"));
    let storage = storage.await.unwrap();
    let shared = Some((front, storage.local_addr()));
    let role = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
    let world = start(Options { role, shared, ..Options::default() }).await;
    assert_eq!(world.addr, storage.local_addr());

    world.server.put_vm(vm(SEEN, world.screen_addr));
    let (link, viewer) = world.console(SEEN).await;
    assert!(open_at(world.addr, &raw_path(&link, None)).await.is_err());
    drop(viewer);
    world.closed_in_books(&link).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.server.put_vm(vm(UNREACHABLE, closed));
    let unreachable = world.link(UNREACHABLE).await;
    assert!(world.open_link(&unreachable).await.is_err());
    let broken = ConsoleLink { token: "broken".into(), ..link.clone() };
    assert!(world.open_behind(&broken, &[("X-Forwarded-For", CLIENT)]).await.is_err());

    for (number, words) in [
        (SEEN, "console opened"),
        (SEEN, "console closed"),
        (SEEN, "console refused reason=\"replay\""),
        (UNREACHABLE, "console refused reason=\"screen\""),
    ] {
        let vm = vm(number, world.screen_addr);
        let line = log.line(&[words, &vm.uuid]);
        for field in [format!("vm=\"{}\"", vm.uuid), format!("name=\"{}\"", vm.name)] {
            assert!(line.contains(&field), "{field} in {line}");
        }
        assert!(line.contains("role=\"cp\"") && !line.contains("role=\"ss\""), "{line}");
    }
    let refused = log.line(&["reason=\"screen\"", &vm(UNREACHABLE, closed).uuid]);
    let place = format!("vnc_server={closed}");
    assert!(
        refused.contains(&place) && refused.contains("cause=\"connection refused"),
        "{refused}"
    );
    let broken = log.line(&["console refused reason=\"token\"", CLIENT]);
    assert!(broken.contains("role=\"cp\"") && !broken.contains("vm="), "{broken}");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("vncpassw") && !text.contains(&link.token), "a secret is in the log");
}
