//! Arbitrary bytes as what an NFS server sends: no panic, records within their limit, names and data
//! never more than the reply has.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use nfs3::mount::Mount;
use nfs3::portmap::GetPort;
use nfs3::procedures::{
    Commit, Create, FileSystemInfo, FileSystemSpace, GetAttributes, Lookup, PROGRAM, Read,
    ReadDirectory, ReadDirectoryPlus, Write,
};
use nfs3::record::Records;
use nfs3::rpc::{Procedure, reply_xid, results};
use nfs3::xdr::Decoder;

const LIMIT: usize = 1 << 16;

fn decode<P: Procedure>(results: &Decoder) -> Option<P::Reply> {
    P::decode(&mut results.clone()).ok()
}

fn reply(message: &Bytes) {
    let _xid = reply_xid(message);
    let Ok(Ok(results)) = results(message.clone(), PROGRAM) else { return };
    let length = results.rest().len();
    let _handles = (decode::<Lookup>(&results), decode::<Create>(&results));
    let _attributes = decode::<GetAttributes>(&results);
    let _writes = (decode::<Write>(&results), decode::<Commit>(&results));
    let _figures = (decode::<FileSystemInfo>(&results), decode::<FileSystemSpace>(&results));
    let _ways = (decode::<Mount>(&results), decode::<GetPort>(&results));
    if let Some(Ok(data)) = decode::<Read>(&results) {
        assert!(data.bytes.len() <= length);
    }
    for listing in [decode::<ReadDirectory>(&results), decode::<ReadDirectoryPlus>(&results)] {
        if let Some(Ok(listing)) = listing {
            assert!(listing.entries.iter().map(|entry| entry.name.len()).sum::<usize>() <= length);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    reply(&Bytes::copy_from_slice(bytes));
    let (mut records, mut input) = (Records::new(LIMIT), BytesMut::from(bytes));
    while let Ok(Some(record)) = records.next(&mut input) {
        assert!(record.len() <= LIMIT);
        reply(&record);
    }
});
