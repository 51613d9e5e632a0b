//! PURE: one full listing: zone, networks, ranges, routers, then every machine page by page.
//!
//! Between two pages machines come and go. When the count changes, an id repeats or the pages do
//! not add up, the machines are listed once more; what was seen in either is known, and when that
//! drifted, too, nothing is concluded from what is missing.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use cloudstack_api::Listing;
use cloudstack_api::model::{Network, Router, VirtualMachine, VlanIpRange, VmState, Zone};
use cloudstack_api::paging::Page;
use dhcp_api::answer::AlarmKind;
use dhcp_api::words::MacAddress;
use uuid::Uuid;

use super::Notes;
use super::book::{Catalog, Infrastructure, Sightings, look_at_all, zone_of};

/// Pages of one listing.
const MOST_PAGES: u32 = 4000;

/// A question for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Zones,
    Networks(Uuid),
    Ranges(Uuid),
    Routers(Uuid),
    /// How many machines there are besides those of projects.
    Plain(Uuid),
    /// A page of all machines, from 1.
    Machines(Uuid, u32),
    /// Machines that are starting.
    Starting(Uuid),
    /// One machine.
    Machine(Uuid, Uuid),
}

/// What the server answered.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Zones(Listing<Zone>),
    Networks(Listing<Network>),
    /// With the addresses of our interface.
    Ranges(Listing<VlanIpRange>, Vec<Ipv4Addr>),
    Routers(Listing<Router>),
    Machines(Page<VirtualMachine>),
}

/// A listing under way.
#[derive(Debug, Default)]
pub(super) struct Full {
    zone: Option<Zone>,
    networks: Option<Vec<Network>>,
    ranges: Option<(Vec<VlanIpRange>, Vec<Ipv4Addr>)>,
    routers: Option<Vec<Router>>,
    /// Machines that a caller sees who does not ask for those of projects.
    plain: Option<u64>,
    machines: BTreeMap<Uuid, VirtualMachine>,
    /// Those of a first round that drifted.
    earlier: BTreeMap<Uuid, VirtualMachine>,
    page: u32,
    count: Option<u64>,
    gathered: u64,
    drifted: bool,
    is_second: bool,
    /// Time that the server took.
    pub(super) spent: Duration,
}

/// A whole listing.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) catalog: Catalog,
    pub(super) seen: Sightings,
    /// Whether something may be concluded from what is missing.
    pub(super) complete: bool,
    pub(super) notes: Notes,
}

/// Adds what only an earlier round saw, unless it contradicts.
fn join(seen: &mut Sightings, earlier: Sightings) {
    let addresses: HashSet<Ipv4Addr> = seen.values().flatten().map(|s| s.ipv4).collect();
    let macs: HashSet<MacAddress> = seen.values().flatten().map(|s| s.mac).collect();
    for (nic, sighting) in earlier {
        let fits = sighting
            .as_ref()
            .is_none_or(|s| !addresses.contains(&s.ipv4) && !macs.contains(&s.mac));
        if !seen.contains_key(&nic) && fits {
            seen.insert(nic, sighting);
        }
    }
}

impl Full {
    pub(super) fn next_call(&self) -> Call {
        let Some(zone) = self.zone.as_ref().map(|zone| zone.id) else { return Call::Zones };
        if self.networks.is_none() {
            Call::Networks(zone)
        } else if self.ranges.is_none() {
            Call::Ranges(zone)
        } else if self.routers.is_none() {
            Call::Routers(zone)
        } else if self.plain.is_none() {
            Call::Plain(zone)
        } else {
            Call::Machines(zone, self.page + 1)
        }
    }

    /// Takes an answer; gives the whole listing after the last.
    pub(super) fn answered(
        &mut self,
        found: Found,
        wanted_zone: &str,
        wanted_networks: &[String],
    ) -> Result<Option<Whole>, String> {
        match found {
            Found::Zones(list) => self.zone = Some(zone_of(list.items, wanted_zone)?),
            Found::Networks(list) => {
                self.drifted |= list.drifted;
                self.networks = Some(list.items);
            }
            Found::Ranges(list, local) => {
                self.drifted |= list.drifted;
                self.ranges = Some((list.items, local));
            }
            Found::Routers(list) => {
                self.drifted |= list.drifted;
                self.routers = Some(list.items);
            }
            Found::Machines(page) if self.plain.is_none() => self.plain = Some(page.count),
            Found::Machines(page) => return self.machines(page, wanted_networks),
        }
        Ok(None)
    }

    fn machines(
        &mut self,
        page: Page<VirtualMachine>,
        networks: &[String],
    ) -> Result<Option<Whole>, String> {
        self.page += 1;
        let first = *self.count.get_or_insert(page.count);
        let mut is_odd = page.count != first;
        let received = page.items.len();
        self.gathered += u64::try_from(received).unwrap_or(u64::MAX);
        let mut repeated = false;
        for machine in page.items {
            repeated |= self.machines.insert(machine.id, machine).is_some();
        }
        is_odd |= repeated;
        let is_last = received == 0 || self.gathered >= page.count;
        if is_last {
            is_odd |= self.gathered != page.count;
        } else if self.page >= MOST_PAGES {
            return Err(format!("the list of machines did not end within {MOST_PAGES} pages"));
        }
        if is_odd && !self.is_second {
            self.is_second = true;
            self.earlier = std::mem::take(&mut self.machines);
            (self.page, self.count, self.gathered) = (0, None, 0);
            return Ok(None);
        }
        self.drifted |= is_odd;
        if is_last { self.whole(networks).map(Some) } else { Ok(None) }
    }

    fn whole(&mut self, wanted: &[String]) -> Result<Whole, String> {
        let mut notes = Notes::default();
        let missing = || "the listing is not whole".to_owned();
        let (ranges, local) = self.ranges.take().ok_or_else(missing)?;
        let said = Infrastructure {
            zone: self.zone.take().ok_or_else(missing)?,
            networks: self.networks.take().ok_or_else(missing)?,
            ranges,
            routers: self.routers.take().ok_or_else(missing)?,
            local,
        };
        let catalog = Catalog::of(said, wanted, &mut notes)?;
        let mut seen = look_at_all(self.machines.values(), &catalog, &mut notes);
        if self.drifted {
            let earlier = look_at_all(self.earlier.values(), &catalog, &mut Notes::default());
            join(&mut seen, earlier);
        }
        let blind = self.blindness();
        if let Some(text) = blind {
            notes.add(AlarmKind::SyncRole, text);
        }
        let complete = !self.drifted && blind.is_none();
        Ok(Whole { catalog, seen, complete, notes })
    }

    /// Signs that the user of the API does not see everything.
    fn blindness(&self) -> Option<&'static str> {
        const REMEDY: &str = "the user of the API does not see every machine: give it a role of \
            type Admin with listZones, listNetworks, listVlanIpRanges, listVirtualMachines, \
            listRouters; until then nothing is removed";
        let running = |machine: &&VirtualMachine| machine.state == VmState::Running;
        let admin = |machine: &VirtualMachine| {
            machine.instance_name.is_some() || machine.host_name.is_some()
        };
        let mut running = self.machines.values().filter(running).peekable();
        let is_plain = running.peek().is_some() && !running.any(admin);
        let is_less = self.plain > self.count && !self.is_second;
        (is_plain || is_less).then_some(REMEDY)
    }
}
