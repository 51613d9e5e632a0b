//! What only this engine has: threads, and a disk that takes its time.

use std::fs::File;
use std::sync::mpsc::sync_channel;

use super::*;

/// Syncing may take minutes; on a store that answers nothing else either, it ends in its deadline.
#[tokio::test]
async fn a_sync_ends_when_the_store_has_died() {
    let temp = tempfile::tempdir().unwrap();
    let modes = Modes { directory: 0o777, file: 0o666 };
    let deadline = Duration::from_millis(100);
    let pool = Arc::new(Pool::start().unwrap());
    let engine = Directory::new(temp.path().to_owned(), modes, deadline, Arc::clone(&pool));
    let work = Work::new();
    let file = File::create(temp.path().join("a")).unwrap();
    let thread = Queue::start("test", 1).unwrap();
    let shared = Arc::clone(&engine.shared);
    let part = DirectoryPart::new(file, thread.clone(), work.owned(), shared);
    let (release, gate) = sync_channel::<()>(0);
    let slow = part.synced(&thread, move |_file| gate.recv().map_err(std::io::Error::other));
    let mut slow = Box::pin(slow);
    let waited = tokio::time::timeout(deadline * 4, &mut slow).await;
    assert!(waited.is_err(), "the disk takes its time, and the store answers");
    let (free, stuck) = sync_channel::<()>(0);
    let stuck = Arc::new(Mutex::new(stuck));
    for _thread in 0..8 {
        let stuck = Arc::clone(&stuck);
        let hang = move || stuck.lock().unwrap().recv().is_err();
        let hanging = pool.lane(Lane::Quick).run(work.owned(), Duration::from_millis(1), hang);
        assert!(matches!(hanging.await, Err(EngineError::Stalled(_))));
    }
    assert!(matches!(slow.await, Err(EngineError::Stalled(limit)) if limit == deadline));
    drop((release, free));
}

#[tokio::test]
async fn a_sync_goes_on_beside_the_writing_and_its_failure_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let modes = Modes { directory: 0o777, file: 0o666 };
    let pool = Arc::new(Pool::start().unwrap());
    let deadline = Duration::from_secs(20);
    let engine = Directory::new(temp.path().to_owned(), modes, deadline, pool);
    let work = Work::new();
    let directory = "template/tmpl/2/204".parse().unwrap();
    let mut part = engine.create(&work, directory, "a".parse().unwrap()).await.unwrap();
    for at in 0..5 {
        part.write(at * 4, Bytes::from_static(b"abcd")).await.unwrap();
        part.sync().await.unwrap();
    }
    let file = part.finish().await.unwrap();
    assert_eq!(file.read(0..file.length()).await.unwrap(), "abcd".repeat(5));
    // What cannot be synced: the next step knows.
    let null = || File::options().write(true).open("/dev/null").unwrap();
    let part = |thread| DirectoryPart::new(null(), thread, work.owned(), engine.shared.clone());
    let mut first = part(Queue::start("test", 1).unwrap());
    first.sync().await.unwrap();
    assert!(matches!(first.sync().await, Err(EngineError::Io(_))));
    let mut last = Box::new(part(Queue::start("test", 1).unwrap()));
    last.sync().await.unwrap();
    assert!(matches!(last.finish().await, Err(EngineError::Io(_))));
}
