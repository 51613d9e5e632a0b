//! A link together with the host it is bound to, for those who handle what comes over it.

use std::sync::{Arc, Mutex};

use crate::attachment::Attachment;
use crate::link::Link;
use crate::sync::lock;

/// One agent's connection, from the handshake to its end.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Arc<Link>,
    attachment: Mutex<Option<Arc<Attachment>>>,
}

impl Connection {
    pub(crate) fn new(link: Link) -> Connection {
        Connection { link: Arc::new(link), attachment: Mutex::new(None) }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn attachment(&self) -> Option<Arc<Attachment>> {
        lock(&self.attachment).clone()
    }

    pub(crate) fn bind(&self, attachment: Arc<Attachment>) {
        self.link.bind(attachment.host_id());
        *lock(&self.attachment) = Some(attachment);
    }
}
