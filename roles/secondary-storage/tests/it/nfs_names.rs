//! Names and files that several hosts or several runs work on, by the engine that speaks to an NFS server
//! itself: claims, files that are continued, the room that is left.

use bytes::Bytes;
use secondary_storage::stores::{Engine, EngineError};

use crate::nfs_engine::{DIRECTORY, Rig, path, pattern};
use crate::nfs_server::procedure;

#[tokio::test]
async fn of_several_that_claim_a_name_one_gets_it() {
    // A server that refuses hard links makes the file exclusively instead.
    for links in [true, false] {
        let rig = Rig::new();
        if !links {
            rig.server.faults(|faults| {
                faults.refuse.insert(procedure::LINK, (10004, usize::MAX));
            });
        }
        let stores = [rig.store().await, rig.store().await];
        let claim = |n: usize| {
            let (content, aside) = (Bytes::from(format!("claim {n}")), format!(".claim.{n}"));
            stores[n % 2].claim(&rig.work, path("leases/a/1"), aside.parse().unwrap(), content)
        };
        let claimed = futures_util::future::try_join_all((0..8).map(claim)).await.unwrap();
        let winners: Vec<usize> = (0..8).filter(|n| claimed[*n]).collect();
        assert_eq!(winners.len(), 1, "links {links}: {claimed:?}");
        assert_eq!(rig.read("leases/a/1"), format!("claim {}", winners[0]).into_bytes());
        let names = std::fs::read_dir(rig.temp.path().join("leases/a")).unwrap();
        assert_eq!(names.count(), 1, "nothing lies beside it");
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_held() {
    for links in [true, false] {
        let rig = Rig::new();
        let store = rig.store().await;
        store.ensure(&rig.work, path("leases")).await.unwrap();
        rig.server.faults(|faults| {
            if links {
                faults.cut_after.insert(procedure::LINK, 1);
            } else {
                faults.refuse.insert(procedure::LINK, (10004, usize::MAX));
                // That of the file beside it, and that of the file itself.
                faults.cut_after.insert(procedure::CREATE, 2);
            }
        });
        let claim = |content: &'static str| {
            let content = Bytes::from_static(content.as_bytes());
            store.claim(&rig.work, path("leases/1"), "aside".parse().unwrap(), content)
        };
        assert!(claim("mine").await.unwrap(), "links {links}");
        assert!(!claim("another's").await.unwrap(), "links {links}");
        assert_eq!(rig.read("leases/1"), b"mine");
    }
}

#[tokio::test]
async fn an_unfinished_file_is_continued_where_it_was_durable() {
    let rig = Rig::new();
    let store = rig.store().await;
    let content = pattern(3_000_000);
    let mut part = rig.create(&store).await;
    part.write(0, content.slice(..2_000_000)).await.unwrap();
    part.sync().await.unwrap();
    drop(part);
    let name = || "dnld1tmp_".parse().unwrap();
    let append = |length| store.append(&rig.work, path(DIRECTORY), name(), length);
    assert!(append(2_000_001).await.unwrap().is_none(), "it has fewer bytes");
    let mut part = append(1_500_000).await.unwrap().unwrap();
    assert_eq!(rig.read("template/tmpl/2/204/dnld1tmp_").len(), 1_500_000);
    part.write(1_500_000, content.slice(1_500_000..)).await.unwrap();
    let file = part.finish().await.unwrap();
    assert_eq!(file.length(), 3_000_000);
    assert!(rig.read("template/tmpl/2/204/dnld1tmp_") == content);
    let other = store.append(&rig.work, path("volumes/1/1"), name(), 0).await.unwrap();
    assert!(other.is_none(), "there is no such file");
}

#[tokio::test]
async fn a_store_is_not_filled_to_the_last_byte() {
    let rig = Rig::new();
    let store = rig.store().await.keeping_free(u64::MAX);
    assert_eq!(store.min_free(), u64::MAX);
    rig.server.faults(|faults| faults.free = Some(100 << 20));
    let created = store.create(&rig.work, path(DIRECTORY), "dnld".parse().unwrap()).await;
    let error = bedrock::chain(&created.map(drop).unwrap_err());
    assert!(error.contains("104857600 bytes are free") && error.contains("(min_free)"), "{error}");
    rig.server.faults(|faults| faults.free = Some(1 << 40));
    let mut part = rig.create(&store).await;
    rig.server.faults(|faults| faults.free = Some(0));
    part.write(0, pattern(1 << 20)).await.unwrap();
    // It is looked at from time to time.
    let chunk = Bytes::from(vec![1; 1 << 20]);
    let mut outcome = Ok(());
    for at in 1..=64 {
        outcome = part.write(at << 20, chunk.clone()).await;
        if outcome.is_err() {
            break;
        }
    }
    let Err(EngineError::Io(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
}
