//! The nftables rules of one bridge, as messages to the kernel: no program and no library is needed.
//!
//! One table of the `ip` family per bridge, named as the bridge, so that two bridges never touch each other's
//! rules. What `nft list ruleset` shows:
//!
//! ```text
//! table ip mica0 {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr 10.88.0.0/16 oifname != "mica0" masquerade comment "mica 1 10.88.0.0/16"
//!     }
//!     chain forward {
//!         type filter hook forward priority filter; policy accept;
//!         iifname "mica0" accept comment "mica 1 10.88.0.0/16"
//!         oifname "mica0" ct state established,related accept comment "mica 1 10.88.0.0/16"
//!         oifname "mica0" drop comment "mica 1 10.88.0.0/16"
//!     }
//! }
//! ```
//!
//! The comment says which version of these rules it is and for which subnet. Rules that are there already are not
//! written again, because a transaction costs its sender 13 ms (the kernel waits for all processors when the socket
//! is closed), and that would be most of what attaching a container takes.
//!
//! The drop is there because forwarding is switched on for the containers' sake: without it every neighbour of the
//! host could reach every port of every container by a route through the host. Published ports do not pass here,
//! they end at the host's own sockets. An `accept` of ours does not overrule another table's `drop`: on a host
//! whose own forward policy is to drop, its administrator must allow the bridge.

use std::net::Ipv4Addr;

use mica_sys::netlink::{Family, Message, Reply, Socket};

use crate::error::Result;
use crate::subnet::Ipv4Subnet;

// Numbers of linux/netfilter/nf_tables.h that the libc crate lacks.
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
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// Offset of the source address in an IPv4 header (RFC 791).
const IPV4_SOURCE_OFFSET: u32 = 12;
/// `NF_IP_PRI_NAT_SRC`, nft's `srcnat`.
const PRIORITY_SRCNAT: i32 = 100;
/// `NF_IP_PRI_FILTER`, nft's `filter`.
const PRIORITY_FILTER: i32 = 0;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
const CT_ESTABLISHED_RELATED: u32 = 0b110;
/// `IFNAMSIZ`: the kernel compares names in this many bytes.
const LINK_NAME_BYTES: usize = 16;

/// Length of `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;
/// nft's kind of user data that it shows as a comment (`NFTNL_UDATA_RULE_COMMENT`).
const USERDATA_COMMENT: u8 = 0;
/// Counts up with each change of the rules below, so that rules of an older mica are replaced.
const RULES_VERSION: u32 = 1;
/// How many rules there are below.
const RULES: usize = 4;

const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";

/// Writes the rules of a bridge, whatever was there before: one transaction, so no packet sees half of it, and
/// doing it twice, or from two processes, gives the same.
pub(crate) fn write_rules(bridge: &str, subnet: Ipv4Subnet) -> Result<()> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let comment = comment(subnet);
    if are_written(&mut socket, bridge, &comment)? {
        return Ok(());
    }
    let rule = |chain: &str, fill: &dyn Fn(Message) -> Message| rule(bridge, chain, &comment, fill);
    let create = libc::NLM_F_CREATE as u16;
    let messages = [
        batch_mark(libc::NFNL_MSG_BATCH_BEGIN),
        message(libc::NFT_MSG_NEWTABLE, create).string(TABLE_NAME, bridge),
        chain(bridge, POSTROUTING, "nat", libc::NF_INET_POST_ROUTING, PRIORITY_SRCNAT),
        chain(bridge, FORWARD, "filter", libc::NF_INET_FORWARD, PRIORITY_FILTER),
        flush(bridge, POSTROUTING),
        flush(bridge, FORWARD),
        rule(POSTROUTING, &|list| {
            let list = source_in(list, subnet);
            let list = link_name(list, libc::NFT_META_OIFNAME, libc::NFT_CMP_NEQ, bridge);
            expression(list, "masq", |data| data)
        }),
        rule(FORWARD, &|list| {
            verdict(link_name(list, libc::NFT_META_IIFNAME, libc::NFT_CMP_EQ, bridge), libc::NF_ACCEPT)
        }),
        rule(FORWARD, &|list| {
            let list = link_name(list, libc::NFT_META_OIFNAME, libc::NFT_CMP_EQ, bridge);
            verdict(is_answer(list), libc::NF_ACCEPT)
        }),
        rule(FORWARD, &|list| {
            verdict(link_name(list, libc::NFT_META_OIFNAME, libc::NFT_CMP_EQ, bridge), libc::NF_DROP)
        }),
        batch_mark(libc::NFNL_MSG_BATCH_END),
    ];
    Ok(socket.transaction(&messages, "nf_tables", bridge)?)
}

/// Removes the rules of a bridge; that there are none is no error.
pub(crate) fn remove_rules(bridge: &str) -> Result<()> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let messages = [
        batch_mark(libc::NFNL_MSG_BATCH_BEGIN),
        message(libc::NFT_MSG_DELTABLE, 0).string(TABLE_NAME, bridge),
        batch_mark(libc::NFNL_MSG_BATCH_END),
    ];
    match socket.transaction(&messages, "nf_tables", bridge) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Are all rules there, of this version and for this subnet, and no other?
fn are_written(socket: &mut Socket, bridge: &str, comment: &[u8]) -> Result<bool> {
    let rules = message(libc::NFT_MSG_GETRULE, 0).string(RULE_TABLE, bridge);
    let replies = match socket.dump(&rules, "nf_tables", bridge) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
        replies => replies?,
    };
    // Older kernels answer with the rules of all tables.
    let table = [bridge.as_bytes(), &[0]].concat();
    let ours = |reply: &&Reply| reply.attributes(HEADER_BYTES).any(|found| found == (RULE_TABLE, &table[..]));
    let as_written =
        |reply: &Reply| reply.attributes(HEADER_BYTES).any(|found| found == (RULE_USERDATA, comment));
    let written: Vec<bool> = replies.iter().filter(ours).map(as_written).collect();
    Ok(written.len() == RULES && written.into_iter().all(|as_written| as_written))
}

/// A comment as nft writes it: kind, length, text with its NUL.
fn comment(subnet: Ipv4Subnet) -> Vec<u8> {
    let text = format!("mica {RULES_VERSION} {subnet}\0");
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[USERDATA_COMMENT, length], text.as_bytes()].concat()
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = resource.to_be_bytes();
    [family, libc::NFNETLINK_V0 as u8, high, low]
}

fn batch_mark(kind: libc::c_int) -> Message {
    Message::new(kind as u16, 0).raw(&header(libc::AF_UNSPEC as u8, libc::NFNL_SUBSYS_NFTABLES as u16))
}

fn message(kind: libc::c_int, flags: u16) -> Message {
    let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind as u16;
    Message::new(kind, flags).raw(&header(libc::NFPROTO_IPV4 as u8, 0))
}

fn chain(table: &str, name: &str, kind: &str, hook: libc::c_int, priority: i32) -> Message {
    message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE as u16)
        .string(CHAIN_TABLE, table)
        .string(CHAIN_NAME, name)
        .nest(CHAIN_HOOK, |nest| {
            nest.u32_be(HOOK_NUMBER, hook as u32).attribute(HOOK_PRIORITY, &priority.to_be_bytes())
        })
        .u32_be(CHAIN_POLICY, libc::NF_ACCEPT as u32)
        .string(CHAIN_TYPE, kind)
}

/// Removes all rules of a chain.
fn flush(table: &str, chain: &str) -> Message {
    message(libc::NFT_MSG_DELRULE, 0).string(RULE_TABLE, table).string(RULE_CHAIN, chain)
}

fn rule(table: &str, chain: &str, comment: &[u8], fill: impl FnOnce(Message) -> Message) -> Message {
    message(libc::NFT_MSG_NEWRULE, (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16)
        .string(RULE_TABLE, table)
        .string(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, fill)
        .attribute(RULE_USERDATA, comment)
}

fn expression(list: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    list.nest(LIST_ELEMENT, |element| element.string(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, fill))
}

/// Compares register 1.
fn compare(list: Message, operation: libc::c_int, value: &[u8]) -> Message {
    expression(list, "cmp", |data| {
        data.u32_be(1, libc::NFT_REG_1 as u32)
            .u32_be(2, operation as u32)
            .nest(3, |nest| nest.attribute(DATA_VALUE, value))
    })
}

/// Leaves of register 1 the bits of `mask`.
fn mask(list: Message, mask: &[u8; 4]) -> Message {
    expression(list, "bitwise", |data| {
        data.u32_be(1, libc::NFT_REG_1 as u32)
            .u32_be(2, libc::NFT_REG_1 as u32)
            .u32_be(3, 4)
            .nest(4, |nest| nest.attribute(DATA_VALUE, mask))
            .nest(5, |nest| nest.attribute(DATA_VALUE, &[0; 4]))
    })
}

fn link_name(list: Message, key: libc::c_int, operation: libc::c_int, name: &str) -> Message {
    let list = expression(list, "meta", |data| data.u32_be(1, libc::NFT_REG_1 as u32).u32_be(2, key as u32));
    // The whole field, so that `mica0` is not a prefix that `mica01` matches too.
    let mut field = [0; LINK_NAME_BYTES];
    for (byte, value) in field.iter_mut().zip(name.bytes().take(LINK_NAME_BYTES - 1)) {
        *byte = value;
    }
    compare(list, operation, &field)
}

fn source_in(list: Message, subnet: Ipv4Subnet) -> Message {
    let list = expression(list, "payload", |data| {
        data.u32_be(1, libc::NFT_REG_1 as u32)
            .u32_be(2, libc::NFT_PAYLOAD_NETWORK_HEADER as u32)
            .u32_be(3, IPV4_SOURCE_OFFSET)
            .u32_be(4, 4)
    });
    let bytes = |address: Ipv4Addr| address.octets();
    compare(mask(list, &bytes(subnet.mask())), libc::NFT_CMP_EQ, &bytes(subnet.address()))
}

/// Belongs to a connection that exists already.
fn is_answer(list: Message) -> Message {
    let list = expression(list, "ct", |data| {
        data.u32_be(1, libc::NFT_REG_1 as u32).u32_be(2, libc::NFT_CT_STATE as u32)
    });
    compare(mask(list, &CT_ESTABLISHED_RELATED.to_ne_bytes()), libc::NFT_CMP_NEQ, &[0; 4])
}

fn verdict(list: Message, code: libc::c_int) -> Message {
    expression(list, "immediate", |data| {
        data.u32_be(1, libc::NFT_REG_VERDICT as u32)
            .nest(2, |nest| nest.nest(DATA_VERDICT, |verdict| verdict.u32_be(VERDICT_CODE, code as u32)))
    })
}
