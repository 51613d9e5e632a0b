//! Uploads over real HTTP, and what the server is told of them. Numbers of rows are those of the list
//! of the original agent's weaknesses that uploads must not have.

use std::time::Duration;

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::{
    DataTO, DeleteCommand, ImageFormat, PostUploadOrder, UploadStatusCommand, UploadStatusState,
};

use crate::bench::{Bench, InMemory, OnDirectory, SOON};
use crate::images::vector;
use crate::upload_client::{
    BOUNDARY, Connection, HOST, KEY, Signed, form, order, post, seal, signature, upload, volume,
};

pub const ID: &str = "5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
const OTHER: &str = "6b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";

use UploadStatusState::{Completed, Error, InProgress, Unknown};

/// Sends head and half of a form, and waits until the host has it.
pub async fn half<K: crate::bench::Kind>(
    bench: &Bench<K>,
    addr: std::net::SocketAddr,
    signed: &Signed,
) -> (Connection, Vec<u8>) {
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    let mut connection = Connection::open(addr).await;
    connection.send(post(&signed.id, &signed.headers(), body.len()).as_bytes()).await;
    let (first, rest) = body.split_at(body.len() / 2);
    connection.send(first).await;
    let uploads = bench.parts.uploads.uploads.clone();
    let id = signed.id.clone();
    // Without the head of the form, and what may be the begin of its end.
    let sent = first.len() as u64 - 1024;
    let arrived = || uploads.running(&id).filter(|upload| upload.received() > sent).map(|_| ());
    testkit::eventually("half the upload", SOON, arrived).await;
    (connection, rest.to_vec())
}

async fn eventually_told<K: crate::bench::Kind>(
    bench: &Bench<K>,
    id: &str,
    state: UploadStatusState,
) -> String {
    let over = || bench.parts.uploads.uploads.running(id).is_none().then_some(());
    testkit::eventually("the end of the upload", SOON, over).await;
    let told = bench.told(id).await;
    assert_eq!(told.0, state, "{told:?}");
    told.1
}

/// Row 33: the answer that says it is over is repeated, and survives a restart.
#[tokio::test]
async fn an_upload_is_told_from_its_begin_to_its_end_and_again() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    assert_eq!(bench.told(ID).await.0, Unknown);
    let signed = Signed::of(&order(ID, 270));
    let (mut connection, rest) = half(&bench, addr, &signed).await;
    let answer = bench.upload_status(ID).await;
    assert_eq!(answer.status, Some(InProgress));
    assert!((45..=55).contains(&answer.download_percent), "{answer:?}");
    assert_eq!(
        (answer.virtual_size, answer.physical_size),
        (0, 0),
        "a template's are counted once"
    );
    connection.send(&rest).await;
    let reply = connection.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "upload successful."));
    let answer = bench.upload_status(ID).await;
    let path = answer.install_path.clone().unwrap();
    assert_eq!((answer.status.clone(), answer.download_percent), (Some(Completed), 100));
    assert_eq!((answer.virtual_size, answer.physical_size), (1_048_576, 524_288));
    assert!(path.starts_with("template/tmpl/2/270/") && path.ends_with(".qcow2"), "{path}");
    assert!(bench.read(&path) == vector("tiny.qcow2"));
    assert_eq!(bench.upload_status(&ID.to_uppercase()).await, answer, "again");
    assert_eq!(bench.listed().await, ["270-2-3f0c9d1e-6a41-3c52-9f6b-0f4be1d0a7aa"]);
    let bench = bench.restarted().await;
    assert_eq!(bench.upload_status(ID).await, answer, "after a restart");
    let again = upload(bench.listen_for_uploads().await, &signed, "a.qcow2", b"x").await;
    assert!(again.status == 400 && again.reason().contains("already used"), "{again:?}");
}

#[tokio::test]
async fn isos_volumes_and_stores_of_another_kind() {
    let bench = Bench::<InMemory>::new().await;
    let addr = bench.upload_site().await;
    let iso = PostUploadOrder { image_format: Some(ImageFormat::Iso), ..order(ID, 271) };
    assert_eq!(upload(addr, &Signed::of(&iso), "x", &vector("tiny.iso")).await.status, 200);
    let path = bench.upload_status(ID).await.install_path.unwrap();
    assert_eq!(path, format!("template/tmpl/2/271/{ID}.iso"));
    let (mut connection, rest) = half(&bench, addr, &Signed::of(&volume(OTHER, 45))).await;
    let answer = bench.upload_status(OTHER).await;
    assert!(
        answer.physical_size > 200_000,
        "the owner's limit is watched while it comes: {answer:?}"
    );
    connection.send(&rest).await;
    assert_eq!(connection.reply().await.status, 200);
    let answer = bench.upload_status(OTHER).await;
    assert!(answer.install_path.unwrap().starts_with("volumes/2/45/"));
    assert!(bench.files().contains(&"volumes/2/45/volume.properties".to_owned()));
}

/// Row 34: whoever cannot sign changes nothing. Recorded: the original takes a wrong signature for
/// the failure of an upload that is complete.
#[tokio::test]
async fn strangers_cannot_fail_an_upload() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let signed = Signed::of(&order(ID, 270));
    let stranger = Signed { signature: signature("x", "y", "z"), ..signed.clone() };
    let nobody = Signed { signature: String::new(), ..signed.clone() };
    for wrong in [&stranger, &nobody] {
        assert_eq!(upload(addr, wrong, "a.qcow2", b"x").await.status, 400);
        assert_eq!(bench.told(ID).await.0, Unknown);
    }
    let (mut connection, rest) = half(&bench, addr, &signed).await;
    assert_eq!(upload(addr, &stranger, "a.qcow2", b"x").await.status, 400);
    assert_eq!(bench.told(ID).await.0, InProgress);
    connection.send(&rest).await;
    assert_eq!(connection.reply().await.status, 200);
    for wrong in [&stranger, &nobody, &signed] {
        assert_eq!(upload(addr, wrong, "a.qcow2", b"x").await.status, 400);
        assert_eq!(bench.told(ID).await.0, Completed);
    }
}

/// Row 30: what belongs to one upload is no other's.
#[tokio::test]
async fn uploads_side_by_side_do_not_mix_and_one_id_has_one() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let (one, two) = (Signed::of(&order(ID, 270)), Signed::of(&order(OTHER, 271)));
    let (mut first, rest) = half(&bench, addr, &one).await;
    let (mut second, other) = half(&bench, addr, &two).await;
    let twice = upload(addr, &one, "a.qcow2", b"x").await;
    assert!(twice.reason().contains("already used: its upload is under way"), "{twice:?}");
    second.send(&other).await;
    assert_eq!(second.reply().await.status, 200);
    first.send(&rest).await;
    assert_eq!(first.reply().await.status, 200);
    for (id, number) in [(ID, 270), (OTHER, 271)] {
        let path = bench.upload_status(id).await.install_path.unwrap();
        assert!(path.starts_with(&format!("template/tmpl/2/{number}/")), "{path}");
        assert!(bench.read(&path) == vector("tiny.qcow2"));
    }
    assert_eq!(bench.files().len(), 4);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_and_may_come_back_until_the_server_knows() {
    let bench = Bench::<OnDirectory>::with("max_uploads = 1").await;
    let addr = bench.upload_site().await;
    let signed = Signed::of(&order(ID, 270));
    drop(half(&bench, addr, &signed).await);
    let over = || bench.parts.uploads.uploads.running(ID).is_none().then_some(());
    testkit::eventually("the end", SOON, over).await;
    assert_eq!(bench.files(), Vec::<String>::new());
    assert!(!bench.store("template/tmpl/2/270").exists());
    assert_eq!(upload(addr, &signed, "a.qcow2", &vector("tiny.qcow2")).await.status, 200);
    assert_eq!(bench.told(ID).await.0, Completed);
    // This one is asked about in between.
    let signed = Signed::of(&order(OTHER, 271));
    drop(half(&bench, addr, &signed).await);
    let text = eventually_told(&bench, OTHER, Error).await;
    assert_eq!(text, "file receive failed or connection closed prematurely.");
    let late = upload(addr, &signed, "a.qcow2", &vector("tiny.qcow2")).await;
    assert!(late.reason().contains("the server knows that"), "{late:?}");
    assert_eq!(bench.told(OTHER).await, (Error, text), "as often as it asks");
    assert_eq!(bench.held_open(), Vec::<String>::new());
}

#[tokio::test]
async fn a_host_that_is_full_says_so_and_tells_the_server_nothing() {
    let bench = Bench::<OnDirectory>::with("max_uploads = 1").await;
    let addr = bench.upload_site().await;
    let (mut first, rest) = half(&bench, addr, &Signed::of(&order(ID, 270))).await;
    let two = Signed::of(&order(OTHER, 271));
    let busy = upload(addr, &two, "a.qcow2", b"x").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("30")));
    assert!(busy.reason().starts_with("1 uploads are under way"), "{busy:?}");
    assert_eq!(bench.told(OTHER).await.0, Unknown);
    first.send(&rest).await;
    assert_eq!(first.reply().await.status, 200);
    assert_eq!(upload(addr, &two, "a.qcow2", &vector("tiny.qcow2")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_stalls_or_trickles_is_ended() {
    let bench = Bench::<OnDirectory>::with("stall_timeout = \"200ms\"").await;
    let addr = bench.upload_site().await;
    let (mut connection, _rest) = half(&bench, addr, &Signed::of(&order(ID, 270))).await;
    let reply = connection.reply().await;
    assert_eq!(reply.status, 408, "{reply:?}");
    assert_eq!(bench.told(ID).await, (Error, reply.reason()));
    let bench =
        Bench::<OnDirectory>::with("min_rate = \"1MiB\"\nmin_rate_window = \"200ms\"").await;
    let addr = bench.upload_site().await;
    let (mut connection, rest) = half(&bench, addr, &Signed::of(&order(ID, 270))).await;
    for byte in rest.iter().take(2_000) {
        if connection.0.try_write(&[*byte]).is_err()
            || bench.parts.uploads.uploads.running(ID).is_none()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(connection.reply().await.reason().contains("min_rate"));
    assert_eq!(bench.files(), Vec::<String>::new());
}

/// Row 32: bytes are compared with bytes, whatever the server's release sends.
#[tokio::test]
async fn an_account_has_its_limit_and_what_is_under_way_counts() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let (gib, image) = (1_i64 << 30, vector("tiny.qcow2"));
    let with_limit = |id: &str, number, limit| {
        Signed::of(&PostUploadOrder { max_secondary_storage: limit, ..order(id, number) })
    };
    let signed = with_limit(ID, 270, 0);
    let refused = upload(addr, &signed, "a.qcow2", &image).await;
    assert!(
        refused.status == 400 && refused.reason().contains("0 bytes are allowed, 0 are in use"),
        "{refused:?}"
    );
    assert_eq!(bench.told(ID).await, (Error, refused.reason()));
    // What the account has already: a file of nearly a GiB, with nothing in it.
    let directory = bench.store("template/tmpl/2/9");
    std::fs::create_dir_all(&directory).unwrap();
    let size = gib - 700_000;
    let file = std::fs::File::create(directory.join("a.raw")).unwrap();
    file.set_len(u64::try_from(size).unwrap()).unwrap();
    // One fits; a second at the same time does not; both forms of the limit.
    let (mut first, rest) = half(&bench, addr, &with_limit(OTHER, 271, gib)).await;
    let third = "7b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    let refused = upload(addr, &with_limit(third, 272, 1), "a.qcow2", &image).await;
    assert!(refused.reason().contains("limit of the account would be exceeded"), "{refused:?}");
    first.send(&rest).await;
    assert_eq!(first.reply().await.status, 200);
    let unlimited = "8b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    assert_eq!(upload(addr, &with_limit(unlimited, 273, -1), "a.qcow2", &image).await.status, 200);
}

/// Row 31: the configured maximum holds, to the byte, and is told before anything is sent.
#[tokio::test]
async fn one_byte_too_many_ends_the_upload() {
    let bench = Bench::<OnDirectory>::with("size_limit = \"1MiB\"").await;
    let addr = bench.upload_site().await;
    let raw = |id: &str, number| {
        let format = Some(ImageFormat::Raw);
        Signed::of(&PostUploadOrder {
            image_format: format,
            max_upload_size: None,
            ..order(id, number)
        })
    };
    let file = vec![7_u8; (1 << 20) + 1];
    let reply = upload(addr, &raw(ID, 270), "a.raw", &file).await;
    assert!(
        reply.status == 400 && reply.reason().contains("Maximum allowed size: 1048576 bytes"),
        "{reply:?}"
    );
    assert_eq!(bench.files(), Vec::<String>::new());
    assert_eq!(upload(addr, &raw(OTHER, 271), "a.raw", &file[..1 << 20]).await.status, 200);
}

/// Rows 28 and 29: checksums of templates and compressed files are in the recorded cases; here a
/// checksum covers the file as it was sent.
#[tokio::test]
async fn the_checksum_is_of_the_file_that_was_chosen() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let packed = vector("tiny.qcow2.gz");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &packed);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let with_checksum = PostUploadOrder { checksum: Some(hex), ..order(ID, 270) };
    assert_eq!(upload(addr, &Signed::of(&with_checksum), "a.gz", &packed).await.status, 200);
    assert!(
        bench.read(&bench.upload_status(ID).await.install_path.unwrap()) == vector("tiny.qcow2")
    );
    let odd = PostUploadOrder { checksum: Some("abc".to_owned()), ..order(OTHER, 271) };
    let reply = upload(addr, &Signed::of(&odd), "a.gz", &packed).await;
    assert!(reply.reason().contains("Please provide valid checksum"), "{reply:?}");
    assert_eq!(bench.told(OTHER).await.0, Error);
}

/// Row 35: a port in the name that a client or a proxy asked for, and a name that only the client
/// knows.
#[tokio::test]
async fn names_that_proxies_change_do_not_break_the_signature() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    for (number, (host, more)) in [
        ("10.77.1.2:8443", String::new()),
        ("inner", "X-Forwarded-Host: 10.77.1.2\r\nX-Forwarded-Proto: https\r\n".to_owned()),
        ("inner:80", "X-Forwarded-Host: outer.example, 10.77.1.2:443\r\n".to_owned()),
        ("127.0.0.1", "X-Post-Url: {url}\r\n".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = uuid::Uuid::new_v4().to_string();
        let signed = Signed::of(&order(&id, 300 + number as i64));
        let more = more.replace("{url}", &format!("https://{HOST}/upload/{id}"));
        let head = post(&id, &(signed.headers() + &more), body.len());
        let head =
            head.replace(&format!("Host: {HOST}\r\nOrigin"), &format!("Host: {host}\r\nOrigin"));
        let mut connection = Connection::open(addr).await;
        connection.send(head.as_bytes()).await;
        connection.send(&body).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200, "{host} {more}: {reply:?}");
    }
    // A name that none of them is stays another.
    let signed = Signed::of(&order(ID, 270));
    let head = post(ID, &signed.headers(), 10).replace(HOST, "10.77.1.3");
    let mut connection = Connection::open(addr).await;
    connection.send(head.as_bytes()).await;
    assert!(connection.reply().await.reason().starts_with("signature validation failed."));
}

#[tokio::test]
async fn a_refused_client_sees_why_and_may_keep_its_connection() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let body = vec![b'x'; 3 << 20];
    let mut connection = Connection::open(addr).await;
    connection.send(post(ID, "", body.len()).as_bytes()).await;
    connection.send(&body).await;
    assert!(connection.reply().await.reason().starts_with("signature, metadata and expires"));
    // The same connection, with an upload that is right.
    let signed = Signed::of(&order(ID, 270));
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
    connection.send(&body).await;
    assert_eq!(connection.reply().await.status, 200);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_or_not() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let expect = "Expect: 100-continue\r\n";
    let signed = Signed::of(&order(ID, 270));
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    let mut connection = Connection::open(addr).await;
    connection.send(post(ID, &(signed.headers() + expect), body.len()).as_bytes()).await;
    assert_eq!(connection.reply().await.status, 100);
    connection.send(&body).await;
    assert_eq!(connection.reply().await.status, 200);
    // Nothing of a refused one is asked for.
    let mut connection = Connection::open(addr).await;
    connection.send(post(OTHER, expect, 1 << 40).as_bytes()).await;
    let reply = connection.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{reply:?}");
}

#[tokio::test]
async fn forms_as_they_come_and_bodies_that_are_the_file() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let image = vector("tiny.qcow2");
    // Fields around the file, the file behind them, another file that is dropped.
    let part = |head: &str, data: &[u8]| {
        [
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {head}\r\n\r\n").as_bytes(),
            data,
            b"\r\n",
        ]
        .concat()
    };
    let body = [
        part("name=\"comment\"", b"hello"),
        part("filename=\"a.qcow2\"; name=\"file\"", &image),
        part("name=\"more\"; filename=\"b\"", b"dropped"),
        format!("--{BOUNDARY}--").into_bytes(),
    ]
    .concat();
    let mut connection = Connection::open(addr).await;
    let signed = Signed::of(&order(ID, 270));
    connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
    connection.send(&body).await;
    assert_eq!(connection.reply().await.status, 200);
    // curl --data-binary with the right type.
    let signed = Signed::of(&order(OTHER, 271));
    let form_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let head = post(OTHER, &signed.headers(), image.len());
    let raw = head.replace(&form_type, "application/octet-stream");
    connection.send(raw.as_bytes()).await;
    connection.send(&image).await;
    assert_eq!(connection.reply().await.status, 200);
    // curl -d.
    let third = "7b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    let signed = Signed::of(&order(third, 272));
    let head =
        post(third, &signed.headers(), 3).replace(&form_type, "application/x-www-form-urlencoded");
    connection.send(head.as_bytes()).await;
    connection.send(b"a=b").await;
    let reply = connection.reply().await;
    assert!(reply.status == 422 && reply.reason().contains("x-www-form-urlencoded"), "{reply:?}");
    assert_eq!(bench.told(third).await.0, Error);
    // A form that is cut where its length says it ends.
    let fourth = "8b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    let signed = Signed::of(&order(fourth, 273));
    let body = form("a.qcow2", &image);
    let cut = body.len() - 10;
    connection.send(post(fourth, &signed.headers(), cut).as_bytes()).await;
    connection.send(&body[..cut]).await;
    let reply = connection.reply().await;
    assert!(reply.status == 422 && reply.reason().contains("ends in the middle"), "{reply:?}");
    assert_eq!(bench.told(fourth).await.0, Error);
}

#[tokio::test]
async fn orders_that_lead_elsewhere_are_refused_and_told() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let plain = || order(ID, 270);
    let odd: [(PostUploadOrder, &str); 8] = [
        (
            PostUploadOrder { absolute_path: Some("../../etc".to_owned()), ..plain() },
            "is not a path below a store",
        ),
        (
            PostUploadOrder { absolute_path: Some("template/tmpl".to_owned()), ..plain() },
            "is not the directory of a template",
        ),
        (
            PostUploadOrder { absolute_path: Some("volumes/2/270".to_owned()), ..plain() },
            "is not the directory of a template",
        ),
        (
            PostUploadOrder { entity_type: Some("SNAPSHOT".to_owned()), ..plain() },
            "is not something to upload",
        ),
        (PostUploadOrder { image_format: None, ..plain() }, "names no format"),
        (PostUploadOrder { name: None, ..plain() }, "names no object"),
        (PostUploadOrder { data_to: Some("not a store".into()), ..plain() }, ""),
        (PostUploadOrder { checksum: Some("{FOO}12".to_owned()), ..plain() }, "invalid algorithm"),
    ];
    for (mut order, words) in odd {
        let id = uuid::Uuid::new_v4().to_string();
        order.entity_uuid = Some(id.clone());
        let reply = upload(addr, &Signed::of(&order), "a", b"x").await;
        assert!(reply.status == 400 && reply.reason().contains(words), "{order:?}: {reply:?}");
        assert_eq!(bench.told(&id).await, (Error, reply.reason()));
    }
    for id in ["x", "..%2f..%2fetc", "5b4d3c526b1e4c2a9c0e0d8f1a7b2c33"] {
        let mut connection = Connection::open(addr).await;
        connection.send(post(id, "", 1).as_bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 400, "{id}: {reply:?}");
    }
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn the_server_may_abort_an_upload_and_a_deletion_ends_it() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let abort = |id: &str| UploadStatusCommand {
        entity_uuid: Some(id.to_owned()),
        abort: Some(true),
        ..UploadStatusCommand::default()
    };
    assert_eq!(bench.ask(&abort(ID)).await.status, Some(Unknown));
    let (mut connection, _rest) = half(&bench, addr, &Signed::of(&order(ID, 270))).await;
    let answer = bench.ask(&abort(ID)).await;
    assert_eq!((answer.status, answer.base.result), (Some(Error), false));
    assert_eq!(answer.base.details.as_deref(), Some("Upload Entity aborted"));
    assert_eq!(connection.reply().await.status, 410);
    assert_eq!(bench.told(ID).await.0, Unknown, "it is forgotten");
    assert_eq!(bench.files(), Vec::<String>::new());
    let (_connection, _rest) = half(&bench, addr, &Signed::of(&order(OTHER, 271))).await;
    let template = Bench::<OnDirectory>::template("template/tmpl/2/271", 271);
    let delete = DeleteCommand { data: Some(DataTO::from(template)), ..DeleteCommand::default() };
    let answer: PlainAnswer = bench.ask(&delete).await;
    assert!(answer.base.result, "{answer:?}");
    assert_eq!(bench.files(), Vec::<String>::new());
    assert_eq!(bench.told(OTHER).await.0, Error);
}

/// A host without a system VM's row is never sent a key: it has one of its own, or says so.
#[tokio::test]
async fn the_key_is_the_servers_or_the_configured_one() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.listen_for_uploads().await;
    let signed = Signed::of(&order(ID, 270));
    let reply = upload(addr, &signed, "a.qcow2", &vector("tiny.qcow2")).await;
    assert!(reply.status == 503 && reply.reason().contains("upload_key"), "{reply:?}");
    assert_eq!(bench.told(ID).await.0, Unknown);
    bench.upload_site().await;
    let key = std::fs::read_to_string(bench.directory.join("state/ss/upload-key.json")).unwrap();
    assert!(key.contains(KEY));
    let bench = bench.restarted().await;
    let addr = bench.listen_for_uploads().await;
    assert_eq!(upload(addr, &signed, "a.qcow2", &vector("tiny.qcow2")).await.status, 200);
}

#[tokio::test]
async fn only_pages_of_the_configured_origins_read_the_answers() {
    let bench = Bench::<OnDirectory>::with("upload_origins = [\"http://ui.example\"]").await;
    let addr = bench.upload_site().await;
    let asked = async |origin: &str| {
        let mut connection = Connection::open(addr).await;
        let head = format!(
            "OPTIONS /upload/{ID} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        );
        connection.send(head.as_bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200);
        reply.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(asked("http://ui.example").await.as_deref(), Some("http://ui.example"));
    assert_eq!(asked("http://other.example").await, None);
}

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    for (path, kind, words) in [
        ("/upload", "text/html", "<main>"),
        ("/upload/", "text/html", "/upload/page.js"),
        ("/upload/page.js", "text/javascript", "Tus-Resumable"),
        ("/upload/page.css", "text/css", "light dark"),
    ] {
        let mut connection = Connection::open(addr).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let reply = connection.reply().await;
        assert!(reply.status == 200 && reply.body.contains(words), "{path}: {reply:?}");
        assert!(reply.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn what_is_under_way_is_shown_and_counted() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let (mut connection, rest) = half(&bench, addr, &Signed::of(&order(ID, 270))).await;
    let shown = bench.parts.uploads.uploads.status();
    let text = serde_json::to_value(&shown).unwrap();
    assert_eq!(text[0]["state"], "receiving", "{text}");
    assert_eq!((&text[0]["file"], &text[0]["upload"]), (&"a.qcow2".into(), &ID.into()));
    connection.send(&rest).await;
    assert_eq!(connection.reply().await.status, 200);
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &bench.parts.metrics.registry())
        .unwrap();
    for line in [
        "quickcloud_ss_uploads_total{outcome=\"done\"} 1",
        "quickcloud_ss_uploads_active 0",
        "quickcloud_ss_upload_received_bytes_total 524288",
    ] {
        assert!(metrics.contains(line), "{line} not in {metrics}");
    }
    let bad = PostUploadOrder { name: None, ..order(OTHER, 271) };
    assert_eq!(seal(&bad), seal(&bad));
    upload(addr, &Signed::of(&bad), "a", b"x").await;
    assert_eq!(bench.parts.uploads.uploads.status().len(), 2);
}

/// A browser hides an answer without the headers from the page that asked.
#[tokio::test]
async fn a_mistyped_path_is_refused_in_words_that_a_page_can_read() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    for path in ["x", "x/", "x/y", "tus/a/b", "tus/"].map(|rest| format!("{ID}/{rest}")) {
        let mut connection = Connection::open(addr).await;
        connection.send(post(&path, "", 0).as_bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.reason().contains(&path), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
    }
    assert_eq!(bench.told(ID).await.0, Unknown);
}
