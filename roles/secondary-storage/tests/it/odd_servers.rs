//! Web servers as they are found: heads folded, lengths twice, redirects in every form. An image is
//! there whole, or an error says why not.

use agent_protocol::storage::ImageFormat;

use crate::cases::Cases;
use crate::scripted::{head, image, whole};

fn raw_head(text: &str, body: &[u8]) -> Vec<u8> {
    [text.replace('\n', "\r\n").into_bytes(), body.to_vec()].concat()
}

#[tokio::test]
async fn heads_that_browsers_and_curl_take_are_taken() {
    let cases = Cases::new().await;
    let length = image().len();
    let many: String = (0..300).map(|n| format!("X-Amz-Meta-{n}: {n}\n")).collect();
    for (name, text) in [
        ("folded", "HTTP/1.1 200 OK\nContent-Security-Policy: default-src *;\n   script-src *\nContent-Length: SIZE\n\n".to_owned()),
        ("folded by a tab", "HTTP/1.1 200 OK\nX-A: b\n\tc\nContent-Length: SIZE\n\n".to_owned()),
        ("blank before the colon", "HTTP/1.1 200 OK\nX-Cache : HIT\nContent-Length: SIZE\n\n".to_owned()),
        ("the same in the length", "HTTP/1.1 200 OK\nContent-Length  : SIZE\n\n".to_owned()),
        ("line without a colon", "HTTP/1.1 200 OK\nnonsense\nContent-Length: SIZE\n\n".to_owned()),
        ("name with a blank", "HTTP/1.1 200 OK\nX Y: z\nContent-Length: SIZE\n\n".to_owned()),
        ("control byte in a value", "HTTP/1.1 200 OK\nX-A: \x01\nContent-Length: SIZE\n\n".to_owned()),
        ("value beyond ASCII", "HTTP/1.1 200 OK\nX-Name: größe\nContent-Length: SIZE\n\n".to_owned()),
        ("no reason", "HTTP/1.1 200\ncontent-length: SIZE\n\n".to_owned()),
        ("reason beyond ASCII", "HTTP/1.1 200 Völlig\nCONTENT-LENGTH: SIZE\n\n".to_owned()),
        ("HTTP/1.0", "HTTP/1.0 200 OK\nContent-Length: SIZE\n\n".to_owned()),
        ("length twice, the same", "HTTP/1.1 200 OK\nContent-Length: SIZE\nContent-Length: SIZE\n\n".to_owned()),
        ("interim answers", "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\nContent-Length: SIZE\n\n".to_owned()),
        ("no blank after the colon", "HTTP/1.1 200 OK\nContent-Length:SIZE\n\n".to_owned()),
        ("many", format!("HTTP/1.1 200 OK\n{many}Content-Length: SIZE\n\n")),
    ] {
        let text = text.replace("SIZE", &length.to_string());
        let requests =
            cases.installs(name, &image(), ImageFormat::Qcow2, Box::new(move |_, _| raw_head(&text, &image()))).await;
        assert_eq!(requests.len(), 1, "{name}");
    }
    cases
        .installs(
            "bare line feeds",
            &image(),
            ImageFormat::Qcow2,
            Box::new(move |_, _| {
                [format!("HTTP/1.1 200 OK\nContent-Length: {length}\n\n").into_bytes(), image()]
                    .concat()
            }),
        )
        .await;
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_errors_and_chunks_win() {
    let cases = Cases::new().await;
    let chunks = |length: usize| {
        let lines = [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let size = format!("{:x};extension=1\r\n", image().len()).into_bytes();
        [head("200 OK", &lines), size, image(), b"\r\n0\r\nTrailer: x\r\n\r\n".to_vec()].concat()
    };
    for difference in [7, 0] {
        let length = image().len() + difference;
        cases
            .installs("both", &image(), ImageFormat::Qcow2, Box::new(move |_, _| chunks(length)))
            .await;
    }
    cases
        .installs("a shorter one", &image(), ImageFormat::Qcow2, Box::new(move |_, _| chunks(5)))
        .await;
    cases
        .fails(
            "twice",
            ImageFormat::Qcow2,
            "content-length",
            Box::new(|_, _| whole(&image(), &["Content-Length: 5"])),
        )
        .await;
    cases
        .fails(
            "none",
            ImageFormat::Qcow2,
            "Failed to receive length",
            Box::new(|_, _| [head("200 OK", &[]), image()].concat()),
        )
        .await;
    cases
        .fails(
            "none in HTTP/1.0",
            ImageFormat::Qcow2,
            "Failed to receive length",
            Box::new(|_, _| [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), image()].concat()),
        )
        .await;
    cases
        .fails(
            "negative",
            ImageFormat::Qcow2,
            "content-length",
            Box::new(|_, _| [head("200 OK", &["Content-Length: -1"]), image()].concat()),
        )
        .await;
    let huge = format!("X-A: {}", "a".repeat(1 << 20));
    cases
        .fails(
            "a head without end",
            ImageFormat::Qcow2,
            "head",
            Box::new(move |_, _| whole(&image(), &[&huge])),
        )
        .await;
}

#[tokio::test]
async fn redirects_may_have_raw_letters_blanks_and_every_short_form() {
    let cases = Cases::new().await;
    for (name, location) in [
        ("UTF-8", "/images/größe-für-alle.qcow2".as_bytes().to_vec()),
        ("ISO 8859-1", b"/images/gr\xf6\xdfe.qcow2".to_vec()),
        ("blanks", b"/my images/a b.qcow2".to_vec()),
        ("relative", b"images/a.qcow2".to_vec()),
        ("relative, upwards", b"../images/a.qcow2".to_vec()),
        ("query only", b"?images=1".to_vec()),
        ("fragment", b"/images/a.qcow2#part".to_vec()),
        ("without a scheme", b"//HOST/images/a.qcow2".to_vec()),
        ("complete, with user info", b"http://u:p@HOST/images/a.qcow2".to_vec()),
    ] {
        let requests = cases
            .installs(
                name,
                &image(),
                ImageFormat::Qcow2,
                Box::new(move |nth, request| {
                    if nth > 0 {
                        return whole(&image(), &[]);
                    }
                    let host = request.split("ost: ").nth(1).unwrap().split("\r\n").next().unwrap();
                    let found = String::from_utf8_lossy(&location).contains("HOST");
                    let location = if found {
                        String::from_utf8_lossy(&location).replace("HOST", host).into_bytes()
                    } else {
                        location.clone()
                    };
                    [
                        b"HTTP/1.1 302 Found\r\nLocation: ".to_vec(),
                        location,
                        b"\r\nContent-Length: 0\r\n\r\n".to_vec(),
                    ]
                    .concat()
                }),
            )
            .await;
        assert_eq!(requests.len(), 2, "{name}");
        assert!(
            requests[1].contains("images") && !requests[1].contains("uthorization"),
            "{requests:?}"
        );
    }
    let requests = cases
        .fails(
            "to nothing",
            ImageFormat::Qcow2,
            "redirects to something that is not a URL",
            Box::new(|_, _| head("302 Found", &["Location: http://", "Content-Length: 0"])),
        )
        .await;
    assert_eq!(requests.len(), 1);
    cases
        .fails(
            "to itself",
            ImageFormat::Qcow2,
            "Circular redirect",
            Box::new(|_, _| head("302 Found", &["Location: ", "Content-Length: 0"])),
        )
        .await;
    cases
        .fails(
            "without a target",
            ImageFormat::Qcow2,
            "HTTP Server returned 302",
            Box::new(|_, _| head("302 Found", &["Content-Length: 0"])),
        )
        .await;
    // Every hop is judged, in whatever form it is written.
    cases
        .fails(
            "elsewhere",
            ImageFormat::Qcow2,
            "Illegal host",
            Box::new(|_, _| {
                head("302 Found", &["Location: //127.0.0.2/größe", "Content-Length: 0"])
            }),
        )
        .await;
}
