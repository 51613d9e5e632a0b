//! Where the database is and as whom it is asked: a URL, or the server's own `db.properties`.

use std::path::Path;

use bedrock::Secret;
use java_properties::Properties;

/// Of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(super) host: String,
    pub(super) port: u16,
    /// A Unix socket in place of host and port.
    pub(super) socket: Option<String>,
    pub(super) user: String,
    pub(super) password: Secret<String>,
    pub(super) schema: String,
    pub(super) values: Values,
}

/// Whether hidden values in it are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Values {
    /// A URL does not tell; a sealed value must not be taken for a key.
    Unknown,
    Plain,
    /// With this key.
    Sealed(Secret<String>),
}

const FORM: &str = "give mysql://USER@HOST:PORT/cloud, mysql://USER@localhost/cloud?socket=PATH, or \
                    the path of the server's db.properties";
const MOST: u64 = 1024 * 1024;

impl Access {
    /// `text` is a URL or a file; the password and the key of values come from files of their own.
    pub(crate) fn read(
        text: &str,
        password_file: Option<&Path>,
        key_file: Option<&Path>,
    ) -> Result<Self, String> {
        let mut access = if text.contains("://") {
            Self::of_url(text)?
        } else {
            Self::of_properties(Path::new(text), key_file)?
        };
        if let Some(path) = password_file {
            access.password = bedrock::files::read_secret(path)?;
        }
        // With db.properties the file opens what stands there; with a URL it holds the key itself.
        if access.values == Values::Unknown
            && let Some(path) = key_file
        {
            access.values = Values::Sealed(bedrock::files::read_secret(path)?);
        }
        Ok(access)
    }

    fn of_url(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("--db {text}: {problem}: {FORM}");
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !matches!(scheme, "mysql" | "mariadb") {
            return Err(wrong("it is no database of MySQL or MariaDB"));
        }
        let (user, rest) = rest.split_once('@').ok_or_else(|| wrong("it names no user"))?;
        if user.contains(':') {
            // Not repeated: it stands on a command line already, and need not in a log.
            return Err("--db: the URL holds a password, which others see on the command line: \
                        change it, and give it as --db-password-file"
                .to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, schema) = rest.split_once('/').unwrap_or((rest, "cloud"));
        let socket = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("socket", path)) if path.starts_with('/') => Some(path.to_owned()),
            _ => return Err(wrong("it asks for something that is not known")),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
                (host, port.parse().map_err(|_odd| wrong("its port is no number"))?)
            }
            _ => (place, 3306),
        };
        let host = host.trim_matches(['[', ']']);
        let access = Self {
            host: if host.is_empty() { "localhost" } else { host }.to_owned(),
            port,
            socket,
            user: user.to_owned(),
            password: Secret::default(),
            schema: if schema.is_empty() { "cloud" } else { schema }.to_owned(),
            values: Values::Unknown,
        };
        access.checked().map_err(|problem| wrong(&problem))
    }

    /// The file that the management server reads itself. Values in `ENC(…)` are sealed with the key
    /// of `key_file`.
    fn of_properties(path: &Path, key_file: Option<&Path>) -> Result<Self, String> {
        let shown = path.display();
        let size =
            std::fs::metadata(path).map_err(|error| format!("--db {shown}: {error}: {FORM}"));
        if size?.len() > MOST {
            return Err(format!("--db {shown}: it is too long for a db.properties"));
        }
        let bytes = std::fs::read(path).map_err(|error| format!("--db {shown}: {error}"))?;
        let properties = Properties::parse(&bytes);
        let text = |key: &str| properties.get(key).map(str::trim).filter(|text| !text.is_empty());
        let opening = key_file.map(bedrock::files::read_secret).transpose()?;
        let secret = |key: &str| -> Result<Option<Secret<String>>, String> {
            let Some(value) = text(key) else { return Ok(None) };
            let sealed = value.strip_prefix("ENC(").and_then(|rest| rest.strip_suffix(')'));
            let Some(sealed) = sealed else { return Ok(Some(Secret::new(value.to_owned()))) };
            let opening = opening.as_ref().ok_or_else(|| {
                format!(
                    "--db {shown}: {key} is encrypted: give the key's file as --db-key-file \
                     (/etc/cloudstack/management/key)"
                )
            })?;
            let plain = unsealed(opening, sealed);
            let plain = plain.ok_or_else(|| {
                format!("--db {shown}: {key} cannot be opened with the key of --db-key-file")
            });
            plain.map(Some)
        };
        let port = match text("db.cloud.port") {
            Some(port) => {
                port.parse().map_err(|_odd| format!("--db {shown}: db.cloud.port is no number"))?
            }
            None => 3306,
        };
        let encrypted = text("db.cloud.encryption.type").is_some_and(|kind| kind != "none");
        let access = Self {
            // The first of several that the server tries in turn.
            host: text("db.cloud.host").unwrap_or("localhost").to_owned(),
            port,
            socket: None,
            user: text("db.cloud.username").unwrap_or("cloud").to_owned(),
            password: secret("db.cloud.password")?.unwrap_or_default(),
            schema: text("db.cloud.name").unwrap_or("cloud").to_owned(),
            values: match secret("db.cloud.encrypt.secret")? {
                Some(key) if encrypted => Values::Sealed(key),
                _ if encrypted => Values::Unknown,
                _ => Values::Plain,
            },
        };
        access.checked().map_err(|problem| format!("--db {shown}: {problem}"))
    }

    /// What goes into a file of lines is one line.
    fn checked(self) -> Result<Self, String> {
        let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        let socket = self.socket.as_deref().unwrap_or("-");
        for (name, text) in [
            ("host", &*self.host),
            ("user", &self.user),
            ("schema", &self.schema),
            ("socket", socket),
        ] {
            if !plain(text) || text.contains(['"', '\\']) {
                return Err(format!("its {name} is odd"));
            }
        }
        Ok(self)
    }

    /// The client's options file.
    pub(super) fn options(&self) -> Secret<String> {
        // A quote that is not escaped ends the value where a "#" follows.
        let password = self.password.reveal().replace('\\', "\\\\").replace('"', "\\\"");
        let Self { user, schema, host, port, .. } = self;
        let place = match &self.socket {
            Some(path) => format!("socket=\"{path}\"\n"),
            None => format!("host=\"{host}\"\nport={port}\nprotocol=tcp\n"),
        };
        Secret::new(format!(
            "[client]\nuser=\"{user}\"\npassword=\"{password}\"\n{place}connect-timeout=10\n\
             default-character-set=utf8mb4\n[mariadb]\ndatabase=\"{schema}\"\n\
             [mysql]\ndatabase=\"{schema}\"\n"
        ))
    }
}

/// A sealed value's text.
pub(super) fn unsealed(key: &Secret<String>, value: &str) -> Option<Secret<String>> {
    let is_text =
        |plain: &[u8]| !plain.is_empty() && plain.iter().all(|b| (0x20..0x7f).contains(b));
    let plain = key_store::sealed::open(key.reveal(), value, is_text)?;
    String::from_utf8(plain).ok().map(Secret::new)
}
