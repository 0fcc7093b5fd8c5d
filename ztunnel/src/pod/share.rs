//! How much of a node proxy's memory one of many tunnels may fill.

use mesh_hbone::Settings;

use crate::limits::{POD_TUNNELS_FEW, POD_TUNNELS_FEW_OF_SOURCE, POD_TUNNELS_MANY, POD_TUNNELS_MANY_OF_SOURCE};

/// Settings of a tunnel that is the `of_source`th from its address and the `of_pod`th of its pod. The first ones have
/// all of `full`; where there are many, each has less, so that a client that opens more cannot make us hold much more.
/// A stream always has a quarter of its tunnel at most: one that nobody reads must not stall the others.
///
/// | tunnels from the address | of the pod | window of the tunnel | of a stream | frame |
/// |---|---|---|---|---|
/// | up to 4 | up to 64 | as configured | | |
/// | up to 64 | up to 1,024 | 1 MiB | 256 KiB | 64 KiB |
/// | more | more | 128 KiB | 32 KiB | 16 KiB |
pub(super) fn of(full: &Settings, of_source: usize, of_pod: usize) -> Settings {
    let most = if of_source <= POD_TUNNELS_FEW_OF_SOURCE && of_pod <= POD_TUNNELS_FEW {
        return full.clone();
    } else if of_source <= POD_TUNNELS_MANY_OF_SOURCE && of_pod <= POD_TUNNELS_MANY {
        CROWDED
    } else {
        OVERCROWDED
    };
    Settings {
        connection_window: full.connection_window.min(most.connection_window),
        stream_window: full.stream_window.min(most.stream_window),
        frame_size: full.frame_size.min(most.frame_size),
        ..full.clone()
    }
}

/// Bytes that may be under way.
struct Most {
    connection_window: u32,
    stream_window: u32,
    frame_size: u32,
}

const CROWDED: Most = Most { connection_window: 1 << 20, stream_window: 256 << 10, frame_size: 64 << 10 };
/// The smallest that the protocol allows, or little more.
const OVERCROWDED: Most = Most { connection_window: 128 << 10, stream_window: 32 << 10, frame_size: 16 << 10 };

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(of_source: usize, of_pod: usize) -> (u32, u32, u32) {
        let share = of(&Settings::default(), of_source, of_pod);
        (share.connection_window >> 10, share.stream_window >> 10, share.frame_size >> 10)
    }

    #[test]
    fn the_more_tunnels_the_less_each_may_hold() {
        let table = [
            ((1, 1), (16_384, 4096, 1024)),
            ((4, 64), (16_384, 4096, 1024)),
            ((5, 64), (1024, 256, 64)),
            ((4, 65), (1024, 256, 64)),
            ((64, 1024), (1024, 256, 64)),
            ((65, 1024), (128, 32, 16)),
            ((1, 1025), (128, 32, 16)),
        ];
        for ((of_source, of_pod), expected) in table {
            assert_eq!(windows(of_source, of_pod), expected, "{of_source} {of_pod}");
        }
    }

    #[test]
    fn what_is_configured_smaller_stays_so() {
        let small = Settings {
            connection_window: 100 << 10,
            stream_window: 65_535,
            frame_size: 16 << 10,
            ..Settings::default()
        };
        assert_eq!(of(&small, 10, 10), small);
    }

    #[test]
    fn a_client_with_all_the_tunnels_it_may_have_fills_less_than_a_quarter_of_a_gigabyte() {
        let bytes: usize = (1..=crate::limits::POD_TUNNELS_OF_SOURCE_MAX)
            .map(|nth| of(&Settings::default(), nth, nth).connection_window as usize)
            .sum();
        assert!(bytes <= 256 << 20, "{} MiB", bytes >> 20);
    }
}
