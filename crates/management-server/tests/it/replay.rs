//! The player of recorded conversations, tried with an agent that answers exactly what the recorded
//! one answered, and with one that does not.

use std::time::Duration;

use management_server::replay::{
    Conversation, Difference, Replay, ReplaySettings, Report, Step, Unanswered,
};
use serde_json::Value;

use crate::agent::{Agent, Received};
use crate::authority;
use crate::recorded::{Line, conversation};

fn text(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/conversations");
    std::fs::read_to_string(format!("{folder}/{name}.jsonl")).unwrap()
}

fn settings() -> ReplaySettings {
    ReplaySettings {
        authority: Some(authority()),
        answer_timeout: Duration::from_secs(5),
        poll_interval: Duration::from_millis(1),
        ..ReplaySettings::default()
    }
}

/// Plays a conversation to an agent that makes the recorded start-up request and answers what
/// `answer` makes of each command and its recorded answer.
async fn play(
    name: &str,
    settings: ReplaySettings,
    mut answer: impl FnMut(&Received, &Line) -> Vec<String> + Send,
) -> Report {
    let recording = Conversation::parse(&text(name)).unwrap();
    let replay = Replay::listen(recording, settings).await.unwrap();
    let (address, ca) = (replay.address(), replay.ca_pem());
    let lines = conversation(name);
    let agent = async {
        let mut agent = Agent::connect_as(address, &ca, "127.0.0.2", None).await.unwrap();
        let startup = &lines[0];
        agent.host = startup.agent;
        agent.request(startup.flags, &startup.text()).await;
        while let Ok(command) = agent.next().await {
            if command.flags & 0x01 == 0 || command.seq < 0 {
                continue;
            }
            let line = lines.iter().find(|line| line.from_server && line.seq == command.seq);
            let pair = line.map_or(0, |line| line.number);
            let recorded = lines.iter().find(|line| line.pair == Some(pair));
            let fallback = lines.iter().find(|line| line.class() == "DownloadAnswer");
            for json in recorded.or(fallback).map(|line| answer(&command, line)).unwrap_or_default()
            {
                agent.answer_raw(&command, &json).await;
            }
        }
    };
    let (report, ()) = tokio::join!(replay.run(), agent);
    report.unwrap()
}

fn faithful(_: &Received, recorded: &Line) -> Vec<String> {
    vec![recorded.text()]
}

#[tokio::test]
async fn the_recorded_agent_is_clean_in_every_conversation() {
    for name in [
        "ss-images",
        "cp-consoles",
        "cp-static",
        "link-cp-without-row",
        "link-no-pings",
        "link-refused-zone",
        "link-refused-arch",
        "link-taken-over",
        "link-taking-over",
        "link-odd-requests",
        "link-silent-reconnect",
    ] {
        let report = play(name, settings(), faithful).await;
        assert!(report.is_clean(), "{name}: {report}");
        // This agent answers a download at once, where the recorded one waited three seconds.
        let expected: &[_] = if name == "ss-images" { &[(71, 72)] } else { &[] };
        assert_eq!(report.reordered, expected, "{name}");
        let commands = conversation(name);
        let commands =
            commands.iter().filter(|line| line.from_server && line.pair.is_none() && line.seq >= 0);
        assert_eq!(report.answers.len(), commands.count(), "{name}");
    }
}

#[tokio::test]
async fn a_silent_agent_is_reported() {
    let mut settings = settings();
    settings.answer_timeout = Duration::from_millis(100);
    let report = play("cp-static", settings, |_, _| Vec::new()).await;
    assert_eq!(report.answers.len(), 3);
    assert!(report.answers.iter().all(|exchange| exchange.got.is_none()));
    assert!(!report.is_clean());
}

#[tokio::test]
async fn differences_are_found_excused_and_found_stale() {
    let other = |_: &Received, recorded: &Line| {
        let text = recorded.text();
        vec![
            text.replace(r#""details":"success","#, "")
                .replace(r#""usedBytes":1"#, r#""usedBytes":2"#),
        ]
    };
    let report = play("ss-images", settings(), other).await;
    assert!(!report.is_clean());
    let shown = report.to_string();
    assert!(
        shown.contains(r#"ListTemplateAnswer.details: recorded "success", got null"#),
        "{shown}"
    );
    let mut settings = settings();
    settings.differences = vec![
        Difference::new("*.details", "we say nothing when all is well"),
        Difference::new("GetStorageStatsAnswer.usedBytes", "another disk"),
        Difference::new("ReadyAnswer.result", "never"),
    ];
    let report = play("ss-images", settings, other).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.stale.len(), 1);
    let excused = report.answers.iter().flat_map(|exchange| &exchange.excused);
    assert!(excused.count() > 3);
}

#[tokio::test]
async fn an_agents_own_values_take_the_place_of_recorded_ones() {
    let path = "e044af67-8417-3a23-acba-470f487b3c52.qcow2";
    let own = "00000000-0000-0000-0000-000000000001.qcow2";
    let mut seen = Vec::new();
    let report = play("ss-images", settings(), |command, recorded| {
        let text = recorded.text().replace(path, own);
        if command.json.to_string().contains(own) {
            seen.push(command.class().to_owned());
        }
        vec![text]
    })
    .await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(seen, ["CreateEntityDownloadURLCommand"]);
}

#[tokio::test]
async fn a_transfer_that_runs_is_asked_for_until_it_ends() {
    let mut asked = 0;
    let report = play("ss-images", settings(), |command, recorded| {
        let text = recorded.text();
        match (command.class(), command.body()["request"].as_str()) {
            ("DownloadCommand", _) => {
                vec![text.replace("DOWNLOADED", "DOWNLOAD_IN_PROGRESS")]
            }
            ("DownloadProgressCommand", Some("GET_STATUS")) => {
                asked += 1;
                let status = if asked % 3 == 0 { "DOWNLOADED" } else { "DOWNLOAD_IN_PROGRESS" };
                vec![text.replace("DOWNLOADED", status)]
            }
            _ => vec![text],
        }
    })
    .await;
    assert!(asked >= 3);
    assert!(report.broken.is_none(), "{report}");
    let statuses = report.answers.iter().filter_map(|exchange| {
        let got = exchange.got.as_ref()?;
        let body = got[0].as_object()?.values().next()?;
        body["downloadStatus"].as_str().map(str::to_owned)
    });
    assert!(statuses.into_iter().all(|status| status != "DOWNLOAD_IN_PROGRESS"));
}

#[tokio::test]
async fn header_faults_of_answers_are_reported() {
    let recording = Conversation::parse(&text("link-cp-without-row")).unwrap();
    let replay = Replay::listen(recording, settings()).await.unwrap();
    let (address, ca) = (replay.address(), replay.ca_pem());
    let startup = conversation("link-cp-without-row").swap_remove(0);
    let agent = async {
        let mut agent = Agent::connect_as(address, &ca, "127.0.0.2", None).await.unwrap();
        agent.request(startup.flags, &startup.text()).await;
        while let Ok(command) = agent.next().await {
            if command.flags & 0x01 == 1 {
                let class = "com.cloud.agent.api.ReadyAnswer";
                let json = format!(r#"[{{"{class}":{{"result":true,{}}}}}]"#, crate::agent::BASE);
                // The in-sequence flag is lost.
                agent.send(0x02, command.seq, command.mgmt, command.agent, json.as_bytes()).await;
            }
        }
    };
    let (report, ()) = tokio::join!(replay.run(), agent);
    let report = report.unwrap();
    assert_eq!(report.answers.len(), 2);
    assert!(report.answers.iter().all(|exchange| !exchange.header_faults.is_empty()));
    assert!(report.answers.iter().all(|exchange| exchange.mismatches.is_empty()));
}

#[tokio::test]
async fn the_caller_is_told_of_each_answer_before_the_next_command() {
    let recording = Conversation::parse(&text("link-taking-over")).unwrap();
    let replay = Replay::listen(recording, settings()).await.unwrap();
    let (address, ca) = (replay.address(), replay.ca_pem());
    let startup = conversation("link-taking-over").swap_remove(0);
    let agent = async {
        let mut agent = Agent::connect_as(address, &ca, "127.0.0.2", None).await.unwrap();
        agent.request(startup.flags, &startup.text()).await;
        while let Ok(command) = agent.next().await {
            if command.flags & 0x01 == 1 {
                agent.answer_well(&command).await;
            }
        }
    };
    let mut told = Vec::new();
    let run = replay.run_with(async |exchange| told.push(exchange.line));
    let (report, ()) = tokio::join!(run, agent);
    let report = report.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(told, report.order);
    assert_eq!(told.len(), 2);
    assert_eq!(report.requests[0].command, "StartupSecondaryStorageCommand");
    let recorded: &Value = report.requests[0].recorded.as_ref().unwrap();
    assert_eq!(recorded[0].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn an_agent_of_the_other_role_is_refused_as_recorded() {
    let recording = Conversation::parse(&text("link-refused-zone")).unwrap();
    let mut settings = settings();
    settings.linger = Duration::from_millis(50);
    let replay = Replay::listen(recording, settings).await.unwrap();
    let (address, ca) = (replay.address(), replay.ca_pem());
    let agent = async {
        let mut agent = Agent::connect_as(address, &ca, "127.0.0.2", None).await.unwrap();
        agent.start_up(&conversation("cp-static")[0].text()).await;
        let refusal = agent.receive().await;
        assert!(refusal.body()["_details"].as_str().unwrap().contains("incorrect data center"));
    };
    let (report, ()) = tokio::join!(replay.run(), agent);
    let report = report.unwrap();
    assert!(report.requests[0].mismatches.iter().any(|place| place.path.ends_with(".<class>")));
    assert_eq!(report.broken, None);
}

/// Plays a conversation to an agent that answers `answered` commands, then stops: with a goodbye or
/// without a word.
async fn stopped(name: &str, answered: usize, goodbye: bool) -> (Report, Vec<usize>) {
    let recording = Conversation::parse(&text(name)).unwrap();
    let replay = Replay::listen(recording, settings()).await.unwrap();
    let (address, ca) = (replay.address(), replay.ca_pem());
    let lines = conversation(name);
    let agent = async {
        let mut agent = Agent::connect_as(address, &ca, "127.0.0.2", None).await.unwrap();
        agent.host = lines[0].agent;
        agent.request(lines[0].flags, &lines[0].text()).await;
        let mut left = answered;
        while let Ok(command) = agent.next().await {
            if command.flags & 0x01 == 0 {
                continue;
            }
            if left == 0 {
                if goodbye {
                    let class = "com.cloud.agent.api.ShutdownCommand";
                    let base = crate::agent::BASE;
                    let json = format!(r#"[{{"{class}":{{"reason":"sig.kill",{base}}}}}]"#);
                    agent.request(0x07, &json).await;
                }
                return;
            }
            left -= 1;
            agent.answer_well(&command).await;
        }
    };
    let mut sent = Vec::new();
    let run = replay.run_observed(async |step: Step<'_>| match step {
        Step::Sent { line, .. } => sent.push(line),
        Step::Answered(_) => {}
    });
    let (report, ()) = tokio::join!(run, agent);
    (report.unwrap(), sent)
}

#[tokio::test]
async fn a_stop_at_any_step_tells_which_command_the_server_still_waits_for() {
    let name = "link-taking-over";
    let recording = Conversation::parse(&text(name)).unwrap();
    let commands: Vec<_> = recording.commands().map(|command| command.line).collect();
    assert_eq!(commands.len(), 2);
    for goodbye in [false, true] {
        for stop in 0..commands.len() {
            let (report, sent) = stopped(name, stop, goodbye).await;
            let expected = Unanswered { line: commands[stop], command: "ReadyCommand".to_owned() };
            assert_eq!(report.unanswered, [expected], "stop at {stop}, goodbye {goodbye}");
            assert!(report.to_string().contains("unanswered at the end"), "{report}");
            assert_eq!(sent, commands[..=stop]);
        }
    }
    let (report, sent) = stopped(name, commands.len(), false).await;
    assert_eq!((report.unanswered, sent), (vec![], commands));
}
