//! Images to try the storage role with when there is no network: made on the spot, valid, small.

/// Bytes of one cluster of the sample: the smallest the format allows.
const CLUSTER: usize = 512;
/// What a machine would see of the sample disk.
pub(crate) const QCOW2_VIRTUAL_SIZE: u64 = 1 << 20;
/// Bytes of the slowly served raw sample.
pub(crate) const SLOW_SIZE: usize = 12 << 20;

/// An empty QCOW2 image, version 3, of [`QCOW2_VIRTUAL_SIZE`] in four clusters: header, refcount
/// table, refcount block, L1 table. `qemu-img check` finds nothing wrong with it.
pub(crate) fn qcow2() -> Vec<u8> {
    let cluster = u64::try_from(CLUSTER).unwrap_or(u64::MAX);
    let entries_per_l2 = cluster / 8;
    let l1_entries = u32::try_from(QCOW2_VIRTUAL_SIZE / (entries_per_l2 * cluster)).unwrap_or(0);
    let mut header = Vec::with_capacity(CLUSTER * 4);
    header.extend_from_slice(b"QFI\xfb");
    header.extend_from_slice(&3_u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no backing file: offset, name length
    header.extend_from_slice(&9_u32.to_be_bytes()); // cluster bits
    header.extend_from_slice(&QCOW2_VIRTUAL_SIZE.to_be_bytes());
    header.extend_from_slice(&0_u32.to_be_bytes()); // no encryption
    header.extend_from_slice(&l1_entries.to_be_bytes());
    header.extend_from_slice(&(3 * cluster).to_be_bytes()); // L1 table
    header.extend_from_slice(&cluster.to_be_bytes()); // refcount table
    header.extend_from_slice(&1_u32.to_be_bytes()); // of one cluster
    header.extend_from_slice(&[0; 12]); // no snapshots
    header.extend_from_slice(&[0; 24]); // no feature bits
    header.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 16 bits
    header.extend_from_slice(&104_u32.to_be_bytes()); // header length
    let mut image = header;
    image.resize(CLUSTER, 0);
    image.extend_from_slice(&(2 * cluster).to_be_bytes()); // the refcount block
    image.resize(2 * CLUSTER, 0);
    for _used in 0..4 {
        image.extend_from_slice(&1_u16.to_be_bytes());
    }
    image.resize(4 * CLUSTER, 0);
    image
}

/// One piece of the raw sample, to be repeated up to [`SLOW_SIZE`]: a boot sector's mark and bytes
/// that look like no other format.
pub(crate) fn slow_piece() -> Vec<u8> {
    let noise = std::iter::successors(Some(0x2545_f491_u32), |state| {
        Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let mut piece = vec![0; 510];
    piece.extend_from_slice(&[0x55, 0xaa]);
    piece.extend(noise.flat_map(u32::to_be_bytes).take(256 * 1024 - 512));
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn qemu_finds_nothing_wrong_with_the_sample() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.qcow2");
        std::fs::write(&path, qcow2()).unwrap();
        let spec = role::CommandSpec::new("qemu-img", Duration::from_secs(20))
            .arg("check")
            .arg("-f")
            .arg("qcow2")
            .arg(&path);
        let output = role::Host::system().runner.run(spec).await.unwrap();
        assert_eq!(output.code, Some(0), "{} {}", output.stdout, output.stderr);
        assert!(output.stdout.contains("No errors"), "{}", output.stdout);
    }
}
