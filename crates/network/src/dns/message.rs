//! Questions and answers on the wire (RFC 1035).

use std::net::Ipv4Addr;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, PTR, RData},
};

use super::Book;
use crate::names::Answer;

/// What becomes of a question.
pub(super) enum Reply {
    Now(Vec<u8>),
    /// Others have to be asked.
    Outside,
}

/// Containers come and go, and a question costs microseconds.
const TIME_TO_LIVE_S: u32 = 0;
/// What surely fits into 512 bytes (RFC 1035, 4.2.1). Others have their turn next time.
const ADDRESSES_MAX: usize = 20;

/// `None`: not a question.
pub(super) fn reply(bytes: &[u8], asker: Ipv4Addr, book: &Book) -> Option<Reply> {
    let Ok(question) = Packet::parse(bytes) else { return error(bytes, RCODE::FormatError).map(Reply::Now) };
    if question.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    if question.opcode() != OPCODE::StandardQuery {
        return error(bytes, RCODE::NotImplemented).map(Reply::Now);
    }
    let [asked] = question.questions.as_slice() else { return error(bytes, RCODE::FormatError).map(Reply::Now) };
    let name = asked.qname.to_string();
    let is_ours = matches!(asked.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    let records = match address_of_pointer(&name) {
        _ if !is_ours => Answer::Outside,
        Some(address) => match book.names().name_of(asker, address, book.leads_out()) {
            Answer::Known(found) => Answer::Known(vec![Found::Name(found)]),
            Answer::Outside => Answer::Outside,
            Answer::Unknown => Answer::Unknown,
        },
        None => match book.names().addresses(asker, &name, book.leads_out()) {
            Answer::Known(found) => Answer::Known(found.into_iter().map(Found::Address).collect()),
            Answer::Outside => Answer::Outside,
            Answer::Unknown => Answer::Unknown,
        },
    };
    match records {
        Answer::Outside => Some(Reply::Outside),
        Answer::Unknown => finish(&question, asked, RCODE::NameError, &[]).map(Reply::Now),
        // A name that we know has addresses of this one kind only; other kinds are an empty answer, not an unknown name.
        Answer::Known(found) => finish(&question, asked, RCODE::NoError, &found).map(Reply::Now),
    }
}

/// The answer that nobody could be asked.
pub(super) fn failure(question: &[u8]) -> Option<Vec<u8>> {
    error(question, RCODE::ServerFailure)
}

enum Found {
    Address(Ipv4Addr),
    Name(String),
}

fn finish(question: &Packet<'_>, asked: &Question<'_>, code: RCODE, found: &[Found]) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = code;
    let wants = |kind| matches!(asked.qtype, QTYPE::ANY) || asked.qtype == QTYPE::TYPE(kind);
    for found in found.iter().take(ADDRESSES_MAX) {
        let data = match found {
            Found::Address(address) if wants(TYPE::A) => RData::A(A { address: address.to_bits() }),
            Found::Name(name) if wants(TYPE::PTR) => RData::PTR(PTR(Name::new(name).ok()?)),
            _ => continue,
        };
        reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TIME_TO_LIVE_S, data));
    }
    reply.questions.push(asked.clone());
    reply.build_bytes_vec_compressed().ok()
}

/// A reply without answers, also to what cannot be understood beyond its first bytes.
fn error(question: &[u8], code: RCODE) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes(question.get(0..2)?.try_into().ok()?);
    if question.get(2)? & 0x80 != 0 {
        return None;
    }
    let mut reply = Packet::new_reply(id);
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    *reply.rcode_mut() = code;
    if let Ok(question) = Packet::parse(question) {
        reply.questions = question.questions.into_iter().map(Question::into_owned).collect();
    }
    reply.build_bytes_vec_compressed().ok()
}

/// The address that a name of `in-addr.arpa` is about (RFC 1035, 3.5).
fn address_of_pointer(name: &str) -> Option<Ipv4Addr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(Name::new_unchecked(name), kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    fn check(question: &[u8], book: &Book, asker: Ipv4Addr, expected: &str) {
        let told = match reply(question, asker, book) {
            None => "nothing".to_owned(),
            Some(Reply::Outside) => "outside".to_owned(),
            Some(Reply::Now(bytes)) => {
                let packet = Packet::parse(&bytes).unwrap();
                assert!(packet.has_flags(PacketFlag::RESPONSE) && packet.id() == 7);
                let data = packet.answers.iter().map(|record| match &record.rdata {
                    RData::A(a) => Ipv4Addr::from_bits(a.address).to_string(),
                    RData::PTR(name) => name.0.to_string(),
                    other => format!("{other:?}"),
                });
                format!("{:?} {}", packet.rcode(), data.collect::<Vec<_>>().join(" "))
            }
        };
        assert_eq!(told.trim(), expected);
    }

    #[test]
    fn questions_get_answers_of_their_kind() {
        let book = Book::default();
        let subnet = crate::subnet::Subnet::of(Ipv4Addr::new(10, 231, 0, 0), 20).unwrap();
        let (asker, _end) = {
            let mut names = book.names();
            names.bridges.push(crate::names::Bridge::new("a", subnet, false));
            let member =
                names.add("db", vec![crate::names::Seat { names: vec!["db".into()], ..Default::default() }]).unwrap();
            let (read, write) = rustix::pipe::pipe().unwrap();
            names.starts(member, read);
            (names.places(member)[0].address, write)
        };
        let [a, b, c, d] = asker.octets();
        let pointer = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
        check(&ask("DB", TYPE::A), &book, asker, &format!("NoError {asker}"));
        check(&ask("db", TYPE::AAAA), &book, asker, "NoError");
        check(&ask("db", TYPE::MX), &book, asker, "NoError");
        check(&ask(&pointer, TYPE::PTR), &book, asker, "NoError db");
        check(&ask("9.9.231.10.in-addr.arpa", TYPE::PTR), &book, asker, "NameError");
        check(&ask("debian.org", TYPE::A), &book, asker, "NameError");
        book.has_way_out.store(true, std::sync::atomic::Ordering::Relaxed);
        check(&ask("debian.org", TYPE::A), &book, asker, "outside");
        check(&ask("1.1.1.1.in-addr.arpa", TYPE::PTR), &book, asker, "outside");
        // Somebody whom we do not know.
        check(&ask("db", TYPE::A), &book, Ipv4Addr::LOCALHOST, "NameError");
        check(&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63], &book, asker, "FormatError");
        check(&[0, 7, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63], &book, asker, "nothing");
        check(&[0], &book, asker, "nothing");
    }
}
