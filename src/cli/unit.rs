//! `quickcloud unit`: what systemd is to grant for a configuration.

use std::path::PathBuf;

use clap::Args;
use role::RoleDescriptor;

use super::SourceOptions;
use super::check::{complain_of_load, complain_of_violations};
use crate::config;
use crate::exit::Outcome;
use crate::output::{complain, say};
use crate::unit;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud unit --config /etc/quickcloud/quickcloud.toml
  quickcloud unit --config site.toml --output /etc/systemd/system/quickcloud.service.d/10-roles.conf

The package's systemd generator calls it, so that systemctl daemon-reload is all there is to do after
a change of roles or stores.";

#[derive(Debug, Args)]
pub(super) struct UnitOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// Write it there; nothing is written when the unit does as it is
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn unit(options: UnitOptions, registry: &[RoleDescriptor]) -> Outcome {
    let sources = options.sources.sources();
    let loaded = match config::load(&sources, registry) {
        Ok(loaded) => loaded,
        Err(error) => return complain_of_load(&error),
    };
    let Some(config) = &loaded.config else {
        complain_of_violations(&loaded);
        return Outcome::Configuration;
    };
    let (table, _) = match config::read_table(&sources) {
        Ok(read) => read,
        Err(error) => return complain_of_load(&error),
    };
    let roles: Vec<&str> = config.roles.iter().map(|role| role.spec.kind().short).collect();
    let source = sources.file.unwrap_or_default();
    let text = unit::drop_in(&unit::needs(&table, &roles), &source);
    match (options.output, text) {
        (None, None) => say("# The unit does as it is.\n"),
        (None, Some(text)) => say(&text),
        (Some(_), None) => Outcome::Clean,
        (Some(path), Some(text)) => {
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written =
                folder.and_then(|()| bedrock::files::replace(&path, text.as_bytes(), 0o644));
            match written {
                Ok(()) => Outcome::Clean,
                Err(error) => {
                    complain(&format!("error: cannot write {}: {error}\n", path.display()));
                    Outcome::System
                }
            }
        }
    }
}
