//! Every endpoint of the API. The server routes by this list, the document is made from it, and
//! clients take their paths from it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

macro_rules! operations {
    ($(#[doc = $summary:literal] $name:ident = $method:ident $path:literal $id:literal [$($query:literal)*];)*) => {
        /// One endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation {
            $(#[doc = $summary] $name,)*
        }

        impl Operation {
            /// Every endpoint.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Method and path; parameters stand in braces.
            pub const fn method(self) -> Method {
                match self {
                    $(Self::$name => Method::$method,)*
                }
            }

            /// Path; parameters stand in braces.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }

            /// Its name in the document.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }

            /// What it does.
            pub fn summary(self) -> &'static str {
                match self {
                    $(Self::$name => $summary.trim(),)*
                }
            }

            /// What its query may say.
            pub const fn query(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($query),*],)*
                }
            }
        }
    };
}

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Put,
    Post,
    Delete,
}

impl Method {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

operations! {
    /// The process is alive and the API answers.
    Healthz = Get "/v1/healthz" "healthz" [];
    /// dnsmasq serves.
    Readyz = Get "/v1/readyz" "readyz" [];
    /// State of the role.
    ShowStatus = Get "/v1/status" "showStatus" [];
    /// This API as an OpenAPI document.
    ShowOpenApi = Get "/v1/openapi.json" "showOpenApi" [];
    /// A rendered file of dnsmasq.
    ShowConfig = Get "/v1/instances/main/config" "showConfig" ["file"];
    /// Why a client, by MAC, address or name, gets an address, or why it does not.
    Explain = Get "/v1/explain/{who}" "explain" [];
    /// What a client said and was told lately, and what it says after a number.
    Trace = Get "/v1/trace/{mac}" "trace" ["after"];
    /// Asks on the interface whether somebody else gives addresses; takes three seconds.
    Probe = Post "/v1/probe/rogue-dhcp" "probe" [];
    /// Reads the management server's book now, and says what came of it.
    SyncNow = Post "/v1/sync" "syncNow" ["force" "dry_run"];
    /// The last changes: who made them, when, and what they were; the newest first.
    ListChanges = Get "/v1/changes" "listChanges" ["limit"];
    /// Changes and alarms as server-sent events; Last-Event-ID tells what was missed.
    Events = Get "/v1/events" "events" [];
    /// How far a change has come.
    ShowChange = Get "/v1/changes/{id}" "showChange" [];
    /// Everything of the API, as one document; it can be put again.
    ShowDocument = Get "/v1/desired" "showDocument" [];
    /// Replaces everything of the API by a document: what is not listed goes.
    PutDocument = Put "/v1/desired" "putDocument" ["force" "dry_run"];
    /// Says everything that is wrong with a document, or with that of one zone, and stores nothing.
    Validate = Post "/v1/validate" "validate" ["zone"];
    /// Zones by id.
    ListZones = Get "/v1/zones" "listZones" ["limit" "cursor"];
    /// One zone.
    ShowZone = Get "/v1/zones/{zone}" "showZone" [];
    /// Creates or replaces a zone.
    PutZone = Put "/v1/zones/{zone}" "putZone" [];
    /// Removes a zone.
    DeleteZone = Delete "/v1/zones/{zone}" "deleteZone" ["cascade"];
    /// Subnets of a zone by id.
    ListSubnets = Get "/v1/zones/{zone}/subnets" "listSubnets" ["limit" "cursor"];
    /// One subnet.
    ShowSubnet = Get "/v1/zones/{zone}/subnets/{subnet}" "showSubnet" [];
    /// Creates or replaces a subnet.
    PutSubnet = Put "/v1/zones/{zone}/subnets/{subnet}" "putSubnet" [];
    /// Removes a subnet.
    DeleteSubnet = Delete "/v1/zones/{zone}/subnets/{subnet}" "deleteSubnet" ["cascade"];
    /// Ranges of a subnet by id.
    ListRanges = Get "/v1/zones/{zone}/subnets/{subnet}/ranges" "listRanges" ["limit" "cursor"];
    /// One range.
    ShowRange = Get "/v1/zones/{zone}/subnets/{subnet}/ranges/{range}" "showRange" [];
    /// Creates or replaces a range.
    PutRange = Put "/v1/zones/{zone}/subnets/{subnet}/ranges/{range}" "putRange" [];
    /// Removes a range.
    DeleteRange = Delete "/v1/zones/{zone}/subnets/{subnet}/ranges/{range}" "deleteRange" [];
    /// Option sets of a zone by id.
    ListOptionSets = Get "/v1/zones/{zone}/option-sets" "listOptionSets" ["limit" "cursor"];
    /// One option set.
    ShowOptionSet = Get "/v1/zones/{zone}/option-sets/{option_set}" "showOptionSet" [];
    /// Creates or replaces an option set: every client of it gets the new options.
    PutOptionSet = Put "/v1/zones/{zone}/option-sets/{option_set}" "putOptionSet" [];
    /// Removes an option set that nobody names.
    DeleteOptionSet = Delete "/v1/zones/{zone}/option-sets/{option_set}" "deleteOptionSet" [];
    /// Reservations of a zone by id.
    ListReservations = Get "/v1/zones/{zone}/reservations" "listReservations"
        ["mac" "ip" "hostname" "subnet" "source" "leased" "limit" "cursor"];
    /// The reservation of a MAC address.
    ShowReservationByMac = Get "/v1/zones/{zone}/reservations/by-mac/{mac}"
        "showReservationByMac" [];
    /// The reservation of an address.
    ShowReservationByIp = Get "/v1/zones/{zone}/reservations/by-ip/{ip}" "showReservationByIp" [];
    /// One reservation.
    ShowReservation = Get "/v1/zones/{zone}/reservations/{reservation}" "showReservation" [];
    /// Creates or replaces a reservation.
    PutReservation = Put "/v1/zones/{zone}/reservations/{reservation}" "putReservation" [];
    /// Removes a reservation.
    DeleteReservation = Delete "/v1/zones/{zone}/reservations/{reservation}"
        "deleteReservation" [];
    /// Creates, replaces and removes reservations: all or nothing, one reload.
    BatchReservations = Post "/v1/zones/{zone}/reservations:batch" "batchReservations" [];
    /// Everything of one source in a zone; it can be put again.
    ShowDesired = Get "/v1/zones/{zone}/desired" "showDesired" ["source"];
    /// Replaces everything of the API in a zone: what is not listed goes.
    PutDesired = Put "/v1/zones/{zone}/desired" "putDesired" ["force" "dry_run"];
    /// DNS records of a zone by name and type.
    ListRecords = Get "/v1/zones/{zone}/records" "listRecords" ["limit" "cursor"];
    /// One DNS record.
    ShowRecord = Get "/v1/zones/{zone}/records/{name}/{type}" "showRecord" [];
    /// Creates or replaces a DNS record.
    PutRecord = Put "/v1/zones/{zone}/records/{name}/{type}" "putRecord" [];
    /// Removes a DNS record.
    DeleteRecord = Delete "/v1/zones/{zone}/records/{name}/{type}" "deleteRecord" [];
    /// Leases in a zone by address.
    ListLeases = Get "/v1/zones/{zone}/leases" "listLeases"
        ["subnet" "mac" "ip" "conflict" "limit" "cursor"];
    /// Takes a lease back.
    DeleteLease = Delete "/v1/zones/{zone}/leases/{ip}" "deleteLease" ["mac"];
}

/// What may stand in a path segment as it is (RFC 3986, 3.3).
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

impl Operation {
    /// The path for a client, with the parameters filled in, in order. `None` when there are more
    /// or fewer values than parameters.
    pub fn uri(self, values: &[&str]) -> Option<String> {
        let mut values = values.iter();
        let mut uri = String::new();
        for segment in self.path().split('/').skip(1) {
            uri.push('/');
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(_) => uri.extend(utf8_percent_encode(values.next()?, SEGMENT)),
                None => uri.push_str(segment),
            }
        }
        values.next().is_none().then_some(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_fills_in_its_values() {
        let uri = Operation::PutRecord.uri(&["z 1", "_ldap._tcp", "SRV"]);
        assert_eq!(uri.as_deref(), Some("/v1/zones/z%201/records/_ldap._tcp/SRV"));
        assert_eq!(Operation::PutRecord.uri(&["z1"]), None);
        assert_eq!(Operation::ListZones.uri(&["z1"]), None);
        let batch = Operation::BatchReservations.uri(&["z1"]);
        assert_eq!(batch.as_deref(), Some("/v1/zones/z1/reservations:batch"));
    }

    #[test]
    fn no_two_endpoints_are_the_same() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            for other in &Operation::ALL[..index] {
                assert_ne!(operation.id(), other.id());
                assert_ne!((operation.method(), operation.path()), (other.method(), other.path()));
            }
        }
    }
}
