//! Unix sequenced-packet sockets that carry descriptors beside their packets.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen,
    recvmsg, sendmsg, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Accepts connections on a path.
#[derive(Debug)]
pub struct SeqpacketListener {
    fd: AsyncFd<OwnedFd>,
}

impl SeqpacketListener {
    /// Listens on `path`; a stale socket file is removed first. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = new_socket()?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(Self { fd: registered(fd)? })
    }

    /// The next connection.
    ///
    /// # Errors
    /// As `accept` gives them.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn accept(&self) -> io::Result<SeqpacketStream> {
        let raw = self
            .fd
            .async_io(Interest::READABLE, |fd| {
                Ok(accept4(fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?)
            })
            .await?;
        SeqpacketStream::new(own(raw))
    }
}

/// One connection. Packets keep their bounds; each may carry descriptors.
#[derive(Debug)]
pub struct SeqpacketStream {
    fd: AsyncFd<OwnedFd>,
}

/// What one packet brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0 is the end of the connection.
    pub len: usize,
    /// Descriptors that came along, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// The packet or its descriptors did not fit.
    pub truncated: bool,
}

impl SeqpacketStream {
    /// Connects to the listener on `path`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As `connect` gives them.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let fd = new_socket()?;
        // A connect to a Unix socket never waits for the network: it succeeds or fails at once.
        connect(fd.as_raw_fd(), &UnixAddr::new(path.as_ref())?)?;
        Self::new(fd)
    }

    /// Two connected ends, for tests and child processes.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = nix::sys::socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self::new(a)?, Self::new(b)?))
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: registered(fd)? })
    }

    /// Sends one packet, with at most one descriptor.
    ///
    /// # Errors
    /// As `sendmsg` gives them; a broken pipe means that the other end is gone.
    ///
    /// # Cancel safety
    /// Cancel-safe: a packet is sent whole or not at all.
    pub async fn send(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        self.send_raw(packet, &raw).await
    }

    /// Sends one packet with any number of descriptors, for tests of the receiving side.
    ///
    /// # Errors
    /// As [`SeqpacketStream::send`].
    pub async fn send_all(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        self.send_raw(packet, &raw).await
    }

    async fn send_raw(&self, packet: &[u8], raw: &[RawFd]) -> io::Result<()> {
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                let rights = [ControlMessage::ScmRights(raw)];
                let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
                sendmsg::<UnixAddr>(fd.as_raw_fd(), &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
                Ok(())
            })
            .await
    }

    /// Receives one packet.
    ///
    /// # Errors
    /// As `recvmsg` gives them.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.fd
            .async_io(Interest::READABLE, |fd| {
                let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
                let mut slices = [IoSliceMut::new(buffer)];
                let message =
                    recvmsg::<UnixAddr>(fd.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
                let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                let len = message.bytes;
                // Not `message.cmsgs()`: it shows nothing of truncated control data, and what did arrive must be
                // taken so that it gets closed.
                let fds = rights(&control).map(own).collect();
                Ok(Received { len, fds, truncated })
            })
            .await
    }
}

/// The descriptors in a control buffer that was all zero before the kernel wrote to it. Nothing else than descriptors
/// comes here: other kinds must be asked for with a socket option (unix(7)).
fn rights(control: &[u8]) -> impl Iterator<Item = RawFd> {
    // cmsg(3): the length with the header, the level, the type, then the data; a truncated message has the length of
    // what arrived.
    let header = size_of::<libc::cmsghdr>();
    let number = |at: usize| {
        let bytes = control.get(at..at + size_of::<RawFd>())?;
        Some(RawFd::from_ne_bytes(bytes.try_into().ok()?))
    };
    let len = control.first_chunk().map_or(0, |len| usize::from_ne_bytes(*len)).min(control.len());
    let level = number(std::mem::offset_of!(libc::cmsghdr, cmsg_level));
    let kind = number(std::mem::offset_of!(libc::cmsghdr, cmsg_type));
    let end = if (level, kind) == (Some(libc::SOL_SOCKET), Some(libc::SCM_RIGHTS)) { len } else { 0 };
    (header..end).step_by(size_of::<RawFd>()).filter_map(number)
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

#[allow(unsafe_code)] // descriptors arrive as plain numbers
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: unix(7), accept(2): the kernel just made this descriptor for us and nobody else holds its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Connections that wait for accept: one proxy, and a second one during an upgrade, with room.
const BACKLOG: i32 = 16;
/// Room for more descriptors than any valid packet carries, so that a bad one can be seen and closed.
const DESCRIPTORS_MAX: usize = 8;

/// Hands a descriptor to the runtime's event loop.
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(unsafe_code)] // the safe constructors are deprecated
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives and is never
    // swapped here, which is what `register` asks of its argument.
    let registered = unsafe { AsyncFd::register(fd) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn packets_keep_their_bounds_and_carry_descriptors() {
        let (a, b) = SeqpacketStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(b"one", Some(file.as_fd())).await.unwrap();
        a.send(b"second", None).await.unwrap();
        let mut buffer = [0; 64];
        let first = b.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len(), first.truncated), (&b"one"[..], 1, false));
        let second = b.recv(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..second.len], second.fds.len()), (&b"second"[..], 0));
        drop(a);
        assert_eq!(b.recv(&mut buffer).await.unwrap().len, 0);
    }

    #[tokio::test]
    async fn a_packet_too_long_for_the_buffer_is_reported() {
        let (a, b) = SeqpacketStream::pair().unwrap();
        a.send(&[7; 100], None).await.unwrap();
        assert!(b.recv(&mut [0; 10]).await.unwrap().truncated);
    }

    #[tokio::test]
    async fn descriptors_that_arrive_with_too_many_others_do_not_leak() {
        let (a, b) = SeqpacketStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        a.send_all(b"many", &[writer.as_fd(); 12]).await.unwrap();
        drop(writer);
        let received = b.recv(&mut [0; 16]).await.unwrap();
        assert_eq!((received.len, received.fds.len(), received.truncated), (4, DESCRIPTORS_MAX, true));
        drop(received);
        // The end of the pipe shows only once nobody can write to it any more.
        let ended = tokio::task::spawn_blocking(move || io::read_to_string(reader));
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
        assert_eq!(ended.expect("a descriptor leaked").unwrap().unwrap(), "");
    }

    #[tokio::test]
    async fn a_listener_replaces_a_stale_socket_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(SeqpacketListener::bind(&path).unwrap());
        let listener = SeqpacketListener::bind(&path).unwrap();
        let client = SeqpacketStream::connect(&path).unwrap();
        let server = listener.accept().await.unwrap();
        client.send(b"hello", None).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(server.recv(&mut buffer).await.unwrap().len, 5);
    }
}
