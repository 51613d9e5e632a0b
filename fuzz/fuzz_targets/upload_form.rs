//! HTML forms from browsers and strangers.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use secondary_storage::uploads::multipart::{Event, Form};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = input;
    let Some(Ok(mut form)) = Form::of_content_type("multipart/form-data; boundary=b") else {
        return;
    };
    let mut passed = 0;
    for piece in body.chunks(usize::from(size).max(1)) {
        form.push(Bytes::copy_from_slice(piece));
        loop {
            match form.next_event() {
                Ok(Some(Event::Data(data))) => passed += data.len(),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_wrong) => return,
            }
        }
    }
    assert!(passed <= body.len());
    drop(form.finish());
    if let Ok(text) = std::str::from_utf8(body) {
        drop(Form::of_content_type(text));
    }
});
