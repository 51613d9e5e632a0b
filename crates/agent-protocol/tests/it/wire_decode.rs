//! `quickcloud wire decode` on every form of input.

use agent_protocol::decode::{DecodeError, DecodedFrame, Fault, Form, Layout, frames};
use agent_protocol::frame::DEFAULT_MAX_INFLATED;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::vectors::{MESSAGES, derived, hex, recorded};

fn all(input: &[u8]) -> Vec<DecodedFrame> {
    frames(input, DEFAULT_MAX_INFLATED).map(|frame| frame.unwrap()).collect()
}

/// The good frames in front of the error, and the error.
fn until_error(input: &[u8]) -> (usize, DecodeError) {
    let mut items = frames(input, DEFAULT_MAX_INFLATED);
    let mut good = 0;
    loop {
        match items.next().expect("an error") {
            Ok(_) => good += 1,
            Err(error) => {
                assert!(items.next().is_none(), "nothing follows an error");
                return (good, error);
            }
        }
    }
}

/// Three messages; the middle one is compressed.
fn three() -> Vec<Vec<u8>> {
    let messages = derived();
    ["V08", "V29", "V06"]
        .map(|id| messages.iter().find(|message| message.id == id).unwrap().message())
        .to_vec()
}

fn assert_three(frames: &[DecodedFrame]) {
    let classes: Vec<_> = frames.iter().map(|frame| frame.envelopes[0].simple_name()).collect();
    assert_eq!(classes, ["PingStorageCommand", "Answer", "ReadyAnswer"]);
    let numbers: Vec<_> = frames.iter().map(|frame| frame.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn frames_back_to_back_are_told_apart_also_behind_a_compressed_one() {
    let messages = three();
    let decoded = all(&messages.concat());
    assert_three(&decoded);
    let offsets: Vec<_> = decoded.iter().map(|frame| frame.place.offset).collect();
    assert_eq!(offsets, [0, messages[0].len(), messages[0].len() + messages[1].len()]);
    let sizes: Vec<_> = decoded.iter().map(|frame| frame.wire_bytes).collect();
    assert_eq!(sizes, messages.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn hex_is_read_with_blanks_anywhere_and_in_either_case() {
    let text = hex(&three().concat());
    assert_three(&all(text.as_bytes()));
    let spaced: String = text
        .to_uppercase()
        .chars()
        .enumerate()
        .flat_map(|(n, c)| {
            if n % 7 == 3 {
                vec![c, ' ']
            } else if n % 64 == 0 {
                vec![c, '\n']
            } else {
                vec![c]
            }
        })
        .collect();
    assert_three(&all(spaced.as_bytes()));
}

#[test]
fn base64_is_read_in_either_alphabet_and_in_several_padded_pieces() {
    let messages = three();
    assert_three(&all(STANDARD.encode(messages.concat()).as_bytes()));
    assert_three(&all(URL_SAFE_NO_PAD.encode(messages.concat()).as_bytes()));
    let pieces: Vec<_> = messages.iter().map(|message| STANDARD.encode(message)).collect();
    assert!(pieces.iter().any(|piece| piece.ends_with('=')));
    assert_three(&all(pieces.join("\n").as_bytes()));
    let wrapped: Vec<_> = STANDARD
        .encode(messages.concat())
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    assert_three(&all((wrapped.join("\r\n") + "\r\n").as_bytes()));
}

#[test]
fn json_lines_are_read_and_lines_without_a_frame_skipped() {
    let decoded = all(MESSAGES.as_bytes());
    assert_eq!(decoded.len(), 125);
    for (frame, message) in decoded.iter().zip(recorded()) {
        let classes: Vec<_> = frame.envelopes.iter().map(|e| e.class.as_str()).collect();
        assert_eq!(serde_json::json!(classes), message.line["classes"]);
    }
    let raw = STANDARD.encode(&three()[0]);
    let lines =
        format!("{{\"ev\":\"connect\"}}\n\n{{\"x\":1,\"raw\":\"{raw}\"}}\n{{\"raw\":null}}");
    let decoded = all(lines.as_bytes());
    assert_eq!(decoded.len(), 1);
    assert_eq!((decoded[0].place.line, decoded[0].place.offset), (Some(3), 18));
}

#[test]
fn forms_are_told_apart() {
    for (input, form) in [
        (&b"\0\0\0"[..], Form::Raw),
        (b"\x01", Form::Raw),
        (b" 0000 0005\n", Form::Hex),
        (b"AAAABQ==", Form::Base64),
        (b"\n {\"raw\":\"\"}", Form::JsonLines),
        (b"[1,2]", Form::Unknown),
        (b"0x00000005!", Form::Unknown),
    ] {
        assert_eq!(Form::of(input), form, "{input:?}");
    }
}

#[test]
fn a_recording_cut_anywhere_names_the_frame_and_its_offset() {
    let messages = three();
    let whole = messages.concat();
    let ends = [messages[0].len(), messages[0].len() + messages[1].len(), whole.len()];
    for cut in 1..whole.len() {
        if ends.contains(&cut) {
            assert!(frames(&whole[..cut], DEFAULT_MAX_INFLATED).all(|frame| frame.is_ok()));
            continue;
        }
        let before = ends.iter().filter(|end| **end <= cut).count();
        let offset = if before == 0 { 0 } else { ends[before - 1] };
        let (good, error) = until_error(&whole[..cut]);
        assert_eq!((good, error.number, error.place.offset), (before, before as u64 + 1, offset));
        let text = error.to_string();
        assert_eq!(text, format!("frame {} at byte {offset} is malformed", before + 1));
    }
}

#[test]
fn faults_are_told_apart() {
    let good = three()[0].clone();
    let lengths: Vec<u8> = vec![good.len() as u8 - 40];

    let (_, error) = until_error(b"");
    assert!(matches!(error.fault, Fault::Empty), "{error:?}");
    let (_, error) = until_error(b"{\"ev\":\"end\"}\n");
    assert!(matches!(error.fault, Fault::Empty), "{error:?}");
    let (_, error) = until_error(b"hello, world");
    assert!(matches!(error.fault, Fault::Form), "{error:?}");

    let mut odd = hex(&good);
    odd.push('0');
    let (frames, error) = until_error(odd.as_bytes());
    assert!(frames == 1 && matches!(error.fault, Fault::HalfByte), "{error:?}");
    odd.truncate(odd.len() - 4);
    let (frames, error) = until_error(odd.as_bytes());
    assert!(frames == 0 && matches!(error.fault, Fault::HalfByte), "{error:?}");

    let (_, error) = until_error(b"AAAA====A");
    assert!(matches!(error.fault, Fault::Base64(_)), "{error:?}");

    let line = format!("{{\"raw\":\"{}\"}}\n", STANDARD.encode(&good));
    for (bad, offset) in
        [("{\"raw\":7}", line.len()), ("{", line.len()), ("{\"raw\":\"%\"}", line.len())]
    {
        let (frames, error) = until_error(format!("{line}{bad}\n").as_bytes());
        assert_eq!((frames, error.number), (1, 2), "{bad}");
        assert_eq!((error.place.offset, error.place.line), (offset, Some(2)), "{bad}");
        assert!(error.to_string().contains("(line 2)"));
    }

    let mut broken = good.clone();
    let last = broken.len() - 1;
    broken[last] = b'x';
    let (_, error) = until_error(&broken);
    assert!(
        matches!(error.fault, Fault::Body { at, .. } if at == usize::from(lengths[0]) - 1),
        "{error:?}"
    );
}

#[test]
fn a_frame_above_the_bound_is_an_error() {
    let mut items = frames(&MESSAGES.as_bytes()[..0], 10);
    assert!(items.next().unwrap().is_err());
    let whole = three().concat();
    let error = frames(&whole, 1000).nth(1).unwrap().unwrap_err();
    assert_eq!(error.number, 2);
}

#[test]
fn text_shows_header_flags_and_body() {
    let decoded = all(&three().concat());
    let text = decoded[0].to_text(Layout::Pretty);
    for part in [
        "frame 1 at byte 0: ",
        "flags      0x0003 request stop_on_error\n",
        "management -1\n",
        "agent      5\n",
        "\"com.cloud.agent.api.PingStorageCommand\": {\n",
        "\"hostType\": \"Storage\",\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let text = decoded[2].to_text(Layout::Compact);
    assert!(text.contains("  body       [{\"com.cloud.agent.api.ReadyAnswer\":{\"result\":true,"));
    assert!(text.ends_with("}}]\n"));
}

#[test]
fn json_is_one_object_with_the_inflated_body() {
    for (frame, message) in all(MESSAGES.as_bytes()).iter().zip(recorded()) {
        let json = frame.to_json().unwrap();
        assert!(!json.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["body"], message.line["json"]);
        assert_eq!(value["flags"], message.line["hdr"]["flags"]);
        let sequence = &message.line["hdr"]["seq"];
        let sequence = sequence.as_str().map_or_else(|| sequence.to_string(), str::to_owned);
        assert_eq!(value["sequence"], serde_json::json!(sequence));
        let unknown = message.line["classes"][0] == "com.cloud.agent.api.NoSuchCommand";
        assert_eq!(value["unknown_classes"].as_array().unwrap().len(), usize::from(unknown));
    }
}
