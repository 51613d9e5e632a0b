//! Developer commands: everything a newcomer, a developer and CI run is one of these.
//!
//! `cargo xtask demo` and `cargo xtask test` are the two a newcomer needs; both install what the
//! machine lacks. The rest are parts of `test`, or make figures and packages.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks")]
#![allow(clippy::disallowed_methods, reason = "starting programs is all this tool does")]

mod api;
mod autobahn;
mod bench;
mod demo;
mod deny;
mod image;
mod package;
mod page;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--check] [ARGS…]  install what is missing, build, run `quickcloud dev`; open or print the page
                          (--check: without a browser window, to the end, exit 0 or say what failed)
  test [--quick]          install what is missing; fmt, clippy, all tests, tidy, fuzz, deny, demo --check
                          (--quick: without installation, fuzz targets, licences and demo)
  tidy                    the rules of the tree
  deny                    licences, sources and banned crates
  setup                   only install what tests and demo need (Debian packages, npm modules)
  bench                   figures: frames/s, start-up, memory, binary size, console relay
  bench storage           figures of secondary storage: listing 100,000 templates, links against nginx
  bench move              copies beside cp, chains beside qemu-img, buckets beside boto3 (from PyPI; s3s-fs from crates.io)
  bench console           the console relay beside haproxy and websockify; what idle consoles cost
  api [SECONDS]           the DHCP role's API against its document: a linter and schemathesis (from PyPI),
                          with a real dnsmasq in a network namespace; needs root
  autobahn [CASES…]       the WebSocket crate against the Autobahn test suite (from PyPI, needs Python 2.7)
  package [--no-build] [--check]
                          release build with unit, manual pages and completions: archive, Debian package, RPM
                          (--check: install, run, upgrade and purge it in a container of systemd-nspawn)
  image [BINARY]          a container image (OCI archive) of a release build or of BINARY, without an engine
  page [--update]         compare noVNC's core with the locked npm package and the console page's script
                          with its modules, or renew both
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    let outcome = match command {
        "demo" => demo::run(rest),
        "test" | "ci" => test::run(rest),
        "tidy" => tidy::run(),
        "deny" => deny::run(),
        "setup" => setup::run(),
        "api" => api::run(rest),
        "autobahn" => autobahn::run(rest),
        "bench" => bench::run(rest),
        "package" => package::run(rest),
        "image" => image::run(rest),
        "page" => page::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(anyhow::anyhow!("unknown command {other:?}\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
