//! How often somebody may ask: a bucket of tokens for each address and each user, in a table that cannot grow.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{StatusCode, header};

use crate::server::answer::Refusal;

/// Buckets of one table: some megabytes. Beyond it the fullest are forgotten, which favours who asked least.
const BUCKETS_MAX: usize = 65_536;
/// One address has many users; so many more wrong passwords than for one user are taken from it.
const USERS_OF_ADDRESS: u32 = 10;

const TOO_MANY_PASSWORDS: &str = "too many wrong passwords";

/// So many within a time; that many at once as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: Duration,
}

impl Rate {
    /// `count` within `per`; neither is zero.
    pub fn new(count: u32, per: Duration) -> Option<Self> {
        (count > 0 && !per.is_zero()).then_some(Self { count, per })
    }

    /// Reads `100/s`, `600/m` or `5000/h`.
    pub fn parse(text: &str) -> Result<Self, InvalidRate> {
        let invalid = || InvalidRate(text.to_owned());
        let (count, unit) = text.split_once('/').ok_or_else(invalid)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(invalid()),
        };
        let count = count.parse().map_err(|_| invalid())?;
        Self::new(count, Duration::from_secs(seconds)).ok_or_else(invalid)
    }
}

/// The text is no rate.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{0}` is not a rate such as `100/s`, `600/m` or `5000/h`")]
pub struct InvalidRate(pub String);

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests from one address (one /64 network of IPv6); `None`: any number.
    pub per_address: Option<Rate>,
    /// Requests of one user; `None`: any number.
    pub per_user: Option<Rate>,
    /// Wrong passwords for one user from one address; ten times as many from one address for all users.
    pub failed_logins: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_address: None, per_user: None, failed_logins: Rate { count: 10, per: Duration::from_secs(60) } }
    }
}

/// The buckets of a server.
#[derive(Debug)]
pub(super) struct Meter {
    addresses: Option<Buckets<IpAddr>>,
    users: Option<Buckets<u64>>,
    failed: Buckets<(IpAddr, u64)>,
    failed_addresses: Buckets<IpAddr>,
    /// Names are remembered by hash: they may be long, and what was typed there by mistake is nobody's business.
    hasher: RandomState,
}

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        let failed = limits.failed_logins;
        Self {
            addresses: limits.per_address.map(Buckets::new),
            users: limits.per_user.map(Buckets::new),
            failed: Buckets::new(failed),
            failed_addresses: Buckets::new(Rate { count: failed.count.saturating_mul(USERS_OF_ADDRESS), ..failed }),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request from an address.
    pub(super) fn count_address(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(addresses) = &self.addresses else { return Ok(()) };
        addresses.take(network(address), Instant::now()).map_err(|wait| refusal("too many requests", wait))
    }

    /// Counts a request of a user.
    pub(super) fn count_user(&self, user: &str) -> Result<(), Refusal> {
        let Some(users) = &self.users else { return Ok(()) };
        let key = self.hasher.hash_one(user);
        users.take(key, Instant::now()).map_err(|wait| refusal("too many requests of this user", wait))
    }

    /// Whether a password may be tried.
    pub(super) fn check_login(&self, address: IpAddr, user: &str) -> Result<(), Refusal> {
        let (address, now) = (network(address), Instant::now());
        let one = self.failed.check(&(address, self.hasher.hash_one(user)), now);
        let all = self.failed_addresses.check(&address, now);
        one.and(all).map_err(|wait| refusal(TOO_MANY_PASSWORDS, wait))
    }

    /// Counts a password that is tried as a wrong one, so that nobody tries for nothing by going away before the answer. What
    /// it gives takes that back.
    pub(super) fn begin_login(&self, address: IpAddr, user: &str) -> Result<impl FnOnce(), Refusal> {
        let (address, user, now) = (network(address), self.hasher.hash_one(user), Instant::now());
        let one = self.failed.take((address, user), now);
        let all = self.failed_addresses.take(address, now);
        one.and(all).map_err(|wait| refusal(TOO_MANY_PASSWORDS, wait))?;
        Ok(move || {
            self.failed.give_back(&(address, user));
            self.failed_addresses.give_back(&address);
        })
    }
}

fn refusal(message: &str, wait: Duration) -> Refusal {
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
        .header(header::RETRY_AFTER, &format!("{seconds:.0}"))
}

/// Whoever has an address of IPv6 has a /64 network full of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    table: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    since: Instant,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, table: Mutex::default() }
    }

    /// Takes one token, or tells how long it takes until there is one.
    fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= BUCKETS_MAX && !table.contains_key(&key) {
            self.make_room(&mut table, now);
        }
        let bucket = table.entry(key).or_insert(Bucket { level: self.capacity(), since: now });
        *bucket = Bucket { level: self.level(bucket, now), since: now };
        if bucket.level < 1.0 {
            return Err(self.wait(bucket.level));
        }
        bucket.level -= 1.0;
        Ok(())
    }

    fn give_back(&self, key: &K) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = table.get_mut(key) {
            bucket.level = (bucket.level + 1.0).min(self.capacity());
        }
    }

    /// As `take`, but leaves the token.
    fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(key).map(|bucket| self.level(bucket, now)) {
            Some(level) if level < 1.0 => Err(self.wait(level)),
            _ => Ok(()),
        }
    }

    /// A quarter of the table at least, so that whoever has endless addresses does not cost a walk with each of them.
    fn make_room(&self, table: &mut HashMap<K, Bucket>, now: Instant) {
        for part in [1.0, 0.9, 0.5, 0.0] {
            table.retain(|_, bucket| self.level(bucket, now) < part * self.capacity());
            if table.len() <= BUCKETS_MAX / 4 * 3 {
                return;
            }
        }
    }

    fn capacity(&self) -> f64 {
        f64::from(self.rate.count)
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.since).as_secs_f64();
        (bucket.level + seconds * self.capacity() / self.rate.per.as_secs_f64()).min(self.capacity())
    }

    fn wait(&self, level: f64) -> Duration {
        self.rate.per.mul_f64((1.0 - level) / self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!(Rate::parse("600/m").unwrap(), Rate::new(600, Duration::from_secs(60)).unwrap());
        for text in ["600", "0/s", "-1/s", "1/d", "1/", "/s", "1.5/s", "99999999999/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buckets_empty_and_fill_with_time() {
        let buckets = Buckets::new(Rate::parse("6/m").unwrap());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for _ in 0..6 {
            buckets.take('a', at(0)).unwrap();
        }
        assert_eq!(buckets.take('a', at(0)), Err(Duration::from_secs(10)));
        assert_eq!(buckets.check(&'a', at(4)), Err(Duration::from_secs(6)));
        assert!(buckets.check(&'b', at(0)).is_ok() && buckets.take('b', at(0)).is_ok());
        buckets.take('a', at(10)).unwrap();
        assert!(buckets.take('a', at(10)).is_err());
        buckets.give_back(&'a');
        assert!(buckets.take('a', at(10)).is_ok() && buckets.take('a', at(10)).is_err());
        // It never holds more than its size.
        for _ in 0..6 {
            buckets.take('a', at(4000)).unwrap();
        }
        assert!(buckets.take('a', at(4000)).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_remembers_who_asks_most() {
        let buckets = Buckets::new(Rate::parse("2/h").unwrap());
        let now = Instant::now();
        let greedy = u32::MAX;
        while buckets.take(greedy, now).is_ok() {}
        for key in 0..BUCKETS_MAX as u32 + 1000 {
            buckets.take(key, now).unwrap();
        }
        assert!(buckets.table.lock().unwrap().len() <= BUCKETS_MAX);
        assert!(buckets.take(greedy, now).is_err());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
