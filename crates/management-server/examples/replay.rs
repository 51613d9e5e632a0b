//! Plays a recorded conversation to one agent and prints what differs:
//! `replay FILE ADDRESS CA-FILE [OLD=NEW …]`; OLD=NEW are replaced in everything recorded.
#![allow(clippy::print_stdout, reason = "a tool for the hand that talks on its standard output")]

use std::time::Duration;

use management_server::replay::{Conversation, Replay, ReplaySettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: replay FILE ADDRESS CA-FILE [OLD=NEW …]";
    let (Some(file), Some(listen), Some(ca_file)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(usage.into());
    };
    let mut settings = ReplaySettings { listen: listen.parse()?, ..ReplaySettings::default() };
    settings.linger = Duration::from_millis(200);
    for argument in arguments {
        let (old, new) = argument.split_once('=').ok_or(usage)?;
        settings.substitutions.push((old.to_owned(), new.to_owned()));
    }
    let conversation = Conversation::parse(&std::fs::read_to_string(file)?)?;
    let replay = Replay::listen(conversation, settings).await?;
    std::fs::write(&ca_file, replay.ca_pem())?;
    println!("listening on {}, certificate in {ca_file}", replay.address());
    let report = replay.run().await?;
    println!("{report}");
    Ok(())
}
