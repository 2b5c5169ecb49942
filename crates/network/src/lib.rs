//! Private networks: bridges, addresses, names, a way out, published ports.
//!
//! Knows nothing of images, containers' file systems or pipelines. Synchronous. Start at [`Networks::open`]: it takes a
//! network namespace, in which the bridges of one scope live, and joins others to it, one for each container
//! ([`Networks::reserve`], then [`Membership::attach`]). Everything ends with the processes that hold the namespaces; what
//! does not is a [`Leftover`].
//!
//! A container is reached by its names through the name server (`dns`) at its network's gateway. Packets leave the
//! namespace through the uplink: the host's own translation of addresses, or pasta or slirp4netns. From the host,
//! containers are reached through published ports only.

mod dns;
mod inside;
mod link;
mod names;
mod nat;
mod netlink;
mod networks;
mod publish;
mod stop;
mod subnet;
mod uplink;

pub use networks::{AddressRange, Error, Join, Member, Membership, Networks, Note, Options};
pub use publish::{Bound, Port, PublishError, Transport};
pub use uplink::{Leftover, NoWayOut, WayOut, ways_out};
