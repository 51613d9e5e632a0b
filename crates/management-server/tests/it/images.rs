//! Images: transfers, comparison with the store, deletions, links.

use std::time::Duration;

use management_server::{
    HostState, Image, ImageError, ImageKind, ImageState, ManagementServer, NewImage, ServerConfig,
    StrayImages,
};

use crate::agent::{Agent, BASE, Received};
use crate::recorded::{Line, assert_like, conversation};
use crate::{SOON, start, with_rows};

const GUID: &str = "SecondaryStorage.1-NfsSecondaryStorageResource";
const DOWNLOAD_ANSWER: &str = "com.cloud.agent.api.storage.DownloadAnswer";

fn config() -> ServerConfig {
    let mut config = with_rows();
    config.images.poll_interval = Duration::from_millis(5);
    config
}

fn startup() -> String {
    conversation("ss-images")[0].text()
}

async fn registered(server: &ManagementServer) -> Agent {
    let mut agent = Agent::connect(server).await;
    agent.start_up(&startup()).await;
    agent.become_ready().await;
    server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    agent
}

fn plain() -> NewImage {
    NewImage {
        kind: ImageKind::Template,
        name: "g-plain".to_owned(),
        url: "http://10.77.0.2:8000/golden/tiny.qcow2".to_owned(),
        format: "QCOW2".into(),
        hvm: true,
        checksum: None,
    }
}

/// The recorded line of a class, as if its numbers were those of our record.
fn recorded(class: &str, image: &Image) -> Line {
    let mut line =
        conversation("ss-images").into_iter().find(|line| line.class() == class).unwrap();
    let id = image.id.to_string();
    let text = line.text();
    let text = text.replace("/320", &format!("/{id}")).replace("/322", &format!("/{id}"));
    line.json = serde_json::from_str(&text).unwrap();
    line
}

fn state(status: &str, percent: i32, path: &str, error: &str) -> String {
    format!(
        r#""jobId":"j1","downloadPct":{percent},"errorString":"{error}","downloadStatus":"{status}","downloadPath":"/tmp/x","installPath":"{path}","templateSize":1048576,"templatePhySicalSize":524288,"checkSum":"{{SHA-512}}3f10c26629b445750c30201c996d72b30da6560a3fae517d065d0b0c53ebcb2078041340f6b95c65b89c19c6a8c6538d21e9039c03874fb0aed794bd4aee2588""#
    )
}

/// Registers a template and takes it to the end; the image's path is `template/tmpl/2/ID/f.qcow2`.
async fn downloaded(server: &ManagementServer, agent: &mut Agent, wanted: NewImage) -> Image {
    let id = server.register_template(wanted).unwrap();
    let command = agent.receive().await;
    assert_eq!(command.class(), "DownloadCommand");
    let path = format!("template/tmpl/2/{id}/f.qcow2");
    agent.answer(&command, DOWNLOAD_ANSWER, &state("DOWNLOADED", 100, &path, "done")).await;
    let purge = agent.receive().await;
    assert_eq!(purge.body()["request"], "PURGE");
    agent.answer(&purge, DOWNLOAD_ANSWER, &state("DOWNLOADED", 100, &path, "done")).await;
    server.wait_for_image(id, SOON, |image| image.state == ImageState::Downloaded).await.unwrap()
}

#[tokio::test]
async fn a_template_is_asked_for_until_it_is_there_as_recorded() {
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let id = server.register_template(plain()).unwrap();
    let command = agent.receive().await;
    assert_like(&command, &recorded("DownloadCommand", &server.image(id).unwrap()));
    let directory = format!("template/tmpl/2/{id}");
    let progress = |percent| state("DOWNLOAD_IN_PROGRESS", percent, &directory, " ");
    agent.answer(&command, DOWNLOAD_ANSWER, &progress(2)).await;
    for percent in [31, 100] {
        let status = agent.receive().await;
        assert_eq!(status.body()["request"], "GET_STATUS");
        assert_eq!(status.body()["jobId"], "j1");
        agent.answer(&status, DOWNLOAD_ANSWER, &progress(percent)).await;
        let image = server.wait_for_image(id, SOON, |image| image.percent == percent).await;
        assert_eq!(image.unwrap().state, ImageState::InProgress);
    }
    let busy = server.delete_image(id).await;
    assert!(matches!(busy, Err(ImageError::Busy { .. })));
    let status = agent.receive().await;
    let path = format!("{directory}/f.qcow2");
    agent.answer(&status, DOWNLOAD_ANSWER, &state("DOWNLOADED", 100, &path, "done")).await;
    let purge = agent.receive().await;
    let mut expected = recorded("DownloadProgressCommand", &server.image(id).unwrap());
    expected.json[0]["org.apache.cloudstack.storage.command.DownloadProgressCommand"]["jobId"] =
        "j1".into();
    assert_like(&purge, &expected);
    let image = server.image(id).unwrap();
    assert_eq!(image.install_path.as_deref(), Some(path.as_str()));
    assert_eq!((image.size, image.physical_size), (1_048_576, 524_288));
    assert!(image.checksum.unwrap().starts_with("{SHA-512}3f10"));
}

#[tokio::test]
async fn a_failure_keeps_its_text_and_ends_the_questions() {
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let id = server.register_template(plain()).unwrap();
    let command = agent.receive().await;
    let failed = state("DOWNLOAD_ERROR", 0, "template/tmpl/2/x", "no such file");
    agent.answer(&command, DOWNLOAD_ANSWER, &failed).await;
    let image = server.wait_for_image(id, SOON, |image| image.state == ImageState::Failed).await;
    assert_eq!(image.unwrap().message, "no such file");
    // It failed before its first byte: the record goes without a word to the agent.
    server.delete_image(id).await.unwrap();
    assert_eq!(server.image(id), None);
    assert_eq!(agent.ping().await.class(), "PingAnswer");
}

#[tokio::test]
async fn a_lost_agent_fails_the_transfer_and_the_next_connect_starts_it_again() {
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let id = server.register_template(plain()).unwrap();
    assert_eq!(agent.receive().await.class(), "DownloadCommand");
    drop(agent);
    let image = server.wait_for_image(id, SOON, |image| image.state == ImageState::Failed).await;
    assert_eq!(image.unwrap().message, "Storage agent or storage VM disconnected");
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    let commands = agent.become_ready().await;
    let again = |command: &Received| command.class() == "DownloadCommand";
    let again = commands.iter().any(again) || agent.receive().await.class() == "DownloadCommand";
    assert!(again, "the list is empty, so the template is missing");
}

#[tokio::test]
async fn an_agent_that_stops_answering_fails_the_transfer() {
    let mut config = config();
    config.images.poll_timeout = Duration::from_millis(100);
    let server = start(config).await;
    let mut agent = registered(&server).await;
    let id = server.register_template(plain()).unwrap();
    agent.receive().await;
    let image = server.wait_for_image(id, SOON, |image| image.state == ImageState::Failed).await;
    assert_eq!(image.unwrap().message, "Timeout waiting for response from storage host");
}

#[tokio::test]
async fn images_registered_without_an_agent_wait_for_one() {
    let server = start(config()).await;
    let id = server.register_template(plain()).unwrap();
    assert_eq!(server.image(id).unwrap().state, ImageState::NotDownloaded);
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    let mut commands = agent.become_ready().await;
    commands.retain(|command| command.class() == "DownloadCommand");
    if commands.is_empty() {
        commands.push(agent.receive().await);
    }
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].body()["id"], id);
}

#[tokio::test]
async fn lists_in_the_connect_phase_decide_what_is_there() {
    for strays in [StrayImages::Delete, StrayImages::Keep] {
        let mut config = config();
        config.images.strays = strays;
        let server = start(config).await;
        let mut agent = registered(&server).await;
        let image = downloaded(&server, &mut agent, plain()).await;
        let mut agent = Agent::connect(&server).await;
        agent.start_up(&startup()).await;
        let list = loop {
            let command = agent.receive().await;
            if command.class() == "ListTemplateCommand" {
                break command;
            }
            agent.answer_well(&command).await;
        };
        let entry = |name: &str, id: i64| {
            format!(
                r#""{name}":{{"templateName":"{name}","installPath":"template/tmpl/9/{id}/f.qcow2","size":7,"physicalSize":8,"id":{id},"isPublic":true,"isCorrupted":false}}"#
            )
        };
        let infos = format!("{},{}", entry(&image.unique_name, image.id), entry("stray", 9001));
        let fields = format!(r#""secUrl":"{}","templateInfos":{{{infos}}}"#, crate::STORE);
        let class = "com.cloud.agent.api.storage.ListTemplateAnswer";
        agent.answer(&list, class, &fields).await;
        let next = agent.receive().await;
        if strays == StrayImages::Delete {
            assert_eq!((next.class(), next.flags), ("DeleteCommand", 0x23));
            let data = &next.body()["data"]["org.apache.cloudstack.storage.to.TemplateObjectTO"];
            assert_eq!(data["path"], "template/tmpl/9/9001/f.qcow2");
        } else {
            assert_eq!(next.class(), "ReadyCommand");
        }
        let found = server.image(image.id).unwrap();
        assert_eq!((found.state, found.size), (ImageState::Downloaded, 7));
    }
}

#[tokio::test]
async fn links_and_deletions_carry_the_object_as_recorded() {
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let image = downloaded(&server, &mut agent, plain()).await;
    let path = image.install_path.clone().unwrap();
    let object = |line: &mut Line, key: &str| {
        let body = line.json[0].as_object_mut().unwrap().values_mut().next().unwrap();
        if !key.is_empty() {
            body[key] = path.clone().into();
        }
        let data = body["data"].as_object_mut().unwrap().values_mut().next().unwrap();
        data["path"] = path.clone().into();
        data["hypervisorType"] = "KVM".into();
        data["origUrl"] = image.wanted.url.clone().into();
        data["checksum"] = image.checksum.clone().into();
        data["uniqueName"] = image.unique_name.clone().into();
        data["displayText"] = "g-plain".into();
    };

    let (server_task, id) = (server.clone(), image.id);
    let link = tokio::spawn(async move { server_task.create_link(id).await });
    let command = agent.receive().await;
    let mut expected = recorded("CreateEntityDownloadURLCommand", &image);
    object(&mut expected, "installPath");
    let body = expected.json[0].as_object_mut().unwrap().values_mut().next().unwrap();
    body["filepathInExtractURL"] = command.body()["filepathInExtractURL"].clone();
    assert_like(&command, &expected);
    let class = "com.cloud.agent.api.storage.CreateEntityDownloadURLAnswer";
    agent.answer(&command, class, r#""details":"""#).await;
    let link = link.await.unwrap().unwrap();
    let expected = format!("http://10.77.1.2/userdata/{}/g-plain.qcow2", link.directory);
    assert_eq!(link.url, expected);
    assert_eq!(server.create_link(image.id).await.unwrap(), link, "the same link again");

    let server_task = server.clone();
    let gone = tokio::spawn(async move { server_task.delete_link(id).await });
    let command = agent.receive().await;
    assert_eq!((command.class(), command.flags), ("DeleteEntityDownloadURLCommand", 0x27));
    assert_eq!(command.body()["extractUrl"], link.url);
    assert_eq!(command.body()["parentPath"], "b523f0c4-0847-33cd-bb44-f46c4da95327");
    assert_eq!(command.body()["contextMap"], serde_json::json!({}));
    agent.answer_well(&command).await;
    gone.await.unwrap().unwrap();

    let server_task = server.clone();
    let deleted = tokio::spawn(async move { server_task.delete_image(id).await });
    let command = agent.receive().await;
    let mut expected = recorded("DeleteCommand", &image);
    object(&mut expected, "");
    assert_like(&command, &expected);
    agent.answer_well(&command).await;
    deleted.await.unwrap().unwrap();
    assert_eq!(server.images(), []);
}

#[tokio::test]
async fn a_denied_deletion_keeps_the_record_and_a_digest_comes_from_the_details() {
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let image = downloaded(&server, &mut agent, plain()).await;
    let (server_task, id) = (server.clone(), image.id);
    let deleted = tokio::spawn(async move { server_task.delete_image(id).await });
    let command = agent.receive().await;
    let no = format!(
        r#"[{{"com.cloud.agent.api.Answer":{{"result":false,"details":"read-only",{BASE}}}}}]"#
    );
    agent.answer_raw(&command, &no).await;
    match deleted.await.unwrap() {
        Err(ImageError::Denied { details, .. }) => assert_eq!(details, "read-only"),
        other => panic!("{other:?}"),
    }
    assert!(server.image(id).is_some());

    let server_task = server.clone();
    let digest = tokio::spawn(async move { server_task.compute_checksum(id, "SHA-256").await });
    let command = agent.receive().await;
    assert_eq!((command.class(), command.flags), ("ComputeChecksumCommand", 0x27));
    assert_eq!(command.body()["algorithm"], "SHA-256");
    let class = "com.cloud.agent.api.Answer";
    agent.answer(&command, class, r#""details":"{SHA-256}00""#).await;
    assert_eq!(digest.await.unwrap().unwrap(), "{SHA-256}00");
}

#[tokio::test]
async fn the_size_of_stores_is_asked_for_and_a_full_store_takes_nothing() {
    let mut config = config();
    config.images.stats_interval = Some(Duration::from_millis(20));
    let server = start(config).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    let stats = loop {
        let command = agent.receive().await;
        if command.class() == "GetStorageStatsCommand" {
            break command;
        }
        agent.answer_well(&command).await;
    };
    let lines = conversation("ss-images");
    let recorded = lines.iter().find(|line| line.class() == "GetStorageStatsCommand").unwrap();
    assert_like(&stats, recorded);
    let class = "com.cloud.agent.api.GetStorageStatsAnswer";
    agent.answer(&stats, class, r#""usedBytes":950,"capacityBytes":1000"#).await;
    let usage = server.wait_for("the size", SOON, |server| server.store_usage(crate::STORE)).await;
    assert_eq!(usage.unwrap().used, 950);
    assert!(matches!(server.register_template(plain()), Err(ImageError::NoStore(_))));
}

#[tokio::test]
async fn an_upload_is_announced_and_asked_for_until_it_is_over() {
    const ANSWER: &str = "org.apache.cloudstack.storage.command.UploadStatusAnswer";
    let server = start(config()).await;
    let mut agent = registered(&server).await;
    let wanted = NewImage { url: String::new(), ..plain() };
    let (id, parameters) = server.announce_upload(wanted).unwrap();
    assert!(parameters.post_url.starts_with("https://"), "{parameters:?}");
    assert!(parameters.post_url.ends_with(&format!("/upload/{}", parameters.id)));
    assert_eq!(server.image(id).unwrap().state, ImageState::NotUploaded);
    let path = format!("template/tmpl/2/{id}/f.qcow2");
    for (status, percent, path, expected) in [
        ("UNKNOWN", 0, String::new(), ImageState::NotUploaded),
        ("IN_PROGRESS", 40, String::new(), ImageState::InProgress),
        ("COMPLETED", 100, format!(r#","installPath":"{path}""#), ImageState::Downloaded),
    ] {
        let question = agent.receive().await;
        assert_eq!(question.class(), "UploadStatusCommand");
        assert_eq!(question.body()["entityUuid"], parameters.id.as_str());
        let fields = format!(
            r#""status":"{status}","virtualSize":7,"physicalSize":5,"downloadPercent":{percent}{path}"#
        );
        agent.answer(&question, ANSWER, &fields).await;
        let is_so = |image: &Image| (image.state, image.percent) == (expected, percent);
        server.wait_for_image(id, SOON, is_so).await.unwrap();
    }
    let image = server.image(id).unwrap();
    assert_eq!((image.size, image.physical_size), (7, 5));
    assert_eq!(image.install_path, Some(path));
}
