//! Holes of files, and copies that the kernel makes: it shares blocks where the file system can, and
//! on NFS 4.2 lets the server copy. All functions block.

use std::fs::File;
use std::io::Result;
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Bytes that the kernel copies in one call: a slow server must answer within the store's deadline.
const PIECE: u64 = 32 << 20;

/// The first stretch of data at or after `from`. Whoever reads such a file names offsets: nobody minds
/// that its position moves.
pub fn next_data(file: &File, from: u64, length: u64) -> Result<Option<Range<u64>>> {
    if from >= length {
        return Ok(None);
    }
    let seek = |offset: u64, whence| {
        let offset = i64::try_from(offset).map_err(|_large| Errno::EOVERFLOW)?;
        Ok(u64::try_from(lseek(file, offset, whence)?).unwrap_or(0))
    };
    let start: nix::Result<u64> = seek(from, Whence::SeekData);
    let start = match start {
        Ok(start) if start < length => start,
        // Behind the last data there is only a hole.
        Ok(_) | Err(Errno::ENXIO) => return Ok(None),
        // A file system without holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some(from..length)),
        Err(errno) => return Err(errno.into()),
    };
    let end: nix::Result<u64> = seek(start, Whence::SeekHole);
    Ok(Some(start..end.unwrap_or(length).clamp(start, length)))
}

/// Copies no more than a piece of the range to the same offsets of another file; tells how many bytes,
/// none where the kernel cannot.
pub fn copy_range(from: &File, to: &File, range: Range<u64>) -> Result<u64> {
    let length = range.end.saturating_sub(range.start).min(PIECE);
    let offset = i64::try_from(range.start).map_err(std::io::Error::other)?;
    let (mut source, mut target) = (offset, offset);
    let mut copied = 0;
    while copied < length {
        let count = usize::try_from(length - copied).unwrap_or(usize::MAX);
        let (from_at, to_at) = (Some(&mut source), Some(&mut target));
        match nix::fcntl::copy_file_range(from, from_at, to, to_at, count) {
            Ok(0) => break,
            Ok(count) => copied += count as u64,
            Err(Errno::EINTR) => {}
            // Two file systems, or one that cannot: the rest is read and written.
            Err(
                Errno::EXDEV
                | Errno::EINVAL
                | Errno::ENOSYS
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::ETXTBSY,
            ) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn stretches_of_data_are_found_between_holes() {
        let file = tempfile::tempfile().unwrap();
        const MIB: u64 = 1 << 20;
        file.set_len(10 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 2 * MIB).unwrap();
        file.write_all_at(&[2; 4096], 7 * MIB).unwrap();
        let first = next_data(&file, 0, 10 * MIB).unwrap().unwrap();
        assert!(first.contains(&(2 * MIB)) && first.end <= 7 * MIB, "{first:?}");
        let second = next_data(&file, first.end, 10 * MIB).unwrap().unwrap();
        assert!(second.contains(&(7 * MIB)), "{second:?}");
        assert_eq!(next_data(&file, 10 * MIB, 10 * MIB).unwrap(), None);
        assert_eq!(next_data(&tempfile::tempfile().unwrap(), 0, 0).unwrap(), None);
    }

    #[test]
    fn what_the_kernel_copies_is_the_same_or_nothing() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&[7; 100_000], 0).unwrap();
        let copied = copy_range(&from, &to, 1_000..100_000).unwrap();
        let mut bytes = vec![0; usize::try_from(copied).unwrap()];
        to.read_exact_at(&mut bytes, 1_000).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
        assert_eq!(copy_range(&from, &to, 200_000..300_000).unwrap(), 0, "behind the end");
    }
}
