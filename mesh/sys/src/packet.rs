//! Packet capture on one interface, and the file format that packet tools read.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sees every frame that enters or leaves one interface of the calling thread's network namespace.
#[derive(Debug)]
pub struct PacketCapture {
    fd: OwnedFd,
}

impl PacketCapture {
    /// Opens a capture on `interface`.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when there is no such interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let fd = packet_socket()?;
        bind_to(&fd, index)?;
        // Bursts must not be lost: the kernel drops what does not fit.
        let _ = nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        Ok(Self { fd })
    }

    /// Waits up to `timeout` for a frame, link header included. `None` when none came.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn next<'b>(&self, buffer: &'b mut [u8], timeout: Duration) -> io::Result<Option<&'b [u8]>> {
        let mut wanted = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        if poll(&mut wanted, wait)? == 0 {
            return Ok(None);
        }
        match nix::sys::socket::recv(self.fd.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes frames in the classic capture format (link type Ethernet, microseconds).
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// As `out` gives them.
    pub fn new(mut out: W) -> io::Result<Self> {
        let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, SNAP_BYTES, 1];
        for word in header {
            out.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { out })
    }

    /// Appends one frame.
    ///
    /// # Errors
    /// As `out` gives them.
    pub fn write(&mut self, at: SystemTime, frame: &[u8]) -> io::Result<()> {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let len = u32::try_from(frame.len()).unwrap_or(SNAP_BYTES);
        // The format holds 32 bits of seconds.
        for word in [since.as_secs() as u32, since.subsec_micros(), len, len] {
            self.out.write_all(&word.to_ne_bytes())?;
        }
        self.out.write_all(frame)
    }

    /// Passes everything on to the operating system.
    ///
    /// # Errors
    /// As `out` gives them.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[allow(unsafe_code)] // nix wants to know the protocol as an enum that lacks "all"
fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: packet(7), socket(2): plain integers in, a new descriptor out. Protocol 0 receives nothing until bind.
    let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    let raw = nix::errno::Errno::result(raw)?;
    // SAFETY: the descriptor was just made and nobody else holds its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[allow(unsafe_code)] // nix cannot set the protocol of a link-layer address
fn bind_to(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: packet(7): all-zero bytes are a valid sockaddr_ll.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    addr.sll_ifindex = index.cast_signed();
    // SAFETY: bind(2): the address lives on this frame and its exact size is passed.
    let done = unsafe {
        libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&addr).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    nix::errno::Errno::result(done)?;
    Ok(())
}

/// Larger than any frame, offloads included.
pub const SNAP_BYTES: u32 = 262_144;
/// About a tenth of a second at full speed.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
