use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType as ForeignType};

use super::*;

fn query(name: &str, kind: ForeignType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn answered(message: &Message, answer: &Answer, transport: Transport) -> (Message, usize) {
    let request = Request::read(&message.to_vec().unwrap()).unwrap();
    let bytes = encode(&request, answer, transport).unwrap();
    assert!(request.is_answered_by(&bytes));
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

fn addresses(count: u8) -> Answer {
    Answer { alias_labels: None, addresses: (0..count).map(|n| [10, 0, 0, n].into()).collect() }
}

fn records(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect()
}

#[test]
fn answers_are_read_by_a_foreign_library() {
    let (message, _) = answered(&query("Cart.Shop.", ForeignType::A), &addresses(2), Transport::Udp);
    assert_eq!(records(&message), ["Cart.Shop. 30 A 10.0.0.0", "Cart.Shop. 30 A 10.0.0.1"]);
    let about = &message.metadata;
    assert_eq!(
        (about.id, about.message_type, about.response_code),
        (4711, MessageType::Response, ResponseCode::NoError)
    );
    assert!(about.authoritative && about.recursion_available && about.recursion_desired && about.checking_disabled);
    assert!(!about.truncation && !about.authentic_data);
    assert!(message.edns.is_none(), "the client spoke none");
    assert_eq!(message.queries, query("Cart.Shop.", ForeignType::A).queries);

    let six = Answer { alias_labels: None, addresses: vec!["fd00::9".parse().unwrap()] };
    let (message, _) = answered(&query("cart.", ForeignType::AAAA), &six, Transport::Tcp);
    assert_eq!(records(&message), ["cart. 30 AAAA fd00::9"]);
}

#[test]
fn an_alias_is_the_front_of_the_asked_name() {
    let answer = Answer { alias_labels: Some(2), ..addresses(1) };
    let (message, _) = answered(&query("Cart.shop.svc.cluster.local.", ForeignType::A), &answer, Transport::Udp);
    let expected = ["Cart.shop.svc.cluster.local. 30 CNAME Cart.shop.", "Cart.shop. 30 A 10.0.0.0"];
    assert_eq!(records(&message), expected);
}

#[test]
fn datagrams_hold_what_the_client_takes_and_connections_hold_all() {
    let mut message = query("db.shop.", ForeignType::A);
    let sizes = |message: &Message, transport| {
        let (reply, bytes) = answered(message, &addresses(200), transport);
        assert_eq!(reply.metadata.truncation, reply.answers.len() < 200);
        (reply.answers.len(), bytes)
    };
    // 12 header, 13 question, 16 a record.
    assert_eq!(sizes(&message, Transport::Udp), (30, 505));
    assert_eq!(sizes(&message, Transport::Tcp), (200, 3225));
    for (payload, want) in [(100, (29, 500)), (512, (29, 500)), (1232, (74, 1220)), (4096, (200, 3236))] {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns.set_dnssec_ok(true);
        message.set_edns(edns);
        assert_eq!(sizes(&message, Transport::Udp), want, "payload {payload}");
        let (reply, _) = answered(&message, &addresses(1), Transport::Udp);
        let echoed = reply.edns.unwrap();
        assert_eq!((echoed.max_payload(), echoed.version()), (payload.max(512), 0));
        assert!(echoed.flags().dnssec_ok);
    }
    let many = Answer { alias_labels: None, addresses: vec![[10, 0, 0, 1].into(); 5000] };
    let (reply, bytes) = answered(&query("db.shop.", ForeignType::A), &many, Transport::Tcp);
    assert!(reply.metadata.truncation && bytes <= 65_535);
}

#[test]
fn a_message_that_cannot_be_read_is_refused_if_anybody_can_be_told() {
    let complain = |bytes: &[u8]| complaint(&Request::read(bytes).unwrap_err());
    assert_eq!(complain(&[1, 2, 3]), None);
    for flags in [0x01, 0x81] {
        let reply = complain(&[0x12, 0x34, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (0x1234, ResponseCode::FormErr));
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert!(reply.metadata.recursion_desired);
    }
}
