//! Tokens of a real server, computed vectors of both ciphers, and damaged ones.

use super::*;
use aes::cipher::BlockModeEncrypt;
use proptest::prelude::*;
use serde_json::Value;

use crate::upstream::UpstreamKind;

const KEY: &str = r#"{"base64EncodedKeyBytes":"AAECAwQFBgcICQoLDA0ODw","base64EncodedIvBytes":"EBESExQVFhcYGRobHB0eHw"}"#;

const FULL: &str = "ICEiIyQlJicoKSorlBefva5eqNPm9tf1DgFFlo47/ISjHCvgPoIFlVtu6Er6wURuvSNzBqxTjcoHBUTGtyp6OO/HGXqxT0tnXl1wL0NpdpVP9g+wpQCUpVSJm7Q+JAgK9yCr6l/I32UytV3QQ/uJmPdnlStPeg3rsfVS2YhRHObyyXCp5OT4t2ZB6jkXXwfpwmcuqwYPSEa5yIbc8zb2UPitvHsnEnFW9tg5+jq6A9ik6QA1weC5lx6GfEkx+aVtrG9dJYIJfKXSI5waQWq32mqEomJzVns125Kjh/lXQ765Hs3/YSL2fx0g3tF6KENnOefcraZARyriwTtGJ1aVlPD3cXSv13f4+PE/KiHInbA63rcKDZtSLsPIE1VMQt3HqVsBWV1zks5r52KvsjIaLwlOnlc0TALkQ8nWB4DXRg6wpx7FEc5wljj/aGppTqRDvZWog8D0xrbd6hV735jYaO8vlOIYrScCOuDSRHZOq/TqkhW3/J4WjqadGBzMGnb+9A9hspHTNfe0Ix7x0j96POKkGBpx3ZP5rUmI3ZIUuM3yigwjS4KQUryyRv6YEg==";

fn recorded() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/console-tokens.json")).unwrap()
}

fn check_matches(token: &ConsoleToken, plaintext: &Value) {
    let text = |key: &str| plaintext[key].as_str().map(str::to_owned);
    assert_eq!(Some(&token.host), text("clientHostAddress").as_ref());
    assert_eq!(i64::from(token.port), plaintext["clientHostPort"].as_i64().unwrap());
    assert_eq!(Some(token.sid.reveal()), text("clientHostPassword").as_ref());
    assert_eq!(Some(&token.vm), text("clientTag").as_ref());
    assert_eq!(Some(&token.display_name), text("clientDisplayName").as_ref());
    assert_eq!(Some(token.ticket.reveal()), text("ticket").as_ref());
    assert_eq!(token.source, text("sourceIP"));
    assert_eq!(token.session, text("sessionUuid"));
    assert_eq!(token.extra.as_ref().map(|e| e.reveal().clone()), text("extraSecurityToken"));
    assert_eq!(token.upstream, Upstream::tcp(&token.host, token.port));
    assert_eq!(token.upstream.as_ref().map(Upstream::kind), Some(UpstreamKind::Tcp));
}

#[test]
fn recorded_tokens_decrypt_to_the_recorded_plaintext_in_every_spelling() {
    let file = recorded();
    let key = TokenKey::parse(file["encryptorPassword"].as_str().unwrap()).unwrap();
    for item in file["tokens"].as_array().unwrap() {
        let token = item["token"].as_str().unwrap();
        let plaintext: Value = serde_json::from_str(item["plaintext"].as_str().unwrap()).unwrap();
        let url_safe = token.replace('+', "-").replace('/', "_");
        for spelling in
            [token, token.trim_end_matches('='), &url_safe, url_safe.trim_end_matches('=')]
        {
            check_matches(&key.open(spelling).unwrap(), &plaintext);
        }
    }
}

#[test]
fn the_computed_vector_decrypts() {
    let token = TokenKey::parse(KEY).unwrap().open(FULL).unwrap();
    assert_eq!(token.host, "192.0.2.21");
    assert_eq!(token.session.as_deref(), Some("0b9f6f0e-2f0c-4a57-8f5e-6f3d9d1c7a11"));
    assert_eq!(token.viewer_key(), "7f6e3c1a-52b0-4d0e-9a39-0c6f3b1d2e4f");
}

#[test]
fn nothing_but_the_right_token_under_the_right_key_opens() {
    let key = TokenKey::parse(KEY).unwrap();
    let other = TokenKey::parse(recorded()["encryptorPassword"].as_str().unwrap()).unwrap();
    assert_eq!(other.open(FULL).unwrap_err(), TokenError);
    let mut bytes = decode(FULL).unwrap().to_vec();
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        assert_eq!(key.open(&LENIENT.encode(&bytes)).err(), Some(TokenError), "byte {at}");
        bytes[at] ^= 1;
    }
    for cut in 0..bytes.len() {
        assert_eq!(key.open(&LENIENT.encode(&bytes[..cut])).err(), Some(TokenError), "cut {cut}");
    }
    let long = "A".repeat(TOKEN_LIMIT + 4);
    for text in ["", "*", "AAAA", "a b", "%2B", long.as_str()] {
        assert_eq!(key.open(text).err(), Some(TokenError), "{text}");
    }
    // Decrypts, but is not what a console needs.
    let empty = "ICEiIyQlJicoKSorbr9uP84EFL/o+wN3Zf1Xgg==";
    assert_eq!(key.open(empty).err(), Some(TokenError));
}

fn old_token(plaintext: &[u8]) -> String {
    let key: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let vector: [u8; 16] = std::array::from_fn(|i| u8::try_from(16 + i).unwrap());
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&key.into(), &vector.into());
    LENIENT.encode(cipher.encrypt_padded_vec::<Pkcs7>(plaintext))
}

const OLD: &[u8] =
    br#"{"clientHostAddress":"h","clientHostPort":5900,"clientHostPassword":"p","clientTag":"t"}"#;

#[test]
fn the_old_cipher_opens_until_the_first_token_of_the_new_one() {
    let key = TokenKey::parse(KEY).unwrap();
    assert_eq!(key.open(&old_token(OLD)).unwrap().host, "h");
    assert_eq!(key.open(&old_token(b"no json")).err(), Some(TokenError));
    key.open(FULL).unwrap();
    assert_eq!(key.open(&old_token(OLD)).err(), Some(TokenError));
}

#[test]
fn key_material_of_another_shape_is_refused_without_showing_it() {
    assert_eq!(TokenKey::parse("secret").unwrap_err(), KeyError::Shape);
    assert_eq!(TokenKey::parse("{}").unwrap_err(), KeyError::Shape);
    let short =
        r#"{"base64EncodedKeyBytes":"AAEC","base64EncodedIvBytes":"EBESExQVFhcYGRobHB0eHw"}"#;
    assert_eq!(TokenKey::parse(short).unwrap_err(), KeyError::Length);
    let padded = KEY.replace("DA0ODw", "DA0ODw==");
    assert_eq!(TokenKey::parse(&padded).unwrap(), TokenKey::parse(KEY).unwrap());
    assert_eq!(format!("{:?}", TokenKey::parse(KEY).unwrap()), "TokenKey(***)");
}

#[test]
fn the_upstream_and_the_viewer_key_follow_the_members() {
    let check = |members: &str, kind: UpstreamKind, key: &str| {
        let text = format!(r#"{{"clientHostAddress":"h","clientHostPort":1,{members}}}"#);
        let token = ConsoleToken::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (token.upstream.as_ref().map(Upstream::kind), token.viewer_key().as_str()),
            (Some(kind), key),
            "{members}"
        );
    };
    check(r#""clientTag":"vm","sessionUuid":"s""#, UpstreamKind::Tcp, "vm");
    check(
        r#""clientTag":"vm","sessionUuid":"s","sessionRequiresNewViewer":true"#,
        UpstreamKind::Tcp,
        "s",
    );
    check(r#""clientTag":" ","sessionUuid":"s""#, UpstreamKind::Tcp, "h:1");
    check(
        r#""clientTag":"vm","clientTunnelUrl":"https://x","clientTunnelSession":"r""#,
        UpstreamKind::Tunnel,
        "vm",
    );
    check(r#""clientTag":"vm","clientTunnelUrl":"https://x""#, UpstreamKind::Tcp, "vm");
    check(r#""clientTag":"vm","websocketUrl":"wss://x""#, UpstreamKind::WebSocket, "vm");
    check(r#""clientTag":"vm","hypervHost":"x""#, UpstreamKind::HyperV, "vm");
    for nowhere in [r#""clientHostPort":5900"#, r#""clientHostAddress":"h","clientHostPort":-1"#] {
        let token = ConsoleToken::parse(format!("{{{nowhere}}}").as_bytes()).unwrap();
        assert_eq!(token.upstream, None, "{nowhere}");
    }
    // What the dialler needs arrives whole.
    let tunnel = r#"{"clientHostAddress":"10.0.0.5","clientHostPort":-1,
        "clientTunnelUrl":"https://10.0.0.5/console?uuid=x","clientTunnelSession":"OpaqueRef:1"}"#;
    let Some(Upstream::Tunnel { url, session }) =
        ConsoleToken::parse(tunnel.as_bytes()).unwrap().upstream
    else {
        panic!("not a tunnel");
    };
    assert_eq!(url.reveal(), "https://10.0.0.5/console?uuid=x");
    assert_eq!(session.reveal(), "OpaqueRef:1");
}

#[test]
fn a_token_prints_no_secret() {
    let token = TokenKey::parse(KEY).unwrap().open(FULL).unwrap();
    let text = format!("{token:?}");
    assert!(!text.contains("S3cr3t") && !text.contains("uUI0I4ef"), "{text}");
}

proptest! {
    #[test]
    fn arbitrary_text_never_opens(text in "[A-Za-z0-9+/=_-]{0,300}") {
        prop_assert!(TokenKey::parse(KEY).unwrap().open(&text).is_err());
    }
}
