//! What documents and packages say is so: links lead somewhere, the references are current, the
//! tree of a package can be built and its unit is sound.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = include_str!("../../packaging/systemd/quickcloud.service");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("packaging/README.md")];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text.get(at + 2..).unwrap().split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(path.exists(), "{}: {target}", document.display());
            if !fragment.is_empty() {
                let text = std::fs::read_to_string(&path).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.map(anchor).any(|anchor| anchor == fragment);
                assert!(found, "{}: {target}", document.display());
            }
        }
    }
    assert!(links > 20, "{links}");
}

/// Pieces of code: what stands between backticks, and lines that are set in.
fn code(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.chain(text.lines().filter(|line| line.starts_with("    "))).collect()
}

#[test]
fn commands_of_the_documents_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_quickcloud")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let mut seen = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for piece in code(&text) {
            let mut rest = piece.split("quickcloud ");
            let mut before = rest.next().unwrap_or_default();
            for after in rest {
                let word = after.split_whitespace().next().unwrap_or_default();
                let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
                if is_word && (before.is_empty() || before.ends_with([' ', '/', '\n'])) {
                    assert!(known.contains(&word), "{}: quickcloud {word}", document.display());
                    seen += 1;
                }
                before = after;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

/// Names of metrics in a text: `quickcloud_…` and `process_…`.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("quickcloud_") || word.starts_with("process_")).collect()
}

/// Whether some source registers a family under that name, which gets a prefix, a unit and an end.
fn is_measured(name: &str, sources: &[String]) -> bool {
    let ends = ["_total", "_bytes", "_seconds"];
    let mut names = vec![name];
    while let Some(shorter) =
        names.last().and_then(|name| ends.iter().find_map(|end| name.strip_suffix(end)))
    {
        names.push(shorter);
    }
    let prefixes = ["", "quickcloud_ss_", "quickcloud_cp_", "quickcloud_dhcp_"];
    let bare = names.iter().flat_map(|name| prefixes.iter().filter_map(|p| name.strip_prefix(p)));
    let quoted: Vec<String> = bare.map(|name| format!("\"{name}\"")).collect();
    quoted.iter().any(|name| sources.iter().any(|source| source.contains(name)))
}

/// Where families are registered, and what their names then begin with.
const FAMILIES: [(&str, &str); 6] = [
    ("src/admin/metrics.rs", ""),
    ("roles/secondary-storage/src/metrics.rs", "quickcloud_ss_"),
    ("roles/secondary-storage/src/uploads/metrics.rs", "quickcloud_ss_"),
    ("roles/console-proxy/src/metrics.rs", "quickcloud_cp_"),
    ("roles/console-proxy/src/metrics/per_session.rs", "quickcloud_cp_"),
    ("roles/dhcp/src/metrics.rs", "quickcloud_dhcp_"),
];

#[test]
fn metrics_of_documents_alerts_and_dashboard_exist_and_every_family_is_documented() {
    let sources = FAMILIES.map(|(path, _)| std::fs::read_to_string(root().join(path)).unwrap());
    let reference = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut families = 0;
    for ((path, prefix), source) in FAMILIES.iter().zip(&sources) {
        for call in ["register(", "register_with_unit(", "gauge(&mut encoder, "] {
            let calls = source.split(call).skip(1);
            for name in
                calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            {
                let row = format!("| `{prefix}{name}");
                assert!(reference.contains(&row), "{path}: docs/metrics.md lacks {prefix}{name}");
                families += 1;
            }
        }
    }
    assert!(families > 40, "{families}");
    for document in [
        "docs/metrics.md",
        "packaging/monitoring/alerts.yml",
        "packaging/monitoring/dashboard.json",
    ] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let named = metrics(&text);
        assert!(named.len() >= 5, "{document}: {named:?}");
        for name in named {
            assert!(is_measured(name, &sources), "{document}: {name} is not measured");
        }
    }
    assert!(!is_measured("quickcloud_ss_tea_bytes", &sources));
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let text = std::fs::read_to_string(root().join("packaging/monitoring/dashboard.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(board["uid"].is_string() && board["schemaVersion"].as_u64() >= Some(36), "{board}");
    assert!(board["id"].is_null() && board["title"].is_string(), "an id is the importing server's");
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert!(panels.len() >= 5 && ids.len() == panels.len());
    for panel in panels {
        let place = &panel["gridPos"];
        let end = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(end <= 24 && place["h"].as_u64() > Some(0), "{panel}");
        assert!(panel["title"].is_string() && panel["type"].is_string(), "{panel}");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        let asked = targets.iter().all(|target| target["expr"].is_string());
        assert!(asked && (!targets.is_empty() || panel["type"] == "row"), "{panel}");
    }
}

/// Lists of both package tools: source, target, mode.
fn assets() -> BTreeSet<[String; 3]> {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let deb: BTreeSet<[String; 3]> = metadata["deb"]["assets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asset| [text(&asset[0]), format!("/{}", text(&asset[1])), text(&asset[2])])
        .collect();
    let rpm = metadata["generate-rpm"]["assets"].as_array().unwrap().iter();
    let rpm = rpm.map(|asset| ["source", "dest", "mode"].map(|key| text(&asset[key]))).collect();
    assert_eq!(deb, rpm, "both package tools take the same files");
    deb
}

#[test]
fn the_tree_of_a_package_can_be_built_of_what_is_there() {
    let binary = env!("CARGO_BIN_EXE_quickcloud");
    let made = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let man = made.path().join("man");
    std::fs::create_dir(&man).unwrap();
    clap_mangen::generate_to(quickcloud::cli::command(), &man).unwrap();
    for (shell, file) in
        [("bash", "quickcloud.bash"), ("zsh", "_quickcloud"), ("fish", "quickcloud.fish")]
    {
        std::fs::write(made.path().join(file), run(&["completions", shell])).unwrap();
    }
    let mut files = 0;
    for [source, target, mode] in assets() {
        let path = match source.strip_prefix("target/package/generated/") {
            Some(rest) => made.path().join(rest),
            None if source == "target/release/quickcloud" => binary.into(),
            None => root().join(&source),
        };
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let found: Vec<PathBuf> = match name.split_once('*') {
            None => vec![path.clone()],
            Some((_, end)) => std::fs::read_dir(path.parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.to_str().unwrap().ends_with(end))
                .collect(),
        };
        assert!(!found.is_empty() && found.iter().all(|path| path.is_file()), "{source}");
        assert!(target.starts_with("/usr/") && ["644", "755"].contains(&mode.as_str()), "{target}");
        files += found.len();
    }
    assert!(files > 40, "{files}");
    for page in ["quickcloud.1", "quickcloud-zone-enable.1", "quickcloud-doctor.1"] {
        let text = std::fs::read_to_string(man.join(page)).unwrap();
        assert!(text.contains(".SH"), "{page}");
    }
}

/// Whether systemd-analyze is there; its output for a unit.
fn analyze(arguments: &[&str], unit: &str) -> Option<(bool, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quickcloud.service");
    let unit = unit.replace("/usr/bin/quickcloud", env!("CARGO_BIN_EXE_quickcloud"));
    std::fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The unit with what `quickcloud unit` adds for some roles.
fn with_drop_in(roles: &str) -> String {
    let state = tempfile::tempdir().unwrap();
    let sets = crate::doctor::sound(state.path(), "127.0.0.1:1");
    let mut arguments = vec!["unit", "--roles", roles, "--set", "roles.dhcp.interface=br0"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let output = Command::new(env!("CARGO_BIN_EXE_quickcloud")).args(arguments).output().unwrap();
    let drop_in = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let settings = drop_in.split_once("[Service]\n").map_or("", |(_, settings)| settings);
    UNIT.replace("\n[Install]", &format!("\n{settings}\n[Install]"))
}

#[test]
fn the_units_are_sound_and_closed() {
    let Some((sound, text)) = analyze(&["verify", "--man=no"], UNIT) else { return };
    // Other units of the machine may have faults of their own.
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("quickcloud.service")).collect();
    assert!(sound && ours.is_empty(), "{text}");
    let check = |unit: &str, most: f64| {
        let arguments = ["security", "--offline=true", "--no-pager"];
        let (_, text) = analyze(&arguments, unit).unwrap();
        let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        let level = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(level.parse::<f64>().unwrap() <= most, "{line}");
    };
    // docs/security.md says why more is needed where it is.
    check(UNIT, 1.5);
    check(&with_drop_in("dhcp"), 1.9);
    check(&with_drop_in("ss"), 2.6);
    check(&with_drop_in("ss,cp,dhcp"), 3.3);
}
