//! The server's database, where it can be reached.

use std::path::PathBuf;

use clap::Args;

use crate::exit::Outcome;
use crate::output::{complain, complain_of};
use crate::zone::database::{Access, Database};

#[derive(Debug, Args)]
pub(super) struct DatabaseOptions {
    /// Run the SQL on the server's database, by the installed mariadb or mysql client:
    /// mysql://USER@HOST:PORT/cloud (?socket=PATH), or the path of the server's db.properties
    #[arg(long, value_name = "URL|FILE")]
    db: Option<String>,
    /// File with the password of the database's user, closed to others
    #[arg(long, value_name = "FILE", requires = "db")]
    db_password_file: Option<PathBuf>,
    /// File with the key of the database: with db.properties that of the server
    /// (/etc/cloudstack/management/key), with a URL the one that values are sealed with
    #[arg(long, value_name = "FILE", requires = "db")]
    db_key_file: Option<PathBuf>,
}

impl DatabaseOptions {
    /// Connected and looked at, when it was asked for; an error is told already.
    pub(super) async fn open(&self) -> Result<Option<Database>, Outcome> {
        let Some(text) = &self.db else { return Ok(None) };
        let access =
            Access::read(text, self.db_password_file.as_deref(), self.db_key_file.as_deref());
        let access = access.map_err(|problem| {
            complain(&format!("error: {problem}\n"));
            Outcome::Usage
        })?;
        match Database::open(&access, role::Host::system().runner).await {
            Ok(database) => Ok(Some(database)),
            Err(error) => {
                complain_of(&error);
                Err(Outcome::Failed)
            }
        }
    }
}
