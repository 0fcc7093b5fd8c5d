use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// One frame as it goes over the wire.
fn wire(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

fn seen(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
    let mut seen = Vec::new();
    let fed: Result<usize, Infallible> = frames.feed(bytes, |frame| {
        seen.push(frame);
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(fed.unwrap(), bytes.len());
    seen
}

#[test]
fn each_kind_is_told_apart() {
    let kinds = [
        Kind::Data,
        Kind::Headers,
        Kind::Priority,
        Kind::Reset,
        Kind::Settings,
        Kind::PushPromise,
        Kind::Ping,
        Kind::GoAway,
        Kind::WindowUpdate,
        Kind::Continuation,
        Kind::Other(10),
        Kind::Other(255),
    ];
    for (byte, kind) in (0..=10).chain([255]).zip(kinds) {
        let frames = seen(&mut Frames::at_once(), &wire(byte, 4, b"abc"));
        assert_eq!(frames, [Frame { kind, flags: 4, bytes: 3 }]);
    }
}

#[test]
fn a_frame_is_seen_before_its_payload() {
    let mut frames = Frames::at_once();
    let bytes = wire(0, 0, &[7; 100]);
    assert_eq!(seen(&mut frames, &bytes[..9]).len(), 1);
    assert_eq!(seen(&mut frames, &bytes[9..]).len(), 0);
    assert_eq!(seen(&mut frames, &wire(6, 0, &[0; 8])).len(), 1);
}

#[test]
fn padding_is_no_content_however_long() {
    // Payload of padded frames: length of the padding, content, padding.
    let table: [(&[u8], u32); 5] =
        [(&[3, 1, 0, 0, 0], 1), (&[3, 0, 0, 0], 0), (&[0], 0), (&[0, 1, 2], 2), (&[200, 1], 0)];
    for (payload, bytes) in table {
        let mut frames = Frames::at_once();
        let found = seen(&mut frames, &wire(0, PADDED, payload));
        assert_eq!(found, [Frame { kind: Kind::Data, flags: PADDED, bytes }], "{payload:?}");
        assert_eq!(found[0].is_idle_talk(), bytes == 0);
        assert_eq!(seen(&mut frames, &wire(6, 0, &[0; 8])).len(), 1, "out of step after {payload:?}");
    }
}

#[test]
fn only_data_without_content_and_end_is_idle_talk() {
    let table = [(0, 0, 0, true), (0, END_STREAM, 0, false), (0, 0, 1, false), (1, 0, 0, false), (4, 0, 0, false)];
    for (kind, flags, bytes, idle) in table {
        assert_eq!(Frame { kind: Kind::from(kind), flags, bytes }.is_idle_talk(), idle, "{kind} {flags} {bytes}");
    }
}

#[test]
fn feeding_goes_on_where_it_was_interrupted() {
    let bytes: Vec<u8> = (0..9).flat_map(|length| wire(0, 0, &vec![7; length])).collect();
    let (mut frames, mut rest, mut lengths) = (Frames::at_once(), &bytes[..], Vec::new());
    while !rest.is_empty() {
        let mut found = None;
        let fed: Result<usize, Infallible> = frames.feed(rest, |frame| {
            assert!(found.replace(frame.bytes).is_none(), "went on");
            Ok(ControlFlow::Break(()))
        });
        rest = &rest[fed.unwrap()..];
        lengths.extend(found);
    }
    assert_eq!(lengths, (0..9).collect::<Vec<_>>());
}

#[test]
fn the_first_error_ends_the_feeding() {
    let bytes = [wire(6, 0, &[0; 8]), wire(6, 0, &[0; 8])].concat();
    let mut count = 0;
    let fed = Frames::at_once().feed(&bytes, |_| {
        count += 1;
        Err("enough")
    });
    assert_eq!((fed, count), (Err("enough"), 1));
}

/// Any frame; padded DATA says how long its padding is, perhaps wrongly.
fn any_frame() -> impl Strategy<Value = (u8, u8, Vec<u8>)> {
    (
        0_u8..12,
        prop_oneof![Just(0_u8), Just(END_STREAM), Just(PADDED), any::<u8>()],
        prop::collection::vec(any::<u8>(), 0..80),
    )
}

proptest! {
    #[test]
    fn frames_are_found_however_the_bytes_are_cut(
        sent in prop::collection::vec(any_frame(), 0..30),
        cuts in prop::collection::vec(1_usize..40, 1..40),
        preface in any::<bool>(),
    ) {
        let mut bytes = if preface { vec![b'x'; 24] } else { Vec::new() };
        sent.iter().for_each(|(kind, flags, payload)| bytes.extend(wire(*kind, *flags, payload)));
        let expected: Vec<_> = sent.iter().map(|(kind, flags, payload)| {
            let padded = *kind == 0 && flags & PADDED != 0 && !payload.is_empty();
            let padding = if padded { 1 + usize::from(payload[0]) } else { 0 };
            let content = payload.len().saturating_sub(padding);
            Frame { kind: Kind::from(*kind), flags: *flags, bytes: u32::try_from(content).unwrap() }
        }).collect();
        let mut frames = if preface { Frames::after_preface() } else { Frames::at_once() };
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at(rest.len().min(*cut));
            found.extend(seen(&mut frames, piece));
            rest = left;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        let mut frames = Frames::after_preface();
        for piece in pieces {
            seen(&mut frames, &piece);
        }
    }
}
