//! Config drives: written, replaced, deleted as often as the server asks, and never half there.

use std::os::unix::fs::MetadataExt;

use agent_protocol::Envelope;
use agent_protocol::storage::{
    ConfigDriveLocation, DataStoreTO, HandleConfigDriveIsoAnswer, HandleConfigDriveIsoCommand, S3TO,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::bench::{Bench, InMemory, Kind, OnDirectory, OnNfs, SOON, store_to};

const PATH: &str = "configdrive/i-2-12-VM.iso";
const FORMER: &str = "configdrive/.quickcloud-former-i-2-12-VM.iso";

fn write(image: &[u8]) -> HandleConfigDriveIsoCommand {
    HandleConfigDriveIsoCommand {
        iso_data: Some(BASE64_STANDARD.encode(image).into()),
        iso_file: Some(PATH.to_owned()),
        create: true,
        dest_store: Some(store_to()),
        use_host_cache_on_unsupported_pool: true,
        ..HandleConfigDriveIsoCommand::default()
    }
}

fn delete() -> HandleConfigDriveIsoCommand {
    HandleConfigDriveIsoCommand { iso_data: None, create: false, ..write(b"") }
}

fn image(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 1000) as u8 ^ seed).collect()
}

fn check(answer: &HandleConfigDriveIsoAnswer, details: Option<&str>) {
    assert!(answer.base.result, "{:?}", answer.base.details);
    assert_eq!(answer.location, Some(ConfigDriveLocation::Secondary));
    assert_eq!(answer.base.details.as_deref(), details);
}

const SAVED: Option<&str> = Some("Successfully saved config drive at secondary storage");

async fn lifetime<K: Kind>() {
    let bench = Bench::<K>::new().await;
    check(&bench.ask(&delete()).await, None);
    for seed in 0..3 {
        let image = image(411_648, seed);
        check(&bench.ask(&write(&image)).await, SAVED);
        assert!(bench.read(PATH) == image, "round {seed}");
    }
    for _time in 0..3 {
        check(&bench.ask(&delete()).await, None);
        assert_eq!(bench.files(), Vec::<String>::new());
    }
    check(&bench.ask(&write(b"again")).await, SAVED);
    assert_eq!(bench.read(PATH), b"again");
}

#[tokio::test]
async fn a_drive_is_written_replaced_and_deleted_three_times_on_every_kind_of_store() {
    lifetime::<OnDirectory>().await;
    lifetime::<OnNfs>().await;
    lifetime::<InMemory>().await;
}

#[tokio::test]
async fn the_largest_drives_are_taken() {
    let bench: Bench = Bench::new().await;
    for length in [4 << 20, 64 << 20] {
        let image = image(length, 7);
        check(&bench.ask(&write(&image)).await, SAVED);
        assert!(bench.read(PATH) == image, "{length}");
    }
}

#[tokio::test]
async fn a_machine_that_runs_keeps_the_drive_it_has_open() {
    let bench: Bench = Bench::new().await;
    bench.ask(&write(b"first")).await;
    let open = std::fs::File::open(bench.store(PATH)).unwrap();
    bench.ask(&write(b"second")).await;
    assert_eq!(bench.read(PATH), b"second");
    assert_eq!(bench.read(FORMER), b"first");
    assert_eq!(open.metadata().unwrap().nlink(), 1, "on NFS it would be gone without a name");
    bench.ask(&write(b"third")).await;
    assert_eq!(bench.read(FORMER), b"second");
    bench.ask(&delete()).await;
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_drive_leaves_the_one_that_is_there() {
    let bench: Bench = Bench::new().await;
    check(&bench.ask(&write(b"good")).await, SAVED);
    let refused = async |command: HandleConfigDriveIsoCommand| {
        let answer = bench.raw(Envelope::of(&command)).await;
        let answer: HandleConfigDriveIsoAnswer = answer.open().unwrap();
        assert!(!answer.base.result);
        assert_eq!(answer.location, Some(ConfigDriveLocation::Secondary), "the server reads it");
        answer.base.details.unwrap()
    };
    let invalid = "Invalid config drive ISO data";
    let none = HandleConfigDriveIsoCommand { iso_data: None, ..write(b"") };
    assert_eq!(refused(none).await, invalid);
    assert_eq!(refused(write(b"")).await, invalid);
    let bad = HandleConfigDriveIsoCommand { iso_data: Some("QUJD!".into()), ..write(b"") };
    assert!(refused(bad).await.starts_with(invalid));
    for path in ["", "configdrive/../x.iso", "template/tmpl/1/3/x.iso", "/etc/x.iso"] {
        let command =
            HandleConfigDriveIsoCommand { iso_file: Some(path.to_owned()), ..write(b"bad") };
        refused(command).await;
        let command = HandleConfigDriveIsoCommand { iso_file: Some(path.to_owned()), ..delete() };
        refused(command).await;
    }
    let s3 = HandleConfigDriveIsoCommand {
        dest_store: Some(DataStoreTO::from(S3TO::default())),
        ..write(b"bad")
    };
    refused(s3).await;
    assert_eq!(bench.files(), [PATH]);
    assert_eq!(bench.read(PATH), b"good");
}

/// Each step of a write, and what may be there when the process dies in it.
#[tokio::test]
async fn a_host_that_dies_at_any_step_leaves_the_old_drive_or_the_new_one() {
    for step in ["create", "write", "finish", "rename"] {
        let bench = Bench::<InMemory>::new().await;
        bench.ask(&write(b"old")).await;
        let memory = bench.memory.clone().unwrap();
        memory.hang(step);
        let envelope = Envelope::of(&write(b"new"));
        let stuck = testkit::eventually("at the step", SOON, || (memory.stuck() > 0).then_some(()));
        tokio::select! {
            answer = bench.raw(envelope) => panic!("{step}: {answer:?}"),
            () = stuck => {}
        }
        let bench = bench.restarted_after(|| memory.die()).await;
        assert_eq!(bench.read(PATH), b"old", "{step}");
        bench.parts.moves.recover(bench.cx.shutdown.clone()).await;
        assert_eq!(bench.files(), [PATH], "{step}");
        let notes = std::fs::read_dir(bench.directory.join("state/ss/moves"));
        assert_eq!(notes.map_or(0, Iterator::count), 0, "{step}: the note is erased");
        check(&bench.ask(&write(b"new")).await, SAVED);
        assert_eq!(bench.read(PATH), b"new");
    }
}

#[tokio::test]
async fn a_store_that_fails_half_way_says_so_and_keeps_the_old_drive() {
    let bench = Bench::<InMemory>::new().await;
    bench.ask(&write(b"old")).await;
    for step in ["create", "write", "finish", "rename"] {
        bench.memory.as_ref().unwrap().fail(step, 1);
        let answer = bench.ask(&write(b"new")).await;
        assert!(answer.base.details.unwrap().contains(&format!("{step} fails")));
        assert_eq!(bench.files(), [PATH], "{step}");
        assert_eq!(bench.read(PATH), b"old", "{step}");
    }
}

#[tokio::test]
async fn a_later_command_for_the_same_drive_ends_the_one_before() {
    let bench = Bench::<InMemory>::new().await;
    let memory = bench.memory.clone().unwrap();
    memory.hang("finish");
    let first = write(b"first");
    let second = async {
        testkit::eventually("at the step", SOON, || (memory.stuck() > 0).then_some(())).await;
        let second = async { bench.ask(&write(b"second")).await };
        let release = async {
            // The second waits for the first to let go of the store.
            tokio::task::yield_now().await;
            memory.release();
        };
        tokio::join!(second, release).0
    };
    let (first, second) = tokio::join!(bench.ask(&first), second);
    assert!(!first.base.result);
    check(&second, SAVED);
    assert_eq!(bench.read(PATH), b"second");
}

#[tokio::test]
async fn the_recorded_commands_get_the_recorded_answers() {
    let bench: Bench = Bench::new().await;
    let recorded = include_str!("../../../../crates/agent-protocol/tests/vectors/messages.jsonl");
    let messages: Vec<serde_json::Value> =
        recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let body = |id: &str| {
        let message = messages.iter().find(|message| message["id"] == id).unwrap();
        let object = message["json"][0].as_object().unwrap();
        let (class, body) = object.iter().next().unwrap();
        (class.clone(), body.clone())
    };
    for nth in [1, 2, 2, 2] {
        let (class, command) = body(&format!("ss-m2a-HandleConfigDriveIsoCommand-{nth}"));
        assert_eq!(class, <HandleConfigDriveIsoCommand as agent_protocol::Body>::CLASS);
        let raw = serde_json::value::to_raw_value(&command).unwrap();
        let answer = bench.raw(Envelope { class, body: raw }).await;
        let (class, expected) = body(&format!("ss-a2m-HandleConfigDriveIsoAnswer-{nth}"));
        assert_eq!(answer.class, class);
        assert_eq!(answer.body.get(), serde_json::to_string(&expected).unwrap());
    }
    assert_eq!(bench.files(), Vec::<String>::new());
}
