//! The rules of the tree that neither compiler nor clippy knows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{output, root};

/// Who of ours may depend on whom. Development dependencies are free but for roles on roles.
const EDGES: &[(&str, &[&str])] = &[
    // Leaves: no crate of ours below them.
    ("bedrock", &[]),
    ("demo-api", &[]),
    ("dhcp-api", &[]),
    ("disk-image", &[]),
    ("http-client", &[]),
    ("nfs3", &[]),
    ("rfb", &[]),
    ("status-api", &[]),
    ("task-scope", &[]),
    ("websocket", &[]),
    ("xtask", &[]),
    // One subject each.
    ("agent-protocol", &["bedrock"]),
    ("cloudstack-api", &["bedrock"]),
    ("config-reader", &["bedrock"]),
    ("demo-screen", &["rfb"]),
    ("http-front", &["bedrock", "task-scope"]),
    ("java-properties", &[]),
    ("key-store", &["bedrock"]),
    ("management-server", &["agent-protocol", "bedrock"]),
    ("tls-material", &["bedrock", "key-store"]),
    ("role", &["bedrock", "config-reader", "http-front", "status-api", "task-scope"]),
    (
        "management-link",
        &[
            "agent-protocol",
            "bedrock",
            "config-reader",
            "http-front",
            "key-store",
            "role",
            "status-api",
            "task-scope",
            "tls-material",
        ],
    ),
    (
        "secondary-storage",
        &[
            "agent-protocol",
            "bedrock",
            "config-reader",
            "disk-image",
            "http-front",
            "java-properties",
            "key-store",
            "management-link",
            "nfs3",
            "role",
            "status-api",
            "tls-material",
        ],
    ),
    (
        "console-proxy",
        &[
            "agent-protocol",
            "bedrock",
            "config-reader",
            "http-client",
            "http-front",
            "key-store",
            "management-link",
            "rfb",
            "role",
            "status-api",
            "tls-material",
            "websocket",
        ],
    ),
    (
        "dhcp",
        &[
            "bedrock",
            "cloudstack-api",
            "config-reader",
            "dhcp-api",
            "http-front",
            "key-store",
            "role",
            "status-api",
            "tls-material",
        ],
    ),
    ("testkit", &["agent-protocol", "bedrock", "http-front", "rfb", "role"]),
];
/// The binary and the fuzz targets, which may see all but what is only for tests.
const FREE: &[&str] = &["quickcloud", "quickcloud-fuzz"];
const ROLES: &[&str] = &["secondary-storage", "console-proxy", "dhcp"];
const BANNED_MODULES: &[&str] = &["util", "utils", "common", "helpers", "manager", "misc", "mod"];
/// Below these lie the home folders of persons.
const HOME_FOLDERS: &[&str] = &["/home/", "/Users/", "/root/"];
/// Lines of a file without its tests.
const FILE_LIMIT: usize = 600;

pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    dependencies(&mut faults)?;
    let files = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    let files: Vec<PathBuf> = files.lines().map(PathBuf::from).collect();
    for file in &files {
        // Images and other bytes have no rules.
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        any_text(file, &text, &mut faults);
        if file.extension().is_some_and(|extension| extension == "rs") {
            source(file, &text, &mut faults);
        }
        if file.ends_with("Cargo.toml") && file.components().count() > 1 {
            manifest(file, &text, &mut faults);
        }
    }
    documents(&mut faults);
    fuzz_targets(&mut faults)?;
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if faults.is_empty() {
        println!("tidy: the tree keeps its rules");
        return Ok(());
    }
    bail!("{} faults", faults.len())
}

fn dependencies(faults: &mut Vec<String>) -> Result<()> {
    let text = output("cargo", &["metadata", "--format-version=1", "--no-deps", "--offline"])?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|p| p.get("name")?.as_str()).collect();
    for package in packages {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        let empty = Vec::new();
        let row = EDGES.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
        if row.is_none() && !FREE.contains(&name) {
            faults.push(format!("crate {name} has no row in xtask/src/tidy.rs (EDGES)"));
        }
        let list = package.get("dependencies").and_then(Value::as_array).unwrap_or(&empty);
        for dependency in list {
            let target = dependency.get("name").and_then(Value::as_str).unwrap_or_default();
            if !names.contains(&target) {
                continue;
            }
            let shipped = dependency.get("kind").is_some_and(Value::is_null);
            let role_to_role = ROLES.contains(&name) && ROLES.contains(&target);
            let bad_edge = shipped && row.is_some_and(|to| !to.contains(&target));
            let shipped_testkit = shipped && target == "testkit";
            if role_to_role || bad_edge || shipped_testkit {
                faults.push(format!("crate {name} must not depend on {target}"));
            }
        }
    }
    Ok(())
}

/// Whether an absolute path below `folder` stands in the line.
fn names_path(line: &str, folder: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    line.match_indices(folder)
        .any(|(at, _)| line.get(..at).is_some_and(|before| !before.ends_with(inside)))
}

/// Rules of every text, whatever it is written in.
fn any_text(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display().to_string();
    if name == "xtask/src/tidy.rs" {
        return;
    }
    for (index, line) in text.lines().enumerate() {
        if HOME_FOLDERS.iter().any(|folder| names_path(line, folder)) {
            faults.push(format!("{name}:{}: a path of somebody's home folder", index + 1));
        }
    }
}

/// A member takes lints, dependencies and their features from the workspace, so that every `-p`
/// selection builds the same artefacts under the same rules. The fuzz targets have lints of
/// their own.
fn manifest(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display().to_string();
    if name.starts_with("fuzz/") {
        return;
    }
    if !text.contains("[lints]\nworkspace = true") {
        faults.push(format!("{name}: the lints of the workspace are missing"));
    }
    let mut section = "";
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = section.contains("dependencies") && line.contains('=');
        if dependency && (!line.contains("workspace = true") || line.contains("features")) {
            let what = "a dependency and its features stand in the root Cargo.toml";
            faults.push(format!("{name}:{}: {what}", index + 1));
        }
    }
}

/// How many lines of a source are shipped: all before its inline tests. A declaration of tests in
/// another file ends nothing.
fn shipped_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let inline = |pair: &[&str]| match pair {
        [attribute, item] => *attribute == "#[cfg(test)]" && item.ends_with('{'),
        _ => false,
    };
    lines.windows(2).position(inline).unwrap_or(lines.len())
}

fn source(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display().to_string();
    let mut fault = |line: usize, what: &str| faults.push(format!("{name}:{line}: {what}"));
    if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
        fault(1, "a file starts with //!: why it exists");
    }
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let folders = file.parent().into_iter().flat_map(Path::components);
    let mut folders = folders.filter_map(|folder| folder.as_os_str().to_str());
    if BANNED_MODULES.contains(&stem) || folders.any(|name| BANNED_MODULES.contains(&name)) {
        fault(1, "this module name says nothing");
    }
    let in_tests = ["tests/", "benches/", "fuzz/", "examples/"].iter().any(|d| name.contains(d))
        || stem == "tests"
        || name.starts_with("crates/testkit/");
    let shipped_lines = shipped_lines(text);
    if !in_tests && shipped_lines > FILE_LIMIT {
        fault(1, &format!("{shipped_lines} lines, at most {FILE_LIMIT}: split by idea"));
    }
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let shipped = !in_tests && index < shipped_lines;
        line_rules(&name, line, shipped, &mut |what| fault(index + 1, what));
        if shipped && let Some(message) = log_message(lines.get(index..).unwrap_or_default()) {
            let capital = message.chars().next().is_some_and(char::is_uppercase);
            if capital || message.ends_with('.') || message.contains('{') {
                let what = "a log message is lowercase, without period and without data in it";
                fault(index + 1, what);
            }
        }
    }
}

fn line_rules(name: &str, line: &str, shipped: bool, fault: &mut dyn FnMut(&str)) {
    let own_rules = name == "xtask/src/tidy.rs";
    if own_rules {
        return;
    }
    if line.trim_start().starts_with("#[ignore") {
        fault("a test that does not run is not a test");
    }
    let java = line.contains("com.cloud.") || line.contains("org.apache.cloudstack.");
    if shipped && java && !name.starts_with("crates/agent-protocol/") {
        fault("Java class names live in crates/agent-protocol only");
    }
    if shipped && name.starts_with("src/") && name != "src/registry.rs" {
        for role in ROLES {
            if line.contains(&format!("{}::", role.replace('-', "_"))) {
                fault("only src/registry.rs names role crates");
            }
        }
    }
}

/// The message literal of a tracing macro that starts in the first line: the last literal before
/// the closing parenthesis.
fn log_message(lines: &[&str]) -> Option<String> {
    let (first, rest) = lines.split_first()?;
    let first = first.trim();
    let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let call = first.strip_prefix("tracing::").unwrap_or(first);
    macros.iter().find(|start| call.starts_with(*start))?;
    let closed = |text: &str| text.ends_with(");") || text.ends_with(')');
    let mut call = call.trim_end_matches(',').to_owned();
    for line in rest.iter().take(12) {
        if closed(&call) {
            break;
        }
        call.push_str(line.trim());
    }
    let body = call.strip_suffix(");").or_else(|| call.strip_suffix(')'))?;
    let body = body.trim_end_matches(',').strip_suffix('"')?;
    Some(body.rsplit_once('"')?.1.to_owned())
}

/// A target that the manifest does not name is never built.
fn fuzz_targets(faults: &mut Vec<String>) -> Result<()> {
    let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml"))?;
    for entry in std::fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !manifest.contains(&format!("path = \"fuzz_targets/{name}\"\ntest = false\n")) {
            faults.push(format!("fuzz/Cargo.toml: {name} is not a [[bin]] with test = false"));
        }
    }
    Ok(())
}

fn documents(faults: &mut Vec<String>) {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap_or_default();
    let readme = read("README.md");
    for command in ["cargo xtask demo", "cargo xtask test"] {
        if !readme.contains(command) {
            faults.push(format!("README.md: the command `{command}` is missing"));
        }
    }
    for name in
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "LICENSE", "config/quickcloud.toml", "deny.toml"]
    {
        if read(name).is_empty() {
            faults.push(format!("{name} is missing"));
        }
    }
    let map = read("ARCHITECTURE.md");
    let unmapped = EDGES.iter().map(|(name, _)| name).filter(|name| {
        root().join("crates").join(name).is_dir() && !map.contains(&format!("**`crates/{name}`**"))
    });
    faults
        .extend(unmapped.map(|name| format!("ARCHITECTURE.md: the code map lacks crates/{name}")));
    if !read(".ci/run").contains("cargo xtask test") {
        faults.push(".ci/run must call the README's test command".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(name: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        source(Path::new(name), text, &mut faults);
        faults
    }

    #[test]
    fn rules_find_what_they_forbid() {
        let check = |name: &str, text: &str, expected: usize| {
            assert_eq!(faults_of(name, text).len(), expected, "{name}: {text}");
        };
        check("src/a.rs", "//! why\nfn a() {}\n", 0);
        check("src/a.rs", "fn a() {}\n", 1);
        check("src/util.rs", "//! why\n", 1);
        check("src/a.rs", "//! why\nconst C: &str = \"com.cloud.agent.api.X\";\n", 1);
        check("crates/agent-protocol/src/a.rs", "//! why\nconst C: &str = \"com.cloud.x\";\n", 0);
        check("src/a.rs", "//! why\nuse dhcp::Config;\n", 1);
        check("src/registry.rs", "//! why\nuse dhcp::Config;\n", 0);
        check("src/a.rs", "//! why\n    info!(role, \"Role ready\");\n", 1);
        check("src/a.rs", "//! why\n    info!(role, \"role ready.\");\n", 1);
        check("src/a.rs", "//! why\n    info!(role, \"role ready\");\n", 0);
        check("src/a.rs", &format!("//! why\n{}", "\n".repeat(700)), 1);
        check("tests/it/a.rs", "//! why\n#[ignore]\n", 1);
        check("src/util/a.rs", "//! why\n", 1);
        // Written over several lines by the formatter.
        let long = "    tracing::info!(\n        role,\n        \"Role ready\",\n    );\n";
        check("src/a.rs", &format!("//! why\n{long}"), 1);
        check("src/a.rs", &format!("//! why\n{}", long.replace("Role", "role")), 0);
        // Tests in a file of their own end nothing.
        let declared = format!("//! why\n#[cfg(test)]\nmod tests;\n{}", "\n".repeat(700));
        check("src/a.rs", &declared, 1);
        check("src/a.rs", &format!("//! why\n#[cfg(test)]\nmod tests {{\n{}", "\n".repeat(700)), 0);
    }

    #[test]
    fn members_take_everything_from_the_workspace() {
        let check = |text: &str, expected: usize| {
            let mut faults = Vec::new();
            manifest(Path::new("roles/a/Cargo.toml"), text, &mut faults);
            assert_eq!(faults.len(), expected, "{text}: {faults:?}");
        };
        let lints = "[lints]\nworkspace = true\n";
        check(&format!("{lints}[dependencies]\na.workspace = true\n"), 0);
        check("[dependencies]\na.workspace = true\n", 1);
        check(&format!("{lints}[dependencies]\na = \"1\"\n"), 1);
        let features = "a = { workspace = true, features = [\"b\"] }";
        check(&format!("{lints}[dev-dependencies]\n{features}\n"), 1);
    }

    #[test]
    fn paths_of_a_home_folder_are_found_in_any_text() {
        let mut faults = Vec::new();
        let text = "see\n/home/me/x\nnetwork/home/x and https://example.org/home/\n";
        any_text(Path::new("README.md"), text, &mut faults);
        assert_eq!(faults, ["README.md:2: a path of somebody's home folder"]);
    }

    /// The tree itself, so that an editor's test run finds a fault.
    #[test]
    fn the_tree_keeps_its_rules() {
        if let Err(error) = run() {
            panic!("{error:#}");
        }
    }
}
