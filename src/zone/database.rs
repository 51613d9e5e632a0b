//! The server's database, for what no call of the API can change or tells.
//!
//! It is spoken to by the client program that a management server's machine has anyway (`mariadb`, or
//! `mysql`): no driver in this binary. Where and as whom stands in an options file of our own, closed
//! to others and gone with this value; the command line that others see holds statements only.

mod access;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedrock::Secret;
use role::host::CommandError;
use role::{CommandRunner, CommandSpec};

use access::Values;

pub(crate) use access::Access;

/// For one block of statements; a row lock of the server's ends in 50 seconds.
const TIMEOUT: Duration = Duration::from_secs(90);
/// The client's names, in the order of preference.
const PROGRAMS: [&str; 2] = ["mariadb", "mysql"];

/// Why the database does not do as told. Nothing of a block that failed is changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("no client program: install mariadb-client or mysql-client, or run the SQL by hand")]
    NoClient,
    #[error("cannot write the options of the database's client to {path}")]
    Options { path: String, source: std::io::Error },
    #[error(transparent)]
    Run(#[from] CommandError),
    #[error("the database refuses: {0}")]
    Refused(String),
    #[error("{name} in the database cannot be opened with the database's key: {remedy}")]
    Sealed { name: String, remedy: &'static str },
}

/// A database that can be asked.
pub(crate) struct Database {
    runner: Arc<dyn CommandRunner>,
    program: &'static str,
    options: PathBuf,
    values: Values,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("program", &self.program).finish_non_exhaustive()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Without it nobody gets in; what cannot be removed is closed to others.
        std::fs::remove_file(&self.options).unwrap_or_default();
    }
}

/// What set-up would bring to a storage that has no row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetUp {
    pub(crate) upload_key: Option<Secret<String>>,
    pub(crate) copy_password: Option<Secret<String>>,
}

/// Everything that statements of ours name, asked for without touching a row: a server whose tables
/// are others is found before anything is changed.
const PROBE: &str = "\
SELECT id, uuid, removed FROM data_center LIMIT 0;
SELECT id, data_center_id, removed FROM host_pod_ref LIMIT 0;
SELECT id, vm_type FROM service_offering LIMIT 0;
SELECT id, removed FROM guest_os LIMIT 0;
SELECT name, value FROM sequence LIMIT 0;
SELECT id, name, instance_name, uuid, state, guest_os_id, data_center_id, pod_id, vnc_password,
  created, type, vm_type, account_id, domain_id, user_id, service_offering_id, hypervisor_type,
  vm_template_id, host_id, power_state, display_vm, removed, update_time FROM vm_instance LIMIT 0;
SELECT id, public_ip_address, role FROM secondary_storage_vm LIMIT 0;
SELECT id, public_ip_address FROM console_proxy LIMIT 0;
SELECT category, instance, component, name, value FROM configuration LIMIT 0;
";

impl Database {
    /// Finds a client and asks for every table and column that is needed.
    pub(crate) async fn open(
        access: &Access,
        runner: Arc<dyn CommandRunner>,
    ) -> Result<Self, DatabaseError> {
        let mut program = None;
        for name in PROGRAMS {
            let version = CommandSpec::new(name, TIMEOUT).arg("--version");
            match runner.run(version).await {
                Ok(output) if output.code == Some(0) => {
                    program = Some(name);
                    break;
                }
                Ok(_) | Err(CommandError::Start { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let program = program.ok_or(DatabaseError::NoClient)?;
        let name = format!("quickcloud-{}.cnf", uuid::Uuid::new_v4());
        let options = std::env::temp_dir().join(name);
        let text = access.options();
        write_closed(&options, text.reveal()).map_err(|source| DatabaseError::Options {
            path: options.display().to_string(),
            source,
        })?;
        let database = Self { runner, program, options, values: access.values.clone() };
        database.run(PROBE).await?;
        Ok(database)
    }

    /// Runs a block; it ends at the first statement that fails, and takes an open transaction back.
    /// The answer's rows are lines, their columns parted by tabs.
    pub(crate) async fn run(&self, statements: &str) -> Result<String, DatabaseError> {
        let mut first = std::ffi::OsString::from("--defaults-file=");
        first.push(&self.options);
        let mut spec = CommandSpec::new(self.program, TIMEOUT).arg(first);
        for argument in ["--batch", "--skip-column-names", "--raw", "--execute", statements] {
            spec = spec.arg(argument);
        }
        let output = self.runner.run(spec).await?;
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        let said = output.stderr.lines().find(|line| line.contains("ERROR"));
        let said = said.or(output.stderr.lines().next()).unwrap_or("it gives no reason");
        Err(DatabaseError::Refused(said.trim().to_owned()))
    }

    /// The settings that the API hides; `None` when it is not known whether they are sealed.
    pub(crate) async fn set_up(&self) -> Result<Option<SetUp>, DatabaseError> {
        if self.values == Values::Unknown {
            return Ok(None);
        }
        let rows = self.run(super::sql::HIDDEN_SETTINGS).await?;
        let mut found = SetUp::default();
        for (name, value) in rows.lines().filter_map(|line| line.split_once('\t')) {
            if value.is_empty() || value == "NULL" {
                continue;
            }
            let plain = Some(self.plain(name, value)?);
            match name {
                "upload.post.secret.key" => found.upload_key = plain,
                "secstorage.copy.password" => found.copy_password = plain,
                _ => {}
            }
        }
        Ok(Some(found))
    }

    fn plain(&self, name: &str, value: &str) -> Result<Secret<String>, DatabaseError> {
        let Values::Sealed(key) = &self.values else { return Ok(Secret::new(value.to_owned())) };
        access::unsealed(key, value).ok_or_else(|| DatabaseError::Sealed {
            name: name.to_owned(),
            remedy: "give that server's db.properties and the file of its key (--db-key-file)",
        })
    }
}

fn write_closed(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
