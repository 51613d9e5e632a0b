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
    let file = Arc::new(File::create(temp.path().join("a")).unwrap());
    let part = DirectoryPart {
        file,
        thread: Queue::start("test", 1).unwrap(),
        owner: work.owned(),
        shared: Arc::clone(&engine.shared),
    };
    let (release, gate) = sync_channel::<()>(0);
    let slow = part.synced(move |_file| gate.recv().map_err(std::io::Error::other));
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
