use hickory_proto::op::{Edns as ForeignEdns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType as ForeignType};
use proptest::prelude::*;

use super::*;

fn query(name: &str, kind: ForeignType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn reply_to(message: &Message) -> Message {
    let mut reply = message.clone();
    reply.metadata.message_type = MessageType::Response;
    reply
}

fn read(message: &Message) -> Request {
    Request::read(&message.to_vec().unwrap()).unwrap()
}

#[test]
fn a_query_of_a_foreign_library_is_read() {
    let mut message = query("Cart.Shop.svc.cluster.local.", ForeignType::AAAA);
    let mut edns = ForeignEdns::new();
    edns.set_max_payload(1400);
    edns.set_dnssec_ok(true);
    message.set_edns(edns);
    let request = read(&message);
    let question = request.question().unwrap();
    assert_eq!((question.name.as_str(), question.kind), ("cart.shop.svc.cluster.local", RecordType::AAAA));
    assert_eq!(request.edns(), Some(&Edns { payload: 1400, version: 0, dnssec_ok: true }));
    assert!(request.question_bytes().unwrap().starts_with(b"\x04Cart\x04Shop"), "case is kept");
    assert_eq!(request.bytes(), message.to_vec().unwrap());
}

#[test]
fn bytes_that_no_host_name_has_cannot_make_another_name() {
    for (label, text) in [("\x03a.b", "a\\046b"), ("\x03a\\b", "a\\092b"), ("\x02a\0", "a\\000"), ("\x01 ", "\\032")] {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(label.as_bytes());
        bytes.extend([0, 0, 1, 0, 1]);
        assert_eq!(Request::read(&bytes).unwrap().question().unwrap().name, text);
    }
}

#[test]
fn what_leads_out_of_the_message_is_malformed() {
    let good = query("cart.", ForeignType::A).to_vec().unwrap();
    assert!(Request::read(&good).is_ok());
    for length in 0..good.len() {
        let cut = Request::read(&good[..length]);
        match length {
            0..HEADER_BYTES => assert_eq!(cut, Err(ReadError::Short { bytes: length })),
            _ => assert!(matches!(cut, Err(ReadError::Malformed { .. })), "{length}"),
        }
    }
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Request::read(&bytes)
    };
    assert!(matches!(changed(2, 0x80), Err(ReadError::Response { .. })));
    for (at, value) in [(5, 2), (7, 1), (9, 1), (11, 1), (12, 0xc0), (12, 0x40), (12, 63)] {
        assert!(matches!(changed(at, value), Err(ReadError::Malformed { .. })), "byte {at} = {value}");
    }
    let mut long = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    long.extend([1, b'a'].repeat(128));
    long.extend([0, 0, 1, 0, 1]);
    assert!(matches!(Request::read(&long), Err(ReadError::Malformed { .. })), "a name of 257 bytes");
}

#[test]
fn only_standard_queries_with_one_question_are_looked_into() {
    let none = Message::new(1, MessageType::Query, OpCode::Query);
    assert_eq!(read(&none).question(), None);
    let mut two = query("a.", ForeignType::A);
    two.add_query(Query::query(Name::from_ascii("b.").unwrap(), ForeignType::A));
    assert_eq!(read(&two).question(), None);
    // An update has other sections than a query; here the header alone says so.
    let mut update = vec![0; HEADER_BYTES];
    (update[2], update[5]) = (5 << 3, 9);
    assert_eq!(Request::read(&update).unwrap().question(), None);
}

#[test]
fn only_an_answer_to_this_very_question_is_taken() {
    let asked = query("cart.shop.", ForeignType::A);
    let request = read(&asked);
    let is_taken = |change: &dyn Fn(&mut Message)| {
        let mut reply = reply_to(&asked);
        change(&mut reply);
        request.is_answered_by(&reply.to_vec().unwrap())
    };
    assert!(is_taken(&|_| {}));
    assert!(is_taken(&|reply| reply.queries = query("CART.shop.", ForeignType::A).queries), "another case");
    assert!(is_taken(&|reply| {
        reply.queries.clear();
        reply.metadata.response_code = hickory_proto::op::ResponseCode::FormErr;
    }));
    assert!(!is_taken(&|reply| reply.queries.clear()), "no question and no error");
    assert!(!is_taken(&|reply| reply.metadata.id = 78));
    assert!(!is_taken(&|reply| reply.metadata.message_type = MessageType::Query));
    assert!(!is_taken(&|reply| reply.metadata.op_code = OpCode::Notify));
    assert!(!is_taken(&|reply| reply.queries = query("cart.show.", ForeignType::A).queries));
    assert!(!is_taken(&|reply| reply.queries = query("cart.shop.", ForeignType::AAAA).queries));
    assert!(!is_taken(&|reply| reply.queries.extend(query("cart.shop.", ForeignType::A).queries)));
    let whole = reply_to(&asked).to_vec().unwrap();
    for length in 0..whole.len() {
        assert!(!request.is_answered_by(&whole[..length]), "{length} bytes of a reply");
    }
}

#[test]
fn addresses_are_found_through_other_names() {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let mut reply = reply_to(&query("Db.example.", ForeignType::A));
    let alias = |of: &str, to: &str, ttl| Record::from_rdata(name(of), ttl, RData::CNAME(CNAME(name(to))));
    let address = |of: &str, ttl, last| Record::from_rdata(name(of), ttl, RData::A(A::new(192, 0, 2, last)));
    reply.add_answer(alias("db.example.", "one.example.", 300));
    reply.add_answer(address("two.example.", 90, 1));
    reply.add_answer(address("two.example.", 60, 2));
    reply.add_answer(address("unrelated.example.", 5, 3));
    reply.add_answer(alias("one.EXAMPLE.", "two.example.", 120));
    let found = addresses(&reply.to_vec().unwrap(), "db.example", RecordType::A).unwrap();
    assert_eq!(found.ips, ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(found.ttl.as_secs(), 60);
    let none = addresses(&reply.to_vec().unwrap(), "db.example", RecordType::AAAA).unwrap();
    assert!(none.ips.is_empty());
}

#[test]
fn names_that_go_round_have_no_address() {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let mut reply = reply_to(&query("a.", ForeignType::A));
    for (of, to) in [("a.", "b."), ("b.", "a.")] {
        reply.add_answer(Record::from_rdata(name(of), 5, RData::CNAME(CNAME(name(to)))));
    }
    assert_eq!(addresses(&reply.to_vec().unwrap(), "a", RecordType::A), Ok(Addresses::default()));
    // A pointer to itself.
    let mut bytes = vec![0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4]);
    assert_eq!(addresses(&bytes, "a", RecordType::A), Err(NotAnswered::Malformed));
}

#[test]
fn codes_of_answers_are_told_apart() {
    let with_code = |code: u8| addresses(&[0, 1, 0x80, code, 0, 0, 0, 0, 0, 0, 0, 0], "a", RecordType::A);
    assert_eq!(with_code(0), Ok(Addresses::default()));
    assert_eq!(with_code(3), Err(NotAnswered::NoName));
    assert_eq!(with_code(2), Err(NotAnswered::Code { code: 2 }));
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(request) = Request::read(&bytes) {
            prop_assert_eq!(request.bytes(), &bytes[..]);
            let _ = request.is_answered_by(&bytes);
        }
        let _ = addresses(&bytes, "a", RecordType::A);
    }

    #[test]
    fn a_damaged_message_does_no_harm(at in 0_usize..60, value: u8) {
        let mut bytes = reply_to(&query("cart.shop.svc.cluster.local.", ForeignType::A)).to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = Request::read(&bytes);
        let _ = addresses(&bytes, "cart.shop.svc.cluster.local", RecordType::A);
    }
}
