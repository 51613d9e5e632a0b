//! A bucket that follows the protocol as far as it is used here, and misbehaves on request: every
//! signature and body is checked, pages are short, connections end in the middle.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use agent_protocol::storage::{DataStoreTO, S3TO};
use bedrock::Secret;
use percent_encoding::percent_decode_str;
use secondary_storage::stores::s3::sign::{Request, Signer, sha256};
use secondary_storage::stores::s3::tag::{hex, md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const BUCKET: &str = "secondary";
const SECRET: &str = "s3-secret-of-the-test";
/// Keys of a page, so that a few objects make several.
const PAGE: usize = 3;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 with this code.
    Refused(&'static str),
    /// The connection ends without an answer.
    Reset,
    /// Half of the body, then the connection ends.
    Cut,
    /// No answer, ever.
    Stalled,
    /// A success that says in its body that it is none.
    LateError,
    /// The body arrives with another first byte: what is kept is not what was sent.
    Damaged,
}

#[derive(Default)]
struct State {
    /// With their tags.
    objects: BTreeMap<String, (String, Vec<u8>)>,
    /// By the name of the upload: its key and parts.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    /// Beginning of the request line, how often still, what happens.
    faults: VecDeque<(String, usize, Fault)>,
    begun: usize,
}

#[derive(Clone)]
pub struct S3Server {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
    stalled: Arc<tokio::sync::Notify>,
}

impl S3Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Self { addr, state: Arc::default(), stalled: Arc::default() };
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = accepting.clone();
                // A client that goes away half way is part of the tests.
                tokio::spawn(async move { drop(server.talk(stream).await) });
            }
        });
        server
    }

    pub fn to(&self) -> DataStoreTO {
        DataStoreTO::from(self.s3())
    }

    pub fn s3(&self) -> S3TO {
        S3TO {
            id: Some(1),
            access_key: Some("AKIATESTTESTTEST".into()),
            secret_key: Some(SECRET.into()),
            end_point: Some(self.addr.to_string().into()),
            bucket_name: Some(BUCKET.to_owned()),
            https_flag: Some(false),
            connection_timeout: Some(5_000),
            socket_timeout: Some(300),
            max_error_retry: Some(3),
            ..S3TO::default()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn put(&self, key: &str, content: &[u8]) {
        self.state().objects.insert(key.to_owned(), (tag_of(content), content.to_vec()));
    }

    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.state().objects.get(key).map(|(_, content)| content.clone())
    }

    pub fn remove(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// Whoever waits for an answer, or is the next to, gets none.
    pub fn let_go(&self) {
        self.stalled.notify_one();
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// An upload of a process that died long ago.
    pub fn begin(&self, key: &str) {
        let upload = format!("of-{key}");
        self.state().uploads.insert(upload, (key.to_owned(), BTreeMap::new()));
    }

    /// Uploads that nobody ended.
    pub fn unfinished(&self) -> usize {
        self.state().uploads.len()
    }

    /// Requests whose line begins so fail so many times.
    pub fn fail(&self, line: &str, times: usize, fault: Fault) {
        self.state().faults.push_back((line.to_owned(), times, fault));
    }

    fn fault(&self, line: &str) -> Option<Fault> {
        let mut state = self.state();
        let fault = state
            .faults
            .iter_mut()
            .find(|(begin, left, _)| *left > 0 && line.contains(begin.as_str()))?;
        fault.1 -= 1;
        Some(fault.2)
    }

    async fn talk(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await? == 0 {
                    return Ok(());
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let line = head.lines().next().unwrap().to_owned();
            let fault = self.fault(&line);
            match fault {
                Some(Fault::Reset) => return Ok(()),
                Some(Fault::Stalled) => {
                    self.stalled.notified().await;
                    return Ok(());
                }
                Some(Fault::Refused(code)) => {
                    let text =
                        format!("<Error><Code>{code}</Code><Message>later</Message></Error>");
                    stream.write_all(&answer("503 Slow Down", "", text.as_bytes())).await?;
                    continue;
                }
                Some(Fault::LateError) => {
                    let text = "<Error><Code>InternalError</Code><Message>late</Message></Error>";
                    stream.write_all(&answer("200 OK", "", text.as_bytes())).await?;
                    continue;
                }
                Some(Fault::Cut | Fault::Damaged) | None => {}
            }
            let is_head = line.starts_with("HEAD");
            let mut bytes = self.handle(&head, &line, body, fault == Some(Fault::Damaged));
            if is_head {
                let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
                bytes.truncate(end + 4);
            }
            if fault == Some(Fault::Cut) {
                bytes.truncate(bytes.len() / 2);
                return stream.write_all(&bytes).await;
            }
            stream.write_all(&bytes).await?;
        }
    }

    fn handle(&self, head: &str, line: &str, mut body: Vec<u8>, is_damaged: bool) -> Vec<u8> {
        if let Err(what) = check(head, line, &body) {
            let text = format!("<Error><Code>{what}</Code><Message>m</Message></Error>");
            return answer("403 Forbidden", "", text.as_bytes());
        }
        if let Some(first) = body.first_mut().filter(|_first| is_damaged) {
            *first ^= 1;
        }
        let mut parts = line.split(' ');
        let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (decode(key), decode(value)))
            .collect();
        let prefix = format!("/{BUCKET}");
        let key = decode(path.strip_prefix(&prefix).unwrap().trim_start_matches('/'));
        let mut state = self.state();
        let upload = query.get("uploadId").cloned();
        match (method, upload) {
            ("GET", None) if query.contains_key("list-type") => page(&state, &query),
            ("GET", None) if query.contains_key("uploads") => begun(&state, &query["prefix"]),
            ("GET" | "HEAD", None) => match state.objects.get(&key) {
                Some((tag, object)) => object_answer(head, tag, object),
                None => answer("404 Not Found", "", b""),
            },
            ("PUT", None) => {
                let tag = tag_of(&body);
                state.objects.insert(key, (tag.clone(), body));
                answer("200 OK", &format!("ETag: {tag}\r\n"), b"")
            }
            ("DELETE", None) => {
                state.objects.remove(&key);
                answer("204 No Content", "", b"")
            }
            ("POST", None) => {
                state.begun += 1;
                let upload = format!("u{}", state.begun);
                state.uploads.insert(upload.clone(), (key, BTreeMap::new()));
                xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("PUT", Some(upload)) => {
                let tag = format!("ETag: {}\r\n", tag_of(&body));
                let Some((_, parts)) = state.uploads.get_mut(&upload) else {
                    return answer("404 Not Found", "", b"");
                };
                parts.insert(query["partNumber"].parse().unwrap(), body);
                answer("200 OK", &tag, b"")
            }
            ("POST", Some(upload)) => complete(&mut state, &upload, body, is_damaged),
            ("DELETE", Some(upload)) => {
                state.uploads.remove(&upload);
                answer("204 No Content", "", b"")
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Makes the object of the parts that a request names.
fn complete(state: &mut State, upload: &str, body: Vec<u8>, is_damaged: bool) -> Vec<u8> {
    let Some((key, parts)) = state.uploads.get(upload).cloned() else {
        return answer("404 Not Found", "", b"");
    };
    let text = String::from_utf8(body).unwrap();
    for (number, part) in &parts {
        let wanted = format!("<PartNumber>{number}</PartNumber><ETag>{}</ETag>", tag_of(part));
        assert!(text.contains(&wanted), "{wanted} in {text}");
    }
    assert_eq!(text.matches("<Part>").count(), parts.len());
    state.uploads.remove(upload);
    let sums: Vec<u8> = parts.values().flat_map(|part| md5(part)).collect();
    let tag = format!("\"{}-{}\"", hex(md5(&sums)), parts.len());
    let mut object: Vec<u8> = parts.into_values().flatten().collect();
    let tag = if is_damaged {
        // Of other parts.
        object[0] ^= 1;
        tag.replace(|c: char| c.is_ascii_hexdigit() && c != '2', "0")
    } else {
        tag
    };
    state.objects.insert(key, (tag, object));
    xml("<CompleteMultipartUploadResult/>")
}

/// The uploads below a prefix that nobody has ended.
fn begun(state: &State, prefix: &str) -> Vec<u8> {
    let uploads = state.uploads.iter().filter(|(_, (key, _))| key.starts_with(prefix));
    let begun = uploads.map(|(upload, (key, _))| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>{upload}</UploadId>\
             <Initiated>2020-01-01T00:00:00.000Z</Initiated></Upload>"
        )
    });
    let begun: String = begun.collect();
    xml(&format!("<ListMultipartUploadsResult>{begun}</ListMultipartUploadsResult>"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The signature is the one of what came, and the body is what was signed.
fn check(head: &str, line: &str, body: &[u8]) -> Result<(), &'static str> {
    let payload = header(head, "x-amz-content-sha256").ok_or("Missing")?;
    if payload != sha256(body) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let given = header(head, "authorization").ok_or("Missing")?;
    let names = given.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
    let headers: Vec<(&str, String)> =
        names.split(';').map(|name| (name, header(head, name).unwrap().to_owned())).collect();
    let mut parts = line.split(' ');
    let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let secret = Secret::from(SECRET);
    let signer = Signer {
        access_key: "AKIATESTTESTTEST",
        secret_key: &secret,
        region: "us-east-1",
        date: header(head, "x-amz-date").unwrap(),
    };
    let expected = signer.sign(&Request { method, path, query, headers: &headers, payload });
    if given == expected { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body.to_vec()].concat()
}

fn xml(text: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/xml\r\n", text.as_bytes())
}

fn tag_of(object: &[u8]) -> String {
    format!("\"{}\"", hex(md5(object)))
}

fn object_answer(head: &str, tag: &str, object: &[u8]) -> Vec<u8> {
    if header(head, "if-match").is_some_and(|wanted| wanted != tag) {
        return answer("412 Precondition Failed", "", b"");
    }
    let more = format!("ETag: {tag}\r\nLast-Modified: Sat, 28 Nov 2026 08:00:00 GMT\r\n");
    let Some(range) = header(head, "range") else { return answer("200 OK", &more, object) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    answer("206 Partial Content", &more, &object[first..=last.min(object.len() - 1)])
}

fn page(state: &State, query: &BTreeMap<String, String>) -> Vec<u8> {
    let (prefix, from) = (&query["prefix"], query.get("continuation-token"));
    let most: usize = query["max-keys"].parse().unwrap();
    let mut prefixes: Vec<String> = Vec::new();
    let (mut contents, mut count, mut next) = (String::new(), 0, None);
    for (key, (_, object)) in
        state.objects.iter().filter(|(key, _)| key.starts_with(prefix.as_str()))
    {
        if from.is_some_and(|from| key <= from) {
            continue;
        }
        if count >= most.min(PAGE) {
            next = Some(());
            break;
        }
        let rest = &key[prefix.len()..];
        match query.get("delimiter").and_then(|delimiter| rest.find(delimiter.as_str())) {
            Some(at) => {
                let found = key[..=prefix.len() + at].to_owned();
                if !prefixes.contains(&found) {
                    prefixes.push(found);
                }
            }
            None => {
                contents += &format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size>\
                    <LastModified>2026-11-28T08:00:00.000Z</LastModified></Contents>",
                    object.len()
                );
            }
        }
        count += 1;
    }
    let prefixes: String = prefixes
        .iter()
        .map(|prefix| format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"))
        .collect();
    let all = state.objects.keys().filter(|key| key.starts_with(prefix.as_str()));
    let last = all.filter(|key| from.is_none_or(|from| *key > from)).nth(count.saturating_sub(1));
    let next = match (next, last) {
        (Some(()), Some(last)) => format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        ),
        _ => "<IsTruncated>false</IsTruncated>".to_owned(),
    };
    xml(&format!("<ListBucketResult>{contents}{prefixes}{next}</ListBucketResult>"))
}
