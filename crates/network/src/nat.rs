//! Translation of addresses by nftables, asked for through netlink: no program is needed (linux/netfilter/nf_tables.h).

use std::net::Ipv4Addr;

use crate::{
    netlink::{APPEND, CREATE, Message, NetlinkError, Socket, attributes},
    subnet::Subnet,
};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_INET: u8 = 1;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_NAT_SRC: u32 = 100;

const fn kind(message: u16) -> u16 {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    NFNL_SUBSYS_NFTABLES << 8 | message
}
const NEWTABLE: u16 = kind(0);
const DELTABLE: u16 = kind(2);
const NEWCHAIN: u16 = kind(3);
const GETCHAIN: u16 = kind(4);
const NEWRULE: u16 = kind(6);

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// `NFT_REG_1`.
const REGISTER: u32 = 1;

const CHAIN: &str = "out";

/// `struct nfgenmsg`.
const IPV4: [u8; 4] = [NFPROTO_IPV4, 0, 0, 0];

/// What leaves through this device gets the device's address. For a namespace of ours.
pub(crate) fn masquerade_through(table: &str, device: &str) -> Result<(), NetlinkError> {
    Socket::transaction(table_with_rule(table, |rule| {
        let mut name = [0; 16];
        name[..device.len()].copy_from_slice(device.as_bytes());
        masquerade(compare(meta_out_device(rule), CMP_EQ, &name))
    }))
}

/// What comes from these addresses and leaves through another device than theirs gets that device's address. For the host.
pub(crate) fn masquerade_from(table: &str, source: Subnet, device: &str) -> Result<(), NetlinkError> {
    Socket::transaction(table_with_rule(table, |rule| {
        let mut name = [0; 16];
        name[..device.len()].copy_from_slice(device.as_bytes());
        let rule = compare(meta_out_device(rule), CMP_NEQ, &name);
        let mask = Ipv4Addr::from_bits(u32::MAX << (32 - source.prefix()));
        let rule = compare(masked(source_address(rule), mask), CMP_EQ, &source.address(0).octets());
        masquerade(rule)
    }))
}

/// Removes a table. One that is not there is as good.
pub(crate) fn remove(table: &str) -> Result<(), NetlinkError> {
    let message = Message::new("remove the packet filter's table", DELTABLE, 0, &IPV4).text(TABLE_NAME, table);
    match Socket::transaction(vec![message]) {
        Err(error) if error.is(rustix::io::Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Name of a chain that drops what is forwarded unless told otherwise, as docker's and most firewalls' do.
pub(crate) fn dropping_chain() -> Option<String> {
    const NF_DROP: u32 = 0;
    let socket = Socket::netfilter().ok()?;
    let mut found = None;
    let big_endian = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let message = Message::new("list the packet filter's chains", GETCHAIN, 0, &[0, 0, 0, 0]);
    let listed = socket.dump(message, |_, body| {
        let Some((&family, rest)) = body.split_first() else { return };
        if ![NFPROTO_IPV4, NFPROTO_INET].contains(&family) || rest.len() < 3 {
            return;
        }
        let rest = &rest[3..];
        let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let hook = find(CHAIN_HOOK).and_then(|hook| {
            attributes(hook).find(|(kind, _)| *kind == HOOK_NUMBER).and_then(|(_, value)| big_endian(value))
        });
        let table = find(CHAIN_TABLE).map(text).unwrap_or_default();
        let drops = find(CHAIN_POLICY).and_then(big_endian) == Some(NF_DROP)
            // firewalld accepts by policy and rejects by its last rule.
            || table == "firewalld";
        if hook == Some(NF_INET_FORWARD) && drops {
            found = Some(format!("{table} {}", find(CHAIN_NAME).map(text).unwrap_or_default()));
        }
    });
    listed.ok().and(found)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn table_with_rule(table: &str, fill: impl FnOnce(Message) -> Message) -> Vec<Message> {
    const ATTEMPT: &str = "translate addresses by nftables";
    let new_table = Message::new(ATTEMPT, NEWTABLE, CREATE, &IPV4).text(TABLE_NAME, table);
    let new_chain = Message::new(ATTEMPT, NEWCHAIN, CREATE, &IPV4)
        .text(CHAIN_TABLE, table)
        .text(CHAIN_NAME, CHAIN)
        .nested(CHAIN_HOOK, |hook| {
            hook.attribute(HOOK_NUMBER, &NF_INET_POST_ROUTING.to_be_bytes())
                .attribute(HOOK_PRIORITY, &PRIORITY_NAT_SRC.to_be_bytes())
        })
        .text(CHAIN_TYPE, "nat");
    let new_rule = Message::new(ATTEMPT, NEWRULE, CREATE | APPEND, &IPV4)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, CHAIN)
        .nested(RULE_EXPRESSIONS, fill);
    vec![new_table, new_chain, new_rule]
}

fn expression(rule: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    rule.nested(LIST_ELEMENT, |element| element.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, fill))
}

fn meta_out_device(rule: Message) -> Message {
    const META_DREG: u16 = 1;
    const META_KEY: u16 = 2;
    const META_OIFNAME: u32 = 7;
    expression(rule, "meta", |data| {
        data.attribute(META_KEY, &META_OIFNAME.to_be_bytes()).attribute(META_DREG, &REGISTER.to_be_bytes())
    })
}

fn source_address(rule: Message) -> Message {
    const NETWORK_HEADER: u32 = 1;
    /// Of `saddr` in the IPv4 header.
    const OFFSET: u32 = 12;
    const LENGTH: u32 = 4;
    expression(rule, "payload", |data| {
        data.attribute(1, &REGISTER.to_be_bytes())
            .attribute(2, &NETWORK_HEADER.to_be_bytes())
            .attribute(3, &OFFSET.to_be_bytes())
            .attribute(4, &LENGTH.to_be_bytes())
    })
}

fn masked(rule: Message, mask: Ipv4Addr) -> Message {
    expression(rule, "bitwise", |data| {
        data.attribute(1, &REGISTER.to_be_bytes())
            .attribute(2, &REGISTER.to_be_bytes())
            .attribute(3, &4u32.to_be_bytes())
            .nested(4, |value| value.attribute(DATA_VALUE, &mask.octets()))
            .nested(5, |value| value.attribute(DATA_VALUE, &[0; 4]))
    })
}

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

fn compare(rule: Message, operation: u32, with: &[u8]) -> Message {
    expression(rule, "cmp", |data| {
        data.attribute(1, &REGISTER.to_be_bytes())
            .attribute(2, &operation.to_be_bytes())
            .nested(3, |value| value.attribute(DATA_VALUE, with))
    })
}

fn masquerade(rule: Message) -> Message {
    expression(rule, "masq", |data| data)
}
