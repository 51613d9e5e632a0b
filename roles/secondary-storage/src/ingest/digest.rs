//! Checksums in CloudStack's text form, `{ALG}hex`, and digests computed while bytes pass by.

use std::fmt;

use bytes::Bytes;
use digest::DynDigest;
use tokio::sync::{mpsc, oneshot};

use super::progress::Progress;
use crate::sources::Hash;

/// A digest algorithm by the name Java knows it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_224,
    Sha512_256,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

impl Algorithm {
    /// By Java's name, in any letter case.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_uppercase();
        Some(match name.as_str() {
            "MD5" => Self::Md5,
            "SHA" | "SHA1" | "SHA-1" => Self::Sha1,
            "SHA224" | "SHA-224" => Self::Sha224,
            "SHA256" | "SHA-256" => Self::Sha256,
            "SHA384" | "SHA-384" => Self::Sha384,
            "SHA512" | "SHA-512" => Self::Sha512,
            "SHA512/224" | "SHA-512/224" => Self::Sha512_224,
            "SHA512/256" | "SHA-512/256" => Self::Sha512_256,
            "SHA3-224" => Self::Sha3_224,
            "SHA3-256" => Self::Sha3_256,
            "SHA3-384" => Self::Sha3_384,
            "SHA3-512" => Self::Sha3_512,
            _ => return None,
        })
    }

    /// Java's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sha512_224 => "SHA-512/224",
            Self::Sha512_256 => "SHA-512/256",
            Self::Sha3_224 => "SHA3-224",
            Self::Sha3_256 => "SHA3-256",
            Self::Sha3_384 => "SHA3-384",
            Self::Sha3_512 => "SHA3-512",
        }
    }

    /// Hexadecimal digits of a digest.
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha224 | Self::Sha512_224 | Self::Sha3_224 => 56,
            Self::Sha256 | Self::Sha512_256 | Self::Sha3_256 => 64,
            Self::Sha384 | Self::Sha3_384 => 96,
            Self::Sha512 | Self::Sha3_512 => 128,
        }
    }

    /// The usual one with so many hexadecimal digits.
    pub fn of_hex_len(digits: usize) -> Option<Self> {
        let usual = [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];
        usual.into_iter().find(|algorithm| algorithm.hex_len() == digits)
    }

    /// The libraries' own code: AWS-LC where it has the algorithm, because it is the fastest at
    /// hand, else RustCrypto.
    fn hasher(self) -> Hasher {
        use aws_lc_rs::digest as lc;
        let other: Box<dyn DynDigest + Send> = match self {
            Self::Sha1 => return Hasher::of(&lc::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha224 => return Hasher::of(&lc::SHA224),
            Self::Sha256 => return Hasher::of(&lc::SHA256),
            Self::Sha384 => return Hasher::of(&lc::SHA384),
            Self::Sha512 => return Hasher::of(&lc::SHA512),
            Self::Sha512_256 => return Hasher::of(&lc::SHA512_256),
            Self::Sha3_256 => return Hasher::of(&lc::SHA3_256),
            Self::Sha3_384 => return Hasher::of(&lc::SHA3_384),
            Self::Sha3_512 => return Hasher::of(&lc::SHA3_512),
            Self::Md5 => Box::new(md5::Md5::default()),
            Self::Sha512_224 => Box::new(sha2::Sha512_224::default()),
            Self::Sha3_224 => Box::new(sha3::Sha3_224::default()),
        };
        Hasher::Other(other)
    }
}

/// An algorithm at work.
enum Hasher {
    AwsLc(Box<aws_lc_rs::digest::Context>),
    Other(Box<dyn DynDigest + Send>),
}

impl Hasher {
    fn of(algorithm: &'static aws_lc_rs::digest::Algorithm) -> Self {
        Self::AwsLc(Box::new(aws_lc_rs::digest::Context::new(algorithm)))
    }
}

/// What a command says about the digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    pub algorithm: Algorithm,
    /// The algorithm's name as given; it is echoed.
    name: String,
    /// Lower-case hexadecimal; `None` when the command named no digest: then the digest is only
    /// computed and reported.
    hex: Option<String>,
    /// Whether it is computed.
    is_wanted: bool,
}

/// The text names an algorithm nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid algorithm: {0}")]
pub struct UnknownAlgorithm(pub String);

impl Expectation {
    /// Reads `{ALG}hex`. Without a brace the value is an MD5; without a value a SHA-512 is computed.
    pub fn parse(text: Option<&str>) -> Result<Self, UnknownAlgorithm> {
        let given = text.unwrap_or_default().trim();
        if given.is_empty() {
            return Ok(Self {
                algorithm: Algorithm::Sha512,
                name: "SHA-512".to_owned(),
                hex: None,
                is_wanted: true,
            });
        }
        let (name, hex) = match given.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some(("", hex)) => ("MD5", hex),
            Some((name, hex)) => (name, hex),
            None => ("MD5", given),
        };
        let algorithm =
            Algorithm::by_name(name).ok_or_else(|| UnknownAlgorithm(given.to_owned()))?;
        let hex = hex.trim().to_ascii_lowercase();
        Ok(Self { algorithm, name: name.to_owned(), hex: Some(hex), is_wanted: true })
    }

    /// The digest that a source names.
    pub fn of(hash: &Hash) -> Self {
        let name = hash.algorithm.name().to_owned();
        Self { algorithm: hash.algorithm, name, hex: Some(hash.hex.clone()), is_wanted: true }
    }

    /// Whether there is a value to compare with.
    pub const fn is_given(&self) -> bool {
        self.hex.is_some()
    }

    /// A digest that is computed and compared with nothing.
    pub fn compute(name: &str) -> Result<Self, UnknownAlgorithm> {
        let algorithm =
            Algorithm::by_name(name).ok_or_else(|| UnknownAlgorithm(name.to_owned()))?;
        Ok(Self { algorithm, name: name.to_owned(), hex: None, is_wanted: true })
    }

    /// Nobody wants a digest.
    pub fn nothing() -> Self {
        let (algorithm, name) = (Algorithm::Sha256, Algorithm::Sha256.name().to_owned());
        Self { algorithm, name, hex: None, is_wanted: false }
    }

    /// The digest of the bytes, in the name the command used.
    pub fn start(&self) -> Running {
        Running { name: self.name.clone(), hasher: self.algorithm.hasher() }
    }

    /// What a digest of another length probably is: without a name it counts as an MD5.
    fn length_hint(&self, hex: &str) -> String {
        let meant = Algorithm::of_hex_len(hex.len());
        match meant.filter(|meant| meant.hex_len() != self.algorithm.hex_len()) {
            Some(meant) => {
                let name = meant.name();
                format!("; by its length it is a {name}: give it as {{{name}}}{hex}")
            }
            None => String::new(),
        }
    }

    /// `Err` is the text for the user.
    pub fn verify(&self, found: &Checksum) -> Result<(), String> {
        match &self.hex {
            Some(hex) if *hex != found.hex => {
                let given = Checksum { name: self.name.clone(), hex: hex.clone() };
                let text =
                    format!("checksum \"{found}\" didn't match the given value, \"{given}\"");
                Err(format!("{text}{}", self.length_hint(hex)))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A digest being computed.
pub struct Running {
    name: String,
    hasher: Hasher,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Running {
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::AwsLc(context) => context.update(bytes),
            Hasher::Other(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Checksum {
        let hex = match self.hasher {
            Hasher::AwsLc(context) => hex(context.finish().as_ref()),
            Hasher::Other(hasher) => hex(&hasher.finalize()),
        };
        Checksum { name: self.name, hex }
    }

    /// The digest of the bytes up to here.
    pub fn so_far(&self) -> Checksum {
        let hex = match &self.hasher {
            Hasher::AwsLc(context) => hex(context.as_ref().clone().finish().as_ref()),
            Hasher::Other(hasher) => hex(&hasher.box_clone().finalize()),
        };
        Checksum { name: self.name.clone(), hex }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest computed on a thread of its own while the bytes pass by.
#[derive(Debug)]
pub struct Digester {
    queue: mpsc::Sender<Bytes>,
    outcome: oneshot::Receiver<Checksum>,
}

/// Pieces that wait for the thread.
const WAITING: usize = 3;

impl Digester {
    /// Starts the thread. It ends when every queue to it is dropped.
    pub fn start(expectation: &Expectation) -> std::io::Result<Self> {
        Self::go_on(expectation.start(), 0, None)
    }

    /// As [`Digester::start`], with a digest that has taken `length` bytes already. `progress` is
    /// told how far it is.
    pub fn go_on(
        mut running: Running,
        mut length: u64,
        progress: Option<Progress>,
    ) -> std::io::Result<Self> {
        let (queue, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let (done, outcome) = oneshot::channel();
        std::thread::Builder::new().name("ss-digest".to_owned()).spawn(move || {
            while let Some(bytes) = waiting.blocking_recv() {
                running.update(&bytes);
                length = length.saturating_add(bytes.len() as u64);
                if let Some(progress) = &progress {
                    progress.digested(length, &running, false);
                }
            }
            if let Some(progress) = &progress {
                progress.digested(length, &running, true);
            }
            // Nobody waits for the digest of a download that was given up.
            drop(done.send(running.finish()));
        })?;
        Ok(Self { queue, outcome })
    }

    /// Where the bytes go, in order. One that fails has a dead thread behind it.
    pub fn queue(&self) -> mpsc::Sender<Bytes> {
        self.queue.clone()
    }

    /// The digest, once every other queue is dropped; `None` when the thread died.
    pub async fn finish(self) -> Option<Checksum> {
        drop(self.queue);
        self.outcome.await.ok()
    }
}

/// The queues of several digests.
#[derive(Debug, Clone, Default)]
pub struct Queues(Vec<mpsc::Sender<Bytes>>);

/// The thread of a digest died.
#[derive(Debug, thiserror::Error)]
#[error("a digest's thread ended")]
pub struct DigestEnded;

impl Queues {
    /// Gives the bytes to every digest. Blocks while one of them is behind.
    pub fn send(&self, bytes: &Bytes) -> Result<(), DigestEnded> {
        for queue in &self.0 {
            queue.blocking_send(bytes.clone()).map_err(|_gone| DigestEnded)?;
        }
        Ok(())
    }
}

/// Several digests of the same bytes, each on a thread of its own.
#[derive(Debug)]
pub struct Digests {
    /// `None`: nobody wants it.
    first: Option<Digester>,
    /// One for each further digest; `None` where the first has the same algorithm.
    more: Vec<Option<Digester>>,
}

/// Several digests of the same bytes, as far as they are.
#[derive(Debug)]
pub struct Computed {
    length: u64,
    /// `None`: nobody wants it.
    first: Option<Running>,
    /// `None` where the first has the same algorithm.
    more: Vec<Option<Running>>,
}

impl Computed {
    /// Of no bytes yet.
    pub fn new(first: &Expectation, more: &[Expectation]) -> Self {
        let start = |expectation: &Expectation| {
            let is_other = !first.is_wanted || expectation.algorithm != first.algorithm;
            is_other.then(|| expectation.start())
        };
        let more = more.iter().map(start).collect();
        Self { length: 0, first: first.is_wanted.then(|| first.start()), more }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        let all = self.first.iter_mut().chain(self.more.iter_mut().flatten());
        all.for_each(|running| running.update(bytes));
    }

    /// The first digest of the bytes up to here.
    pub fn so_far(&self) -> Option<Checksum> {
        self.first.as_ref().map(Running::so_far)
    }
}

impl Digests {
    /// Starts the threads; `progress` is told how far the first digest is.
    pub fn start(computed: Computed, progress: Progress) -> std::io::Result<Self> {
        let Computed { length, first, more } = computed;
        let start = |running: Option<Running>| {
            running.map(|running| Digester::go_on(running, length, None)).transpose()
        };
        let more = more.into_iter().map(start).collect::<std::io::Result<_>>()?;
        let start = |running| Digester::go_on(running, length, Some(progress));
        Ok(Self { first: first.map(start).transpose()?, more })
    }

    pub fn queues(&self) -> Queues {
        let all = self.first.iter().chain(self.more.iter().flatten());
        Queues(all.map(Digester::queue).collect())
    }

    /// The digests, once every queue is dropped; `None` when a thread died.
    pub async fn finish(self) -> Option<(Option<Checksum>, Vec<Checksum>)> {
        let first = match self.first {
            Some(digester) => Some(digester.finish().await?),
            None => None,
        };
        let mut found = Vec::with_capacity(self.more.len());
        for digester in self.more {
            found.push(match digester {
                Some(digester) => digester.finish().await?,
                None => first.clone()?,
            });
        }
        Some((first, found))
    }
}

/// A computed digest; prints as `{ALG}hex`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    name: String,
    hex: String,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.name, self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(given: Option<&str>, bytes: &[u8]) -> (String, Result<(), String>) {
        let expectation = Expectation::parse(given).unwrap();
        let mut running = expectation.start();
        running.update(bytes);
        let found = running.finish();
        (found.to_string(), expectation.verify(&found))
    }

    #[test]
    fn bare_values_are_md5_and_none_is_sha512() {
        let (text, outcome) = digest(Some("900150983cd24fb0d6963f7d28e17f72"), b"abc");
        assert_eq!((text.as_str(), outcome), ("{MD5}900150983cd24fb0d6963f7d28e17f72", Ok(())));
        let (text, outcome) = digest(None, b"");
        assert!(text.starts_with("{SHA-512}cf83e1357eefb8bdf1542850d66d8007d620e405"), "{text}");
        assert_eq!(outcome, Ok(()));
        assert_eq!(digest(Some(" {}900150983CD24FB0D6963F7D28E17F72 "), b"abc").1, Ok(()));
    }

    /// Against the other implementation of every algorithm that AWS-LC computes here.
    #[test]
    fn both_libraries_agree() {
        fn check<D: digest::Digest>(name: &str) {
            let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
            let mut running = Expectation::compute(name).unwrap().start();
            bytes.chunks(777).for_each(|chunk| running.update(chunk));
            assert_eq!(running.so_far(), running.so_far());
            let hex: String = D::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(running.finish().to_string(), format!("{{{name}}}{hex}"));
        }
        check::<sha1::Sha1>("SHA-1");
        check::<sha2::Sha224>("SHA-224");
        check::<sha2::Sha256>("SHA-256");
        check::<sha2::Sha384>("SHA-384");
        check::<sha2::Sha512>("SHA-512");
        check::<sha2::Sha512_256>("SHA-512/256");
        check::<sha3::Sha3_256>("SHA3-256");
        check::<sha3::Sha3_384>("SHA3-384");
        check::<sha3::Sha3_512>("SHA3-512");
    }

    #[tokio::test]
    async fn what_nobody_wants_is_not_computed_and_what_a_source_names_still_is() {
        let named = Expectation::compute("SHA-256").unwrap();
        let mut computed = Computed::new(&Expectation::nothing(), &[named]);
        computed.update(b"a");
        assert_eq!(computed.so_far(), None);
        let digests = Digests::start(computed, Progress::default()).unwrap();
        let queues = digests.queues();
        let send = move || queues.send(&Bytes::from_static(b"bc")).unwrap();
        crate::ingest::write::on_thread("test", send).unwrap().await.unwrap();
        let (first, more) = digests.finish().await.unwrap();
        let expected = "{SHA-256}ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((first, more[0].to_string().as_str()), (None, expected));
    }

    #[test]
    fn every_algorithm_has_its_length() {
        for (name, length) in [
            ("MD5", 32),
            ("SHA-1", 40),
            ("sha-224", 56),
            ("SHA-256", 64),
            ("SHA-384", 96),
            ("SHA-512", 128),
            ("SHA-512/224", 56),
            ("SHA-512/256", 64),
            ("SHA3-224", 56),
            ("SHA3-256", 64),
            ("SHA3-384", 96),
            ("SHA3-512", 128),
        ] {
            let text = Expectation::compute(name).unwrap().start().finish().to_string();
            let hex = text.strip_prefix(&format!("{{{name}}}")).unwrap();
            let algorithm = Algorithm::by_name(name).unwrap();
            assert_eq!((hex.len(), algorithm.hex_len()), (length, length), "{name}");
            assert_eq!(Algorithm::by_name(algorithm.name()), Some(algorithm));
        }
    }

    #[test]
    fn a_mismatch_names_both_values_and_an_unknown_name_is_refused() {
        let (_, outcome) = digest(Some("{SHA-1}00"), b"abc");
        let expected = "checksum \"{SHA-1}a9993e364706816aba3e25717850c26c9cd0d89d\" didn't match \
                        the given value, \"{SHA-1}00\"";
        assert_eq!(outcome, Err(expected.to_owned()));
        let error = Expectation::parse(Some("{FOO}72a3")).unwrap_err();
        assert_eq!(error.to_string(), "invalid algorithm: {FOO}72a3");
    }
}
