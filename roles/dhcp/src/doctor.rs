//! What an operator would look at when guests get no address: dnsmasq, our powers, the interface,
//! and who else serves on it.

use dhcp_api::words::InterfaceName;
use role::{CommandSpec, DoctorCheck, DoctorContext, DoctorFinding};

use crate::config::Config;
use crate::reconciler::PROGRAM;
use crate::{machine, ports, version};

/// The checks, in the order in which one needs the other.
pub(crate) fn checks(config: &Config) -> Vec<DoctorCheck> {
    let (program, interface) = (config.dnsmasq.clone(), config.interface.clone());
    let (listened, serves_dns) = (config.interface.clone(), config.dns);
    let dnsmasq = move |cx: DoctorContext| {
        let program = program.clone();
        async move {
            let spec = CommandSpec::new(&program, PROGRAM).arg("--version");
            let remedy = "install the package dnsmasq-base, or set roles.dhcp.dnsmasq";
            match cx.host.runner.run(spec).await {
                Err(error) => fault(bedrock::chain(&error), remedy),
                Ok(output) => match version::parse(&output.stdout) {
                    Ok(version) => DoctorFinding::Good(format!("dnsmasq {version}")),
                    Err(error) => fault(error.to_string(), remedy),
                },
            }
        }
    };
    let capabilities = |_cx: DoctorContext| async {
        match machine::missing_capabilities() {
            Err(error) => DoctorFinding::Skipped(format!("cannot read our capabilities: {error}")),
            Ok(missing) if missing.is_empty() => {
                DoctorFinding::Good("dnsmasq gets what it needs to serve DHCP".to_owned())
            }
            Ok(missing) => fault(
                format!("dnsmasq cannot serve DHCP without {}", missing.join(", ")),
                "run as root, or with these as ambient capabilities",
            ),
        }
    };
    vec![
        DoctorCheck::machine("dhcp.dnsmasq", dnsmasq),
        DoctorCheck::machine("dhcp.capabilities", capabilities),
        DoctorCheck::machine("dhcp.interface", move |_cx| {
            std::future::ready(look_at_interface(&interface))
        }),
        DoctorCheck::machine("dhcp.ports", move |cx| {
            look_at_ports(cx, listened.clone(), serves_dns)
        }),
    ]
}

fn fault(problem: String, remedy: &str) -> DoctorFinding {
    DoctorFinding::Fault { problem, remedy: remedy.to_owned() }
}

fn look_at_interface(interface: &InterfaceName) -> DoctorFinding {
    let seen = machine::interface_exists(interface)
        .and_then(|exists| Ok((exists, machine::addresses_of(interface)?)));
    let (exists, addresses) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            return DoctorFinding::Skipped(format!("cannot look at {interface}: {error}"));
        }
    };
    if !exists {
        let remedy = "create the bridge of the guest network, or set roles.dhcp.interface";
        return fault(format!("interface {interface} does not exist"), remedy);
    }
    if addresses.is_empty() {
        return DoctorFinding::Warning {
            problem: format!("interface {interface} has no IPv4 address"),
            remedy: "give it an address in every subnet that is not shared or relayed".to_owned(),
        };
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    DoctorFinding::Good(format!("{interface} has {}", addresses.join(", ")))
}

/// Our own dnsmasq shows up, too, when the role runs.
async fn look_at_ports(
    cx: DoctorContext,
    interface: InterfaceName,
    serves_dns: bool,
) -> DoctorFinding {
    let spec = CommandSpec::new("ss", PROGRAM).arg("-Htulnp").arg("sport = :53 or sport = :67");
    let listeners = match cx.host.runner.run(spec).await {
        Ok(output) => output.stdout,
        Err(error) => return DoctorFinding::Skipped(bedrock::chain(&error)),
    };
    let found = ports::other_dhcp_server(&listeners, &interface)
        .or_else(|| ports::holder(&listeners, 67))
        .or_else(|| ports::holder(&listeners, 53).filter(|_| serves_dns));
    DoctorFinding::Good(match found {
        Some(holder) => format!("{holder}; while the role runs this is its own dnsmasq"),
        None => "nobody listens on the ports of DHCP and DNS".to_owned(),
    })
}
