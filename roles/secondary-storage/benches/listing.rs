//! Listing a store of 100,000 templates, compared with `find` and `cat` over the same tree.
//!
//! `cargo xtask bench storage` runs this. The goal is 2 s: the server lists at every connection, and
//! waits for the answer with the host locked.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_protocol::Envelope;
use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{ListTemplateAnswer, TemplateProp};
use role::{Host, TaskScope};
use secondary_storage::objects::inventory::{self, Item};
use secondary_storage::stores::config::{MountMode, StoreEntry, StoreSettings};
use secondary_storage::stores::directory::mount::MountOptions;
use secondary_storage::stores::directory::open::Directories;
use secondary_storage::stores::marker::Memory;
use secondary_storage::stores::{Modes, ObjectKind, Stores};

const TEMPLATES: usize = 100_000;
/// As zones have them: many accounts with a few, one with very many.
const ACCOUNTS: usize = 500;
const URL: &str = "nfs://127.0.0.1/export/sec";
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("sec");
    fill(&root);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stores = open(temp.path(), &root);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        ours.push(runtime.block_on(list(&stores)));
        theirs.push(find_and_cat(&root));
    }
    let (ours, theirs) = (middle(ours), middle(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!(
        "listing of {TEMPLATES} templates, answer included: {:.2} s (goal < 2 s), {ratio:.2} x find and cat ({:.2} s)",
        ours.as_secs_f64(),
        theirs.as_secs_f64()
    );
}

fn fill(root: &Path) {
    for number in 0..TEMPLATES {
        let account = if number % 2 == 0 { 2 } else { 3 + number % ACCOUNTS };
        let directory = root.join(format!("template/tmpl/{account}/{number}"));
        std::fs::create_dir_all(&directory).unwrap();
        let name = format!("{number:08x}-6a41-3c52-9f6b-0f4be1d0a7aa");
        let properties = format!(
            "#\n#Thu Oct 30 12:05:09 UTC 2025\nuniquename={number}-2-{name}\nqcow2.filename={name}.qcow2\n\
             qcow2.virtualsize=2147483648\ndescription=Debian 12\nqcow2.size=1\nfilename={name}.qcow2\n\
             size=1\npublic=true\nid={number}\nhvm=true\nvirtualsize=2147483648\nqcow2=true\n"
        );
        std::fs::write(directory.join("template.properties"), properties).unwrap();
        std::fs::write(directory.join(format!("{name}.qcow2")), "x").unwrap();
    }
}

fn open(temp: &Path, root: &Path) -> Stores {
    let entry = StoreEntry {
        url: URL.parse().unwrap(),
        directory: Some(root.to_owned()),
        mount: MountMode::No,
        mount_options: None,
        nfs_version: None,
        source: None,
        nfs: None,
    };
    let settings = StoreSettings {
        mount_root: temp.join("mnt"),
        configured: vec![entry],
        mount: MountOptions { options: "soft".to_owned(), timeout: Duration::from_secs(60) },
        deadline: Duration::from_secs(60),
        modes: Modes { directory: 0o777, file: 0o666 },
        min_free: 0,
        nfs_others: false,
    };
    let engines = Directories::new(settings, Host::system());
    let memory = Memory::load(&temp.join("state")).unwrap();
    Stores::new(Arc::new(engines), TaskScope::new(), memory)
}

async fn list(stores: &Stores) -> Duration {
    let store = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let begun = Instant::now();
    let items = inventory::list(&store, ObjectKind::Template).await.unwrap();
    assert_eq!(items.len(), TEMPLATES);
    let named = inventory::by_name(items).into_iter().map(|(name, item)| (name, prop(item)));
    let answer = ListTemplateAnswer {
        sec_url: Some(URL.into()),
        template_infos: Some(named.collect()),
        base: AnswerBase::success_with("success"),
    };
    assert!(Envelope::of(&answer).body.get().len() > TEMPLATES * 200);
    begun.elapsed()
}

fn prop(item: Item) -> TemplateProp {
    TemplateProp {
        template_name: Some(item.unique_name),
        install_path: Some(item.install_path),
        size: item.virtual_size,
        physical_size: item.physical_size,
        id: item.id,
        is_public: item.is_public,
        is_corrupted: item.is_corrupted,
    }
}

/// What the original does by script, and then reads.
fn find_and_cat(root: &Path) -> Duration {
    let begun = Instant::now();
    let status = Command::new("find")
        .arg(root.join("template/tmpl"))
        .args(["-name", "template.properties", "-exec", "cat", "{}", "+"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    begun.elapsed()
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap()
}
