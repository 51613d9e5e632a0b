//! Names in directories.

use bytes::Bytes;

use super::files::{Verifier, created, encode_attributes};
use super::{Found, PROGRAM};
use crate::rpc::{Procedure, Program};
use crate::status::Status;
use crate::types::{Attributes, Handle, MAX_NAME};
use crate::xdr::{Decoder, Encoder, Malformed};

/// `LOOKUP`. A symbolic link is found as one, never followed.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub directory: Handle,
    pub name: Bytes,
}

impl Procedure for Lookup {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 3;
    const NAME: &'static str = "LOOKUP";
    type Reply = Result<Found, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.directory.encode(out);
        out.opaque(&self.name);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let handle = Handle::decode(reply)?;
        let attributes = Attributes::optional(reply)?;
        Ok(Ok(Found { handle, attributes }))
    }
}

/// `MKDIR`.
#[derive(Debug, Clone)]
pub struct MakeDirectory {
    pub directory: Handle,
    pub name: Bytes,
    pub mode: u32,
}

impl Procedure for MakeDirectory {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 9;
    const NAME: &'static str = "MKDIR";
    /// As for `CREATE`.
    type Reply = Result<Option<Found>, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.directory.encode(out);
        out.opaque(&self.name);
        encode_attributes(out, Some(self.mode), None);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        match Status::decode(reply)? {
            Ok(()) => Ok(Ok(created(reply)?)),
            Err(status) => Ok(Err(status)),
        }
    }
}

/// A procedure on one name whose reply is its status.
macro_rules! by_name {
    ($(#[$doc:meta])* $name:ident = $number:literal, $text:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            pub directory: Handle,
            pub name: Bytes,
        }

        impl Procedure for $name {
            const PROGRAM: Program = PROGRAM;
            const NUMBER: u32 = $number;
            const NAME: &'static str = $text;
            type Reply = Result<(), Status>;

            fn encode(&self, out: &mut Encoder) {
                self.directory.encode(out);
                out.opaque(&self.name);
            }

            fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
                Status::decode(reply)
            }
        }
    };
}

by_name! {
    /// `REMOVE` of anything but a directory.
    Remove = 12, "REMOVE"
}
by_name! {
    /// `RMDIR` of an empty directory.
    RemoveDirectory = 13, "RMDIR"
}

/// `RENAME`; what has the new name already is replaced.
#[derive(Debug, Clone)]
pub struct Rename {
    pub from_directory: Handle,
    pub from: Bytes,
    pub to_directory: Handle,
    pub to: Bytes,
}

impl Procedure for Rename {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 14;
    const NAME: &'static str = "RENAME";
    type Reply = Result<(), Status>;

    fn encode(&self, out: &mut Encoder) {
        self.from_directory.encode(out);
        out.opaque(&self.from);
        self.to_directory.encode(out);
        out.opaque(&self.to);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        Status::decode(reply)
    }
}

/// `LINK`: another name of a file, refused when there is one already.
#[derive(Debug, Clone)]
pub struct Link {
    pub file: Handle,
    pub directory: Handle,
    pub name: Bytes,
}

impl Procedure for Link {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 15;
    const NAME: &'static str = "LINK";
    type Reply = Result<(), Status>;

    fn encode(&self, out: &mut Encoder) {
        self.file.encode(out);
        self.directory.encode(out);
        out.opaque(&self.name);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        Status::decode(reply)
    }
}

/// `READDIR`: names only.
#[derive(Debug, Clone)]
pub struct ReadDirectory {
    pub directory: Handle,
    /// Zero, or the last entry's of the part before.
    pub cookie: u64,
    /// All zero, or that of the part before.
    pub verifier: Verifier,
    /// Bytes that the reply may have.
    pub count: u32,
}

/// `READDIRPLUS`: names with attributes and handles.
#[derive(Debug, Clone)]
pub struct ReadDirectoryPlus(pub ReadDirectory);

/// A part of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Changes when cookies have lost their meaning.
    pub verifier: Verifier,
    pub entries: Vec<Entry>,
    /// Nothing follows.
    pub is_end: bool,
}

/// A name in a directory, with what the server gave to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Bytes,
    pub cookie: u64,
    pub attributes: Option<Attributes>,
    pub handle: Option<Handle>,
}

fn listing(
    reply: &mut Decoder,
    more: impl Fn(&mut Decoder) -> Result<(Option<Attributes>, Option<Handle>), Malformed>,
) -> Result<Result<Listing, Status>, Malformed> {
    if let Err(status) = Status::decode(reply)? {
        return Ok(Err(status));
    }
    let _attributes = Attributes::optional(reply)?;
    let verifier = Verifier(reply.fixed()?);
    let mut entries = Vec::new();
    while reply.bool()? {
        let _fileid = reply.u64()?;
        // Copied: a part of a reply would keep the whole reply.
        let name = Bytes::copy_from_slice(&reply.opaque("a name", MAX_NAME)?);
        let cookie = reply.u64()?;
        let (attributes, handle) = more(reply)?;
        entries.push(Entry { name, cookie, attributes, handle });
    }
    Ok(Ok(Listing { verifier, entries, is_end: reply.bool()? }))
}

impl Procedure for ReadDirectory {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 16;
    const NAME: &'static str = "READDIR";
    type Reply = Result<Listing, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.directory.encode(out);
        out.u64(self.cookie).fixed(&self.verifier.0).u32(self.count);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        listing(reply, |_reply| Ok((None, None)))
    }
}

impl Procedure for ReadDirectoryPlus {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 17;
    const NAME: &'static str = "READDIRPLUS";
    type Reply = Result<Listing, Status>;

    fn encode(&self, out: &mut Encoder) {
        let ReadDirectory { directory, cookie, verifier, count } = &self.0;
        directory.encode(out);
        // Names alone may fill the reply, too: servers stop at whichever is reached first.
        out.u64(*cookie).fixed(&verifier.0).u32(*count).u32(*count);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        listing(reply, |reply| Ok((Attributes::optional(reply)?, reply.optional(Handle::decode)?)))
    }
}
