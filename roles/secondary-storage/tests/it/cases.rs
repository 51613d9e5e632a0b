//! One host for many cases of odd servers: what must be installed whole, and what must fail.

use agent_protocol::storage::{DownloadAnswer, DownloadStatus, ImageFormat};

use crate::bench::{Bench, error_of};
use crate::scripted::Scripted;

pub type Script = Box<dyn Fn(usize, &str) -> Vec<u8> + Send + Sync>;

/// One host for the cases of a test; each has a directory of its own.
pub struct Cases {
    pub bench: Bench,
    next: std::cell::Cell<i64>,
}

impl Cases {
    pub async fn new() -> Self {
        Self::on(Bench::new().await)
    }

    pub fn on(bench: Bench) -> Self {
        Self { bench, next: std::cell::Cell::new(400) }
    }

    pub async fn download(
        &self,
        server: &Scripted,
        path: &str,
        format: ImageFormat,
    ) -> DownloadAnswer {
        let id = self.next.replace(self.next.get() + 1);
        let mut command = self.bench.download("", format);
        command.install_path = Some(format!("template/tmpl/2/{id}"));
        command.id = id;
        command.name = Some(format!("{id}-2-odd"));
        command.url = Some(server.url(path).into());
        command.follow_redirects = true;
        self.bench.finish(&command).await
    }

    /// The image is installed, byte for byte. Returns the requests.
    pub async fn installs(
        &self,
        name: &str,
        expected: &[u8],
        format: ImageFormat,
        script: Script,
    ) -> Vec<String> {
        let server = Scripted::start(script).await;
        let answer = self.download(&server, "latest.img", format).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{name}: {answer:?}");
        let file = self.bench.store(answer.install_path.as_deref().unwrap());
        assert!(std::fs::read(file).unwrap() == expected, "{name}: other bytes");
        server.requests()
    }

    /// Nothing is installed and nothing stays; the text has `part`.
    pub async fn fails(
        &self,
        name: &str,
        format: ImageFormat,
        expected: &str,
        script: Script,
    ) -> Vec<String> {
        let before = self.bench.files();
        let server = Scripted::start(script).await;
        let answer = self.download(&server, "latest.img", format).await;
        assert!(error_of(&answer).contains(expected), "{name}: {answer:?}");
        assert_eq!(self.bench.files(), before, "{name}: left behind");
        server.requests()
    }
}
