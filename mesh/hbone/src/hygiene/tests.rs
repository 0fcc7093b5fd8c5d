use super::*;

const NEVER: Duration = Duration::ZERO;

fn frame(kind: Kind, flags: u8, bytes: u32) -> Frame {
    Frame { kind, flags, bytes }
}

/// Frames of each budget, and that budget.
fn table() -> Vec<(Frame, Budget)> {
    vec![
        (frame(Kind::Ping, 0, 8), Budget::Ping),
        (frame(Kind::Ping, 1, 8), Budget::Ping),
        (frame(Kind::Settings, 0, 6), Budget::Settings),
        (frame(Kind::Settings, 1, 0), Budget::Settings),
        (frame(Kind::WindowUpdate, 0, 4), Budget::WindowUpdate),
        (frame(Kind::Data, 0, 0), Budget::EmptyData),
        (frame(Kind::Reset, 0, 4), Budget::Reset),
        (frame(Kind::Continuation, 4, 9), Budget::Continuation),
        (frame(Kind::Priority, 0, 5), Budget::Other),
        (frame(Kind::GoAway, 0, 8), Budget::Other),
        (frame(Kind::Other(99), 0, 1), Budget::Other),
    ]
}

#[test]
fn each_kind_is_cut_off_one_past_its_burst_and_not_before() {
    for (frame, budget) in table() {
        for speaker in [Speaker::Tunnel, Speaker::Application] {
            let mut hygiene = Hygiene::of(speaker);
            let allowance = budget.allowance(speaker);
            for nth in 0..allowance.burst {
                assert_eq!(hygiene.received(frame, || NEVER), Ok(()), "{budget} {nth}");
            }
            assert_eq!(hygiene.received(frame, || NEVER), Err(Flood::TooMany { budget, allowance }));
        }
    }
}

#[test]
fn the_rate_is_served_for_ever() {
    for (frame, budget) in table() {
        let mut hygiene = Hygiene::new();
        for second in 0..60 {
            for _ in 0..budget.allowance(Speaker::Tunnel).per_second {
                assert_eq!(hygiene.received(frame, || Duration::from_secs(second)), Ok(()), "{budget}");
            }
        }
    }
}

#[test]
fn one_kind_does_not_use_up_another() {
    let mut hygiene = Hygiene::new();
    let ping = frame(Kind::Ping, 0, 8);
    while hygiene.received(ping, || NEVER).is_ok() {}
    for (frame, budget) in table() {
        assert_eq!(hygiene.received(frame, || NEVER).is_ok(), budget != Budget::Ping, "{budget}");
    }
}

#[test]
fn bytes_and_requests_are_never_too_many() {
    let mut hygiene = Hygiene::new();
    for _ in 0..1_000_000 {
        for frame in [frame(Kind::Data, 0, 1), frame(Kind::Data, 1, 0), frame(Kind::Headers, 5, 100)] {
            assert_eq!(hygiene.received(frame, || NEVER), Ok(()));
        }
    }
}

#[test]
fn credit_for_bytes_that_we_sent_is_welcome() {
    let mut hygiene = Hygiene::new();
    let update = frame(Kind::WindowUpdate, 0, 4);
    while hygiene.received(update, || NEVER).is_ok() {}
    // In small pieces, as many as make a few updates.
    for _ in 0..512 {
        hygiene.sent(3);
    }
    for _ in 0..3 {
        assert_eq!(hygiene.received(update, || NEVER), Ok(()));
    }
    assert!(hygiene.received(update, || NEVER).is_err());
}

#[test]
fn the_words_name_the_kind_and_the_bound() {
    let flood = Flood::TooMany { budget: Budget::Ping, allowance: Budget::Ping.allowance(Speaker::Tunnel) };
    assert_eq!(flood.to_string(), "peer sent too many PING frames: more than 1000 at once and 100 a second");
}

#[test]
fn a_header_block_that_no_request_needs_is_not_read() {
    for kind in [Kind::Headers, Kind::Continuation] {
        let mut hygiene = Hygiene::new();
        assert_eq!(hygiene.received(frame(kind, 4, SERVER_MAX_HEADER_BYTES), || NEVER), Ok(()));
        let bytes = SERVER_MAX_HEADER_BYTES + 1;
        let flood = hygiene.received(frame(kind, 4, bytes), || NEVER).unwrap_err();
        assert_eq!(flood.to_string(), "peer sent 65537 header bytes in one frame: more than 65536");
    }
}

/// What a client of gRPC sends that measures the link with a PING for each answer, and grants window for it.
#[test]
fn applications_may_measure_the_link_with_every_answer() {
    let answer_bytes = 40;
    let mut hygiene = Hygiene::of(Speaker::Application);
    for answer in 0..100_000_u64 {
        let now = || Duration::from_micros(answer * 100);
        hygiene.sent(answer_bytes);
        for frame in [frame(Kind::Ping, 0, 8), frame(Kind::WindowUpdate, 0, 4), frame(Kind::WindowUpdate, 0, 4)] {
            assert_eq!(hygiene.received(frame, now), Ok(()), "answer {answer}");
        }
        // It has seen enough of the stream.
        assert_eq!(hygiene.received(frame(Kind::Reset, 0, 4), now), Ok(()), "answer {answer}");
        hygiene.sent(17);
    }
}

#[test]
fn answers_to_pings_do_not_earn_more_of_them() {
    let mut hygiene = Hygiene::of(Speaker::Application);
    let ping = frame(Kind::Ping, 0, 8);
    let mut taken = 0;
    while hygiene.received(ping, || NEVER).is_ok() {
        taken += 1;
        hygiene.sent(17);
        assert!(taken < 50_000, "a flood of pings feeds itself");
    }
}

#[test]
fn long_headers_of_applications_are_no_flood() {
    let mut hygiene = Hygiene::of(Speaker::Application);
    for request in 0..20_000_u64 {
        for _ in 0..3 {
            let frame = frame(Kind::Continuation, 4, 16 << 10);
            assert_eq!(hygiene.received(frame, || Duration::from_millis(request)), Ok(()), "request {request}");
        }
    }
}
