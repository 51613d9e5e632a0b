//! The same work by a dnsmasq that nobody supervises, in the same run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::binary::median;
use super::{Dhcp, Role, Running, address, in_server, mac, open, text};

/// A dnsmasq that nobody supervises, with the same hosts.
fn bare(directory: &Path, hosts: usize) -> Running {
    open(directory);
    let names: String =
        (0..hosts).map(|index| format!("{} vm-{index}.cs.example\n", address(index))).collect();
    let names_file = directory.join("names");
    fs::write(&names_file, names).unwrap();
    let lines: String = (0..hosts)
        .map(|index| format!("{},{},vm-{index}\n", text(mac(index)), address(index)))
        .collect();
    let (leases, file) = (directory.join("leases"), directory.join("hosts"));
    fs::write(&file, lines).unwrap();
    let config = directory.join("dnsmasq.conf");
    let text = format!(
        "keep-in-foreground\nuser=root\npid-file=\nno-resolv\nno-hosts\naddn-hosts={}\n\
         local=/cs.example/\ncache-size=10000\ninterface=br0\nexcept-interface=lo\n\
         bind-dynamic\ndhcp-authoritative\ndhcp-ignore=tag:!known\nno-ping\n\
         dhcp-lease-max=100000\ndhcp-leasefile={}\ndhcp-hostsfile={}\n\
         dhcp-range=10.77.0.0,static,255.255.0.0,infinite\n",
        names_file.display(),
        leases.display(),
        file.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = in_server(Path::new("/usr/sbin/dnsmasq"));
    Running(command.arg("-C").arg(config).arg("--log-facility=/dev/null").spawn().unwrap())
}

/// Exchanges per second that perfdhcp gets through.
fn perfdhcp(hosts: usize) -> f64 {
    let clients = hosts.to_string();
    let arguments =
        ["-4", "-l", "eth0", "-b", "mac=02:00:00:00:00:00", "-R", &clients, "-r", "3000"];
    let output = Command::new("perfdhcp").args(arguments).args(["-p", "5", "-W", "0"]).output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let rate = output.lines().find_map(|line| line.strip_prefix("Rate: ")).expect(&output);
    rate.split(' ').next().unwrap().parse().unwrap()
}

pub(super) async fn exchanges(binary: &Path, hosts: usize, rounds: usize) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        {
            let role = Role::with_subnet(binary).await;
            role.fill(hosts).await;
            ours.push(perfdhcp(hosts));
        }
        let directory = tempfile::tempdir().unwrap();
        let _bare = bare(directory.path(), hosts);
        let dhcp = Dhcp::new();
        while dhcp.lease(mac(0), Duration::from_millis(100)).is_none() {}
        drop(dhcp);
        theirs.push(perfdhcp(hosts));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "exchanges of {hosts} hosts: {ours:.0}/s under control, {theirs:.0}/s by a bare dnsmasq: \
         {:.2} x (goal 0.98 x)",
        ours / theirs
    );
}

/// Answers per second that dnsperf gets for the names of all hosts.
fn dnsperf(questions: &Path) -> f64 {
    let output = Command::new("dnsperf")
        .args(["-s", "10.77.0.1", "-l", "5", "-d"])
        .arg(questions)
        .output()
        .unwrap_or_else(|error| panic!("cannot run dnsperf: {error}; install it first"));
    let output = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| {
        output.lines().find_map(|line| line.trim().strip_prefix(name)).expect(&output).trim()
    };
    // Every name is there: anything but NOERROR is a fault.
    assert!(line("Response codes:").starts_with("NOERROR") && !output.contains("NXDOMAIN"));
    line("Queries per second:").parse().unwrap()
}

pub(super) async fn names(binary: &Path, hosts: usize, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let questions = directory.path().join("questions");
    let lines: String = (0..hosts).map(|index| format!("vm-{index}.cs.example A\n")).collect();
    fs::write(&questions, lines).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        {
            let role = Role::with_subnet(binary).await;
            role.fill(hosts).await;
            ours.push(dnsperf(&questions));
        }
        let directory = tempfile::tempdir().unwrap();
        let _bare = bare(directory.path(), hosts);
        let dhcp = Dhcp::new();
        while dhcp.lease(mac(0), Duration::from_millis(100)).is_none() {}
        drop(dhcp);
        theirs.push(dnsperf(&questions));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "answers of DNS for {hosts} names: {ours:.0}/s under control, {theirs:.0}/s by a bare \
         dnsmasq: {:.2} x",
        ours / theirs
    );
}
