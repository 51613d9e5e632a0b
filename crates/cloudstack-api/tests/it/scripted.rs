//! Calls, lists and jobs against a server that misbehaves.

use std::time::Duration;

use cloudstack_api::commands::*;
use cloudstack_api::sign::{Details, ServiceProviders};
use cloudstack_api::{CallError, Client, ClientConfig, JobError, JobWait, RefusalKind};
use uuid::Uuid;

use crate::server::{Reply, Server, closed_port, config, provider};

fn zones(count: usize, ids: &[u8]) -> String {
    let zone = |id: &u8| {
        let id = Uuid::from_u128(u128::from(*id));
        format!("<zone><id>{id}</id><name>z</name><networktype>Basic</networktype></zone>")
    };
    let zones: String = ids.iter().map(zone).collect();
    format!("<listzonesresponse><count>{count}</count>{zones}</listzonesresponse>")
}

fn ok(body: &str) -> Reply {
    Reply::Answer(200, body.to_owned())
}

fn text(error: &CallError) -> String {
    bedrock::chain(error)
}

#[tokio::test]
async fn a_read_is_a_signed_get_and_calls_share_a_connection() {
    let server = Server::start([ok(&zones(0, &[])), ok(&zones(1, &[1]))]).await;
    let mut client = server.client();
    client.call(&ListZones { name: Some("a b".to_owned()), ..ListZones::default() }).await.unwrap();
    client.call(&ListZones::default()).await.unwrap();
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.method == "GET" && seen.connection == 1), "{seen:?}");
    let expected = [
        ("command", "listZones"),
        ("name", "a b"),
        ("response", "xml"),
        ("signatureversion", "3"),
        ("expires", "1970-01-01T00:10:00+0000"),
        ("apikey", "THE-KEY"),
    ];
    for (name, value) in expected {
        assert_eq!(seen[0].parameter(name).as_deref(), Some(value), "{name}");
    }
    assert!(seen[0].target.starts_with("/client/api?") && seen[0].parameter("signature").is_some());
}

#[tokio::test]
async fn a_change_is_a_form_and_never_made_twice() {
    let zone = "<updatezoneresponse><zone><id>00000000-0000-0000-0000-000000000001</id>\
                <name>z</name><networktype>Basic</networktype></zone></updatezoneresponse>";
    let server = Server::start([ok(zone), Reply::Close]).await;
    let mut client = server.client();
    let details = Details(vec![("enable.secstorage.vm".to_owned(), "false".to_owned())]);
    let command = UpdateZone { id: Uuid::from_u128(1), details, ..UpdateZone::default() };
    assert_eq!(client.call(&command).await.unwrap().name, "z");
    let error = client.call(&command).await.unwrap_err();
    assert!(error.is_transient(), "{}", text(&error));
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/client/api"));
    assert_eq!(seen[0].parameter("details%5B0%5D.value").as_deref(), Some("false"));
}

#[tokio::test]
async fn a_connection_that_lay_idle_and_ended_is_opened_again() {
    let closes = Reply::AnswerAndClose(200, zones(0, &[]));
    let server = Server::start([closes, ok(&zones(1, &[1]))]).await;
    let mut client = server.client();
    client.call(&ListZones::default()).await.unwrap();
    assert_eq!(client.call(&ListZones::default()).await.unwrap().items.len(), 1);
    assert_eq!(server.seen().last().unwrap().connection, 2);
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_says_what_it_was() {
    let big = format!("<listzonesresponse>{}</listzonesresponse>", " ".repeat(2 << 20));
    let refused = "<listzonesresponse><errorcode>432</errorcode><errortext>no\nway</errortext>\
                   </listzonesresponse>";
    let cases = [
        (Reply::Answer(502, "<html>Bad Gateway".to_owned()), "HTTP status 502, is not one of"),
        (ok(""), "the answer is not an XML document"),
        (ok(&big), "the answer is larger than 1048576 bytes"),
        (ok("<listpodsresponse/>"), "the answer is a \"listpodsresponse\", not a"),
        (
            Reply::Head(
                "302 Found\r\nLocation: https://cloud.example/client/api?apikey=THE-KEY",
                String::new(),
            ),
            "should be made at https://cloud.example/client/api; give that as the URL",
        ),
        (Reply::Cut, "the answer broke off"),
        (Reply::Close, "listZones was interrupted"),
        (Reply::Answer(432, refused.to_owned()), "does not allow the command (432): no way"),
    ];
    for (reply, expected) in cases {
        let server = Server::start([reply]).await;
        let error = server.client().call(&ListZones::default()).await.unwrap_err();
        let text = text(&error);
        assert!(text.contains(expected), "{text:?} is not {expected:?}");
        assert!(!text.contains("THE-"), "{text}");
    }
}

/// What proxies in between make of headers.
#[tokio::test]
async fn odd_headers_are_read_as_browsers_read_them() {
    let odd = ["200 OK\r\nX-Cache: HIT\r\n from proxy", "200 OK\r\nX-Cache : HIT"];
    for head in odd {
        let server = Server::start([Reply::Head(head, zones(1, &[1]))]).await;
        let found = server.client().call(&ListZones::default()).await;
        assert_eq!(found.unwrap_or_else(|error| panic!("{head}: {}", text(&error))).items.len(), 1);
    }
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_takes_the_connection_along() {
    let server = Server::start([Reply::Silence, ok(&zones(0, &[]))]).await;
    let short = ClientConfig { timeout: Duration::from_millis(50), ..config(&[&server.url]) };
    let mut client = Client::new(short);
    let error = client.call(&ListZones::default()).await.unwrap_err();
    assert_eq!(text(&error), "listZones was not answered within 50ms");
    client.call(&ListZones::default()).await.unwrap();
    assert_eq!(server.seen().last().unwrap().connection, 2);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_down() {
    let server = Server::start([ok(&zones(0, &[]))]).await;
    let closed = closed_port().await;
    let mut client = Client::new(config(&[&closed, &server.url]));
    client.call(&ListZones::default()).await.unwrap();
    let error = Client::new(config(&[&closed])).call(&ListZones::default()).await.unwrap_err();
    assert!(text(&error).starts_with(&format!("cannot connect to {closed}/client/api: ")));
    let error = Client::new(config(&[])).call(&ListZones::default()).await.unwrap_err();
    assert_eq!(text(&error), "no URL of the CloudStack API is configured");
}

#[tokio::test]
async fn a_list_is_gathered_page_by_page() {
    let pages = [ok(&zones(5, &[1, 2])), ok(&zones(5, &[3, 4])), ok(&zones(5, &[5]))];
    let server = Server::start(pages).await;
    let listing = server.client().list(&ListZones::default()).await.unwrap();
    assert_eq!((listing.items.len(), listing.drifted), (5, false));
    let pages: Vec<_> = server.seen().iter().map(|seen| seen.parameter("page").unwrap()).collect();
    assert_eq!(pages, ["1", "2", "3"]);
    assert!(server.all_replies_given());
}

#[tokio::test]
async fn a_list_that_changes_while_it_is_read_is_told() {
    let check = async |pages: Vec<String>, expected: (usize, bool)| {
        let server = Server::start(pages.iter().map(|page| ok(page))).await;
        let listing = server.client().list(&ListZones::default()).await.unwrap();
        assert_eq!((listing.items.len(), listing.drifted), expected, "{pages:?}");
        assert!(server.all_replies_given(), "{pages:?}");
    };
    check(vec![zones(0, &[])], (0, false)).await;
    check(vec![zones(2, &[1, 2])], (2, false)).await;
    // One went: what moved up into the first page is in neither.
    check(vec![zones(3, &[1, 2]), zones(2, &[])], (2, true)).await;
    // One came.
    check(vec![zones(3, &[1, 2]), zones(4, &[3, 4])], (4, true)).await;
    // A page that is shorter than it says.
    check(vec![zones(3, &[1]), zones(3, &[])], (1, true)).await;
}

#[tokio::test]
async fn one_bad_page_fails_the_list() {
    let server = Server::start([ok(&zones(3, &[1, 2])), ok("<html/>")]).await;
    assert!(server.client().list(&ListZones::default()).await.is_err());
}

const JOB: &str = "<createphysicalnetworkresponse><id>00000000-0000-0000-0000-000000000007</id>\
                   <jobid>00000000-0000-0000-0000-000000000009</jobid></createphysicalnetworkresponse>";

fn job(status: u8, result: &str) -> Reply {
    ok(&format!(
        "<queryasyncjobresultresponse><jobstatus>{status}</jobstatus><jobresultcode>0</jobresultcode>\
         {result}<jobid>00000000-0000-0000-0000-000000000009</jobid></queryasyncjobresultresponse>"
    ))
}

fn network() -> CreatePhysicalNetwork {
    let (name, zone_id) = ("p".to_owned(), Uuid::from_u128(1));
    CreatePhysicalNetwork {
        name,
        zone_id,
        broadcast_domain_range: Some("POD".to_owned()),
        ..CreatePhysicalNetwork::default()
    }
}

const SOON: JobWait = JobWait {
    timeout: Duration::from_secs(5),
    interval: Duration::from_millis(1),
    longest_interval: Duration::from_millis(4),
};

#[tokio::test]
async fn a_job_is_waited_for_over_errors_that_pass() {
    let done = "<jobresult><physicalnetwork><id>00000000-0000-0000-0000-000000000007</id>\
                <name>p</name></physicalnetwork></jobresult>";
    let busy = Reply::Answer(503, "<html/>".to_owned());
    let server =
        Server::start([ok(JOB), job(0, ""), busy, Reply::Close, job(0, ""), job(1, done)]).await;
    let network = server.client().run(&network(), SOON).await.unwrap();
    assert_eq!((network.name.as_str(), network.id), ("p", Uuid::from_u128(7)));
    assert_eq!(server.seen().last().unwrap().parameter("command").unwrap(), "queryAsyncJobResult");
}

#[tokio::test]
async fn a_job_that_fails_says_why() {
    let nested =
        "<jobresult><errorcode>530</errorcode><errortext>no VLAN left</errortext></jobresult>";
    let plain = "<jobresult>java.lang.NullPointerException</jobresult>";
    for (result, expected) in
        [(nested, "no VLAN left"), (plain, "NullPointerException"), ("", "without a reason")]
    {
        let server = Server::start([ok(JOB), job(2, result)]).await;
        let error = server.client().run(&network(), SOON).await.unwrap_err();
        assert!(matches!(&error, JobError::Failed { .. }), "{error:?}");
        let text = bedrock::chain(&error);
        assert!(
            text.starts_with("createPhysicalNetwork failed as job") && text.contains(expected),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_job_that_does_not_end_is_left_to_the_server_and_told() {
    let replies = std::iter::once(ok(JOB)).chain((0..1000).map(|_| job(0, "")));
    let server = Server::start(replies).await;
    let wait = JobWait { timeout: Duration::from_millis(20), ..SOON };
    let error = server.client().run(&network(), wait).await.unwrap_err();
    assert!(matches!(error, JobError::StillGoing { .. }), "{error:?}");
}

#[tokio::test]
async fn keys_come_at_once_or_from_a_job() {
    let keys = "<userkeys><apikey>AK</apikey><secretkey>SK</secretkey></userkeys>";
    let at_once = ok(&format!("<registeruserkeysresponse>{keys}</registeruserkeysresponse>"));
    let server = Server::start([at_once]).await;
    let read = server.client().run(&RegisterUserKeys { id: Uuid::nil() }, SOON).await.unwrap();
    assert_eq!(read.secret_key.reveal(), "SK");
    assert!(!format!("{read:?}").contains("SK"));
    let started = JOB.replace("createphysicalnetwork", "registeruserkeys");
    let server =
        Server::start([ok(&started), job(1, &format!("<jobresult>{keys}</jobresult>"))]).await;
    let read = server.client().run(&RegisterUserKeys { id: Uuid::nil() }, SOON).await.unwrap();
    assert_eq!(read.api_key.reveal(), "AK");
}

#[tokio::test]
async fn an_offering_names_its_providers() {
    let body = "<createnetworkofferingresponse><networkoffering><id>00000000-0000-0000-0000-000000000003</id>\
                <name>o</name></networkoffering></createnetworkofferingresponse>";
    let server = Server::start([ok(body)]).await;
    let offering = CreateNetworkOffering {
        name: "o".to_owned(),
        supported_services: vec!["Dhcp".to_owned(), "Dns".to_owned()],
        service_providers: ServiceProviders(vec![("Dhcp".to_owned(), "ConfigDrive".to_owned())]),
        ..CreateNetworkOffering::default()
    };
    server.client().call(&offering).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.parameter("supportedservices").as_deref(), Some("Dhcp%2CDns"));
    let provider = seen.parameter("serviceproviderlist%5B0%5D.provider");
    assert_eq!(provider.as_deref(), Some("ConfigDrive"));
}

#[tokio::test]
async fn refusals_that_pass_are_told_from_those_that_do_not() {
    for (code, kind, transient) in [
        (401, RefusalKind::Unauthorized, false),
        (429, RefusalKind::Throttled, true),
        (431, RefusalKind::Parameter, false),
        (511, RefusalKind::SecondFactor, false),
        (530, RefusalKind::Internal, true),
        (531, RefusalKind::NotOwner, false),
    ] {
        let body = format!("<errorresponse><errorcode>{code}</errorcode></errorresponse>");
        let server = Server::start([Reply::Answer(code, body)]).await;
        let error = server.client().call(&ListZones::default()).await.unwrap_err();
        assert_eq!(error.refusal().map(|refusal| refusal.kind), Some(kind));
        assert_eq!(error.is_transient(), transient, "{code}");
    }
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key =
        rustls_pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
    let server = Server::start_with([ok(&zones(1, &[1]))], Some(acceptor)).await;
    let error = server.client().call(&ListZones::default()).await.unwrap_err();
    assert!(text(&error).contains("invalid peer certificate"), "{}", text(&error));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let trusting = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = ClientConfig { tls: std::sync::Arc::new(trusting), ..config(&[&server.url]) };
    assert_eq!(Client::new(config).call(&ListZones::default()).await.unwrap().count, 1);
}
