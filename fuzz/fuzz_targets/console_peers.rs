//! Arbitrary texts and bytes of a page, a console token and a XenServer host: no panic, and a host is
//! never anywhere but where a ticket may lead.

#![no_main]

use console_proxy::control::FromPage;
use console_proxy::dialler::reply;
use console_proxy::upstream::Ticket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(length)) = reply(bytes) {
        assert!(bytes[..length].ends_with(b"\r\n\r\n"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop(FromPage::parse(text));
    if let Some(ticket) = Ticket::parse(text) {
        assert_eq!(ticket.port, 443);
        assert!(text.starts_with("wss://") && !ticket.host.contains(['/', '@', '?', '#']));
    }
});
