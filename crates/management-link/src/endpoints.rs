//! Which management server to try next, and how long to wait before trying.
//!
//! The configured servers are only the seed: a server hands out the ordered list it wants us to
//! use, and the servers to avoid. Three rules decide the order of attempts:
//!
//! 1. the first round walks the list from its first entry (or behind the one used last), without
//!    the servers to avoid;
//! 2. when a whole round failed, the servers to avoid are tried too, and behind them the
//!    configured ones that the list lacks: a list that points nowhere must not lock us out;
//! 3. being attached, or a new list, starts over with rule 1.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bedrock::net::HostPort;

/// A management server's address as configured or as a server told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The list in use and the position in it.
#[derive(Debug)]
pub(crate) struct Endpoints {
    seeds: Vec<Endpoint>,
    port: u16,
    list: Vec<Endpoint>,
    /// As the server named it; `None` while the list is the configured one.
    algorithm: Option<String>,
    avoid: Vec<String>,
    /// What is left of the current round.
    round: VecDeque<Endpoint>,
    /// Whole rounds that ended without being attached.
    failed_rounds: u32,
    last: Option<Endpoint>,
}

impl Endpoints {
    /// `seeds` must not be empty; `port` is for hosts given without one. A host that only a server
    /// names gets the port that all configured ones share, else `port`.
    pub(crate) fn new(seeds: &[HostPort], port: u16) -> Self {
        let seeds: Vec<Endpoint> = seeds
            .iter()
            .map(|seed| Endpoint { host: seed.host.clone(), port: seed.port.unwrap_or(port) })
            .collect();
        let shared = seeds
            .first()
            .map(|first| first.port)
            .filter(|shared| seeds.iter().all(|seed| seed.port == *shared));
        Self {
            list: seeds.clone(),
            seeds,
            port: shared.unwrap_or(port),
            algorithm: None,
            avoid: Vec::new(),
            round: VecDeque::new(),
            failed_rounds: 0,
            last: None,
        }
    }

    /// Takes over other configured servers; what a server sent before is forgotten. `false` when
    /// they are the same.
    pub(crate) fn reseed(&mut self, seeds: &[HostPort], port: u16) -> bool {
        let new = Self::new(seeds, port);
        let changed = new.seeds != self.seeds || new.port != self.port;
        if changed {
            *self = new;
        }
        changed
    }

    /// Whether the list in use has this server.
    pub(crate) fn has(&self, endpoint: &Endpoint) -> bool {
        self.list.contains(endpoint)
    }

    /// Takes over a list that a server sent. Without hosts or without an algorithm it means
    /// "unchanged". Returns whether the list or the algorithm is another one now.
    pub(crate) fn replace(&mut self, hosts: &[String], algorithm: Option<&str>) -> bool {
        let Some(algorithm) = algorithm.map(str::trim).filter(|text| !text.is_empty()) else {
            return false;
        };
        let list: Vec<Endpoint> = hosts.iter().filter_map(|host| self.endpoint(host)).collect();
        if list.is_empty() {
            return false;
        }
        let changed = list != self.list || self.algorithm.as_deref() != Some(algorithm);
        if changed {
            self.list = list;
            self.algorithm = Some(algorithm.to_owned());
            self.start_over(None);
        }
        changed
    }

    /// Takes over what [`Endpoints::reported`] gave in an earlier run.
    pub(crate) fn restore(&mut self, reported: &str) {
        if let Some((hosts, algorithm)) = reported.split_once('@') {
            let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
            self.replace(&hosts, Some(algorithm));
        }
    }

    fn endpoint(&self, text: &str) -> Option<Endpoint> {
        let parsed: HostPort = text.trim().parse().ok()?;
        let seed = self.seeds.iter().find(|seed| seed.host.eq_ignore_ascii_case(&parsed.host));
        let port = parsed.port.or_else(|| seed.map(|seed| seed.port)).unwrap_or(self.port);
        Some(Endpoint { host: parsed.host, port })
    }

    /// The list as the startup command reports it: `10.1.1.2,10.1.1.3@static`.
    pub(crate) fn reported(&self) -> String {
        let hosts: Vec<&str> = self.list.iter().map(|endpoint| endpoint.host.as_str()).collect();
        match &self.algorithm {
            Some(algorithm) => format!("{}@{algorithm}", hosts.join(",")),
            None => hosts.join(","),
        }
    }

    /// Whether a server gave the list, so that it is worth remembering.
    pub(crate) const fn is_learned(&self) -> bool {
        self.algorithm.is_some()
    }

    /// Whether the preferred server is checked once instead of again and again.
    pub(crate) fn is_shuffled(&self) -> bool {
        self.algorithm.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("shuffle"))
    }

    /// Replaces the servers to avoid; nothing given means none.
    pub(crate) fn avoid(&mut self, hosts: &[String]) {
        self.avoid = hosts.iter().map(|host| host.trim().to_owned()).collect();
    }

    pub(crate) fn is_avoided(&self, endpoint: &Endpoint) -> bool {
        self.avoid.iter().any(|host| host.eq_ignore_ascii_case(&endpoint.host))
    }

    /// The server the list wants us to use.
    pub(crate) fn preferred(&self) -> Option<&Endpoint> {
        self.list.first()
    }

    /// Where a migration may go: the list without the servers to avoid and the current one.
    pub(crate) fn candidates(&self, current: &Endpoint) -> VecDeque<Endpoint> {
        self.list
            .iter()
            .filter(|endpoint| !self.is_avoided(endpoint) && *endpoint != current)
            .cloned()
            .collect()
    }

    /// The next server to try. `None` only when there is no server at all.
    pub(crate) fn next(&mut self) -> Option<Endpoint> {
        // Three turns: what is left of this round, a round with the avoid list, one without.
        for _turn in 0..3 {
            while let Some(endpoint) = self.round.pop_front() {
                if self.failed_rounds > 0 || !self.is_avoided(&endpoint) {
                    self.last = Some(endpoint.clone());
                    return Some(endpoint);
                }
            }
            if self.last.is_some() || !self.list.iter().any(|entry| !self.is_avoided(entry)) {
                self.failed_rounds = self.failed_rounds.saturating_add(1);
            }
            self.fill_round();
        }
        None
    }

    fn fill_round(&mut self) {
        let position = self.last.as_ref().and_then(|last| self.list.iter().position(|e| e == last));
        self.round = self.list.iter().cloned().collect();
        if let Some(position) = position {
            let behind = (position + 1) % self.list.len().max(1);
            self.round.rotate_left(behind);
        }
        let missing: Vec<Endpoint> =
            self.seeds.iter().filter(|seed| !self.list.contains(seed)).cloned().collect();
        if self.failed_rounds > 0 {
            self.round.extend(missing);
        }
    }

    /// We are attached to `endpoint`: the next round begins behind it.
    pub(crate) fn attached(&mut self, endpoint: &Endpoint) {
        self.start_over(Some(endpoint.clone()));
    }

    fn start_over(&mut self, last: Option<Endpoint>) {
        self.failed_rounds = 0;
        self.last = last;
        self.fill_round();
    }
}

/// How long to wait before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    step: Duration,
    longest: Duration,
    refusals: u32,
    random: u64,
}

impl Backoff {
    /// `step` follows every loss and every failed attempt; refusals grow from it to `longest`.
    pub(crate) fn new(step: Duration, longest: Duration, seed: u64) -> Self {
        Self { step, longest: longest.max(step), refusals: 0, random: seed | 1 }
    }

    /// Other waits from the next one on.
    pub(crate) fn reconfigure(&mut self, step: Duration, longest: Duration) {
        self.step = step;
        self.longest = longest.max(step);
    }

    /// After a lost link or a failed attempt: at least `step`, which gives the server the time to
    /// notice that the old link is gone.
    pub(crate) fn after_loss(&mut self) -> Duration {
        self.jittered(self.step)
    }

    /// After the server refused us: doubling up to the longest wait.
    pub(crate) fn after_refusal(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.refusals).unwrap_or(u32::MAX);
        self.refusals = (self.refusals + 1).min(16);
        self.jittered(self.step.saturating_mul(factor).min(self.longest))
    }

    /// The longest wait there is, for a server that does not want us any more.
    pub(crate) fn longest(&mut self) -> Duration {
        self.jittered(self.longest)
    }

    /// We are attached: the next refusal is a first one.
    pub(crate) fn reset(&mut self) {
        self.refusals = 0;
    }

    /// Adds up to a fifth, so that agents that lost a server together do not come back together.
    fn jittered(&mut self, wait: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let thousandths = u32::try_from(self.random % 201).unwrap_or(0);
        wait + wait.saturating_mul(thousandths) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(seeds: &str) -> Endpoints {
        let seeds: Vec<HostPort> = seeds.split(',').map(|seed| seed.parse().unwrap()).collect();
        Endpoints::new(&seeds, 8250)
    }

    fn hosts(list: &str) -> Vec<String> {
        list.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect()
    }

    fn walk(endpoints: &mut Endpoints, steps: usize) -> Vec<String> {
        (0..steps).map(|_| endpoints.next().unwrap().to_string()).collect()
    }

    #[test]
    fn the_list_is_walked_in_order_and_wraps() {
        let mut endpoints = endpoints("a,b:9000,::1");
        assert_eq!(walk(&mut endpoints, 4), ["a:8250", "b:9000", "[::1]:8250", "a:8250"]);
    }

    #[test]
    fn the_avoid_list_is_ignored_after_one_full_round() {
        let mut endpoints = endpoints("a,b,c");
        endpoints.avoid(&hosts("b"));
        assert_eq!(walk(&mut endpoints, 5), ["a:8250", "c:8250", "a:8250", "b:8250", "c:8250"]);
        endpoints.attached(&Endpoint { host: "a".to_owned(), port: 8250 });
        assert_eq!(walk(&mut endpoints, 1), ["c:8250"]);
    }

    #[test]
    fn a_list_with_nothing_but_servers_to_avoid_is_used_at_once() {
        let mut endpoints = endpoints("a,b");
        endpoints.avoid(&hosts("a,b"));
        assert_eq!(walk(&mut endpoints, 3), ["a:8250", "b:8250", "a:8250"]);
    }

    #[test]
    fn a_new_list_starts_at_its_first_entry_and_the_seed_is_the_last_resort() {
        let mut endpoints = endpoints("seed:7000");
        assert_eq!(walk(&mut endpoints, 1), ["seed:7000"]);
        assert!(endpoints.replace(&hosts("x,y"), Some("roundrobin")));
        assert_eq!(walk(&mut endpoints, 4), ["x:7000", "y:7000", "x:7000", "y:7000"]);
        assert_eq!(walk(&mut endpoints, 1), ["seed:7000"]);
    }

    #[test]
    fn a_host_of_the_servers_list_keeps_its_configured_port() {
        let mut endpoints = endpoints("127.0.0.1:4711");
        assert!(endpoints.replace(&hosts("127.0.0.1"), Some("static")));
        assert_eq!(endpoints.reported(), "127.0.0.1@static");
        assert_eq!(walk(&mut endpoints, 2), ["127.0.0.1:4711", "127.0.0.1:4711"]);
    }

    #[test]
    fn a_host_that_only_the_list_names_has_the_port_all_configured_ones_share() {
        for (seeds, expected) in [("a:9000,b:9000", "x:9000"), ("a:9000,b:9001", "x:8250")] {
            let mut endpoints = endpoints(seeds);
            assert!(endpoints.replace(&hosts("x"), Some("static")));
            assert_eq!(walk(&mut endpoints, 1), [expected]);
        }
    }

    #[test]
    fn only_a_list_with_an_algorithm_counts() {
        let mut endpoints = endpoints("a,b");
        assert_eq!(endpoints.reported(), "a,b");
        assert!(!endpoints.replace(&hosts("x"), None));
        assert!(!endpoints.replace(&hosts("x"), Some("")));
        assert!(!endpoints.replace(&[], Some("static")));
        assert!(!endpoints.replace(&hosts("not a host"), Some("static")));
        assert!(!endpoints.is_learned());
        assert!(endpoints.replace(&hosts("x, y"), Some("shuffle")));
        assert!(!endpoints.replace(&hosts("x,y"), Some("shuffle")));
        assert!(endpoints.is_shuffled());
        assert_eq!(endpoints.reported(), "x,y@shuffle");
    }

    #[test]
    fn a_remembered_list_is_restored_with_its_algorithm() {
        let mut endpoints = endpoints("a");
        endpoints.restore("x,y@static");
        assert_eq!(endpoints.reported(), "x,y@static");
        endpoints.restore("z");
        assert_eq!(endpoints.reported(), "x,y@static");
    }

    #[test]
    fn migration_candidates_leave_out_the_current_server_and_the_avoided_ones() {
        let mut endpoints = endpoints("a,b,c");
        endpoints.avoid(&hosts("C"));
        let current = Endpoint { host: "a".to_owned(), port: 8250 };
        let candidates: Vec<String> =
            endpoints.candidates(&current).iter().map(ToString::to_string).collect();
        assert_eq!(candidates, ["b:8250"]);
    }

    #[test]
    fn refusals_back_off_to_the_longest_wait_and_losses_stay_at_the_step() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(5 * second, 60 * second, 7);
        for expected in [5, 10, 20, 40, 60, 60] {
            let wait = backoff.after_refusal();
            assert!(wait >= expected * second && wait <= expected * second * 6 / 5, "{wait:?}");
            let wait = backoff.after_loss();
            assert!(wait >= 5 * second && wait <= 6 * second, "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.after_refusal() <= 6 * second);
    }
}
