//! Trouble on purpose: delays and aborts.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use mesh_wire::l7;

use crate::rule::{duration, final_status};
use crate::share::{next, percent};
use crate::{CompileError, per_million};

/// Trouble on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long, and for which share of the requests in millionths.
    delay: Option<(Duration, u32)>,
    /// What, and for which share of the requests in millionths.
    abort: Option<(Abort, u32)>,
}

/// What answers in place of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// This status.
    Http(StatusCode),
    /// 200 with this `grpc-status`.
    Grpc(u32),
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// First this.
    pub delay: Option<Duration>,
    /// Then this.
    pub abort: Option<Abort>,
}

impl Fault {
    pub(crate) fn compile(wire: &l7::Fault) -> Result<Self, CompileError> {
        for (field, share) in
            [("delay_per_million", wire.delay_per_million), ("abort_per_million", wire.abort_per_million)]
        {
            if share > 1_000_000 {
                return Err(CompileError::new(field, share, "at most 1000000"));
            }
        }
        let delay = duration("delay", wire.delay.as_ref())?.map(|delay| (delay, wire.delay_per_million));
        let abort = match (wire.abort_http_status, wire.abort_grpc_status) {
            (0, None) => None,
            (0, Some(status)) => Some(Abort::Grpc(status)),
            (status, _) => Some(Abort::Http(final_status("abort_http_status", status)?)),
        };
        Ok(Self { delay, abort: abort.map(|abort| (abort, wire.abort_per_million)) })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((delay, share)) = &self.delay {
            write!(f, "delays {} by {delay:?}", percent(*share))?;
        }
        let and = if self.delay.is_some() { ", " } else { "" };
        match &self.abort {
            Some((Abort::Http(status), share)) => write!(f, "{and}aborts {} with {}", percent(*share), status.as_u16()),
            Some((Abort::Grpc(status), share)) => write!(f, "{and}aborts {} with gRPC {status}", percent(*share)),
            None => Ok(()),
        }
    }
}

/// Draws delay and abort independently; `random` is drawn evenly from all 64-bit numbers.
#[must_use]
pub fn sample(fault: &Fault, random: u64) -> Sampled {
    Sampled {
        delay: fault.delay.filter(|(_, share)| per_million(random, *share)).map(|(delay, _)| delay),
        abort: fault.abort.filter(|(_, share)| per_million(next(random), *share)).map(|(abort, _)| abort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::next;

    fn fault(delay: u32, abort: u32) -> Fault {
        Fault::compile(&l7::Fault {
            delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            delay_per_million: delay,
            abort_http_status: 503,
            abort_grpc_status: None,
            abort_per_million: abort,
        })
        .unwrap()
    }

    #[test]
    fn shares_are_kept_and_independent() {
        let fault = fault(500_000, 100_000);
        let (mut delays, mut aborts, mut both) = (0, 0, 0);
        let mut random = 7;
        for _ in 0..100_000 {
            random = next(random);
            let sampled = sample(&fault, random);
            delays += u32::from(sampled.delay.is_some());
            aborts += u32::from(sampled.abort.is_some());
            both += u32::from(sampled.delay.is_some() && sampled.abort.is_some());
        }
        assert!((49_000..51_000).contains(&delays), "{delays}");
        assert!((9_500..10_500).contains(&aborts), "{aborts}");
        assert!((4_600..5_400).contains(&both), "{both}");
    }

    #[test]
    fn no_share_is_nobody_and_all_is_everybody() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(sample(&fault(0, 0), random), Sampled::default());
            let all = sample(&fault(1_000_000, 1_000_000), random);
            let expected = Abort::Http(StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(all, Sampled { delay: Some(Duration::from_secs(2)), abort: Some(expected) });
        }
    }

    #[test]
    fn a_status_that_cannot_be_sent_is_refused() {
        for status in [1, 101, 600, 70_000] {
            let wire = l7::Fault { abort_http_status: status, ..Default::default() };
            assert!(Fault::compile(&wire).is_err(), "{status}");
        }
        let wire = l7::Fault { abort_grpc_status: Some(14), abort_per_million: 1_000_000, ..Default::default() };
        assert_eq!(sample(&Fault::compile(&wire).unwrap(), 3).abort, Some(Abort::Grpc(14)));
    }
}
