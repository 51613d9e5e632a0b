//! The page of the admin listener in a real browser: on a desk and on a phone, light and dark.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::admin::degraded;

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_roles_links_and_alarms_live_wherever_it_is_looked_at() {
    let running = degraded().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dashboard.mjs");
    let modules = script.with_file_name("node_modules");
    assert!(modules.is_dir(), "run `cargo xtask setup`, or npm ci --prefix tests/browser");
    let url = format!("http://{}/", running.addr);
    let mut command = Command::new("node");
    command.arg(script).args(["--url", &url]);
    if let Some(prefix) = std::env::var_os("DASHBOARD_SCREENSHOT") {
        command.arg("--screenshot").arg(prefix);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_odd| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{said:#}");
    for look in ["desk", "phone"] {
        let role = said["looks"][look]["roles"][0].as_str().unwrap();
        for part in ["degraded", "store read-only", "10.0.0.5:8250 attached", "12"] {
            assert!(role.contains(part), "{part} in {role:?}");
        }
        let alarm = said["looks"][look]["alarms"][0].as_str().unwrap();
        assert!(alarm.contains("degraded, store read-only"), "{alarm}");
    }
    running.shutdown.graceful.cancel();
}
