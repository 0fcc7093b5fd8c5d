//! Which of the listeners that share a port gets new connections.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Hands new connections to the `nth` listener of the group, counted in the order in which they began to listen; as long
/// as there is one. If there is none, the kernel spreads them over all, as it does without this.
///
/// Connections whose handshakes are under way stay where they are. Any member of the group may say this for all.
///
/// # Errors
/// When the socket is no listener that shares its port.
///
/// # Source
/// socket(7), SO_ATTACH_REUSEPORT_CBPF: the program's result is the index of the listener; an index out of range means
/// none.
#[allow(unsafe_code)] // socket filters have no wrapper in nix, and none for listeners in socket2
pub fn steer(listener: &impl AsFd, nth: u32) -> io::Result<()> {
    let mut program = [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: nth }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: setsockopt(2): the option value is a sock_fprog on this frame whose one instruction is on it as well; the
    // kernel copies both before it returns.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(done)?;
    Ok(())
}

/// Undoes [`steer`] for the whole group; harmless if there is nothing to undo.
///
/// # Errors
/// When the kernel is older than 5.3, which has no way to do it.
#[allow(unsafe_code)] // the option has no wrapper in nix or socket2
pub fn spread(listener: &impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: setsockopt(2): the option takes no value; an int on this frame and its exact size are passed.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            std::ptr::from_ref(&unused).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match nix::errno::Errno::result(done) {
        Err(nix::errno::Errno::ENOENT) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// BPF_RET | BPF_K: the result is a constant.
const RETURN_CONSTANT: u16 = 0x06;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::socket::TcpListenOptions;

    fn group(count: usize) -> Vec<TcpListener> {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut options = TcpListenOptions { reuse_port: true, ..TcpListenOptions::new(any) };
        let mut listeners = vec![options.bind().unwrap()];
        options.addr = listeners[0].local_addr().unwrap();
        listeners.extend((1..count).map(|_| options.bind().unwrap()));
        listeners
    }

    /// How many of 64 connections each listener got.
    fn spread_of(listeners: &[TcpListener]) -> Vec<usize> {
        let addr = listeners[0].local_addr().unwrap();
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let counts = listeners.iter().map(|listener| std::iter::from_fn(|| listener.accept().ok()).count()).collect();
        drop(clients);
        counts
    }

    #[test]
    fn new_connections_go_where_they_are_steered_and_everywhere_afterwards() {
        let listeners = group(4);
        steer(&listeners[0], 2).unwrap();
        assert_eq!(spread_of(&listeners), [0, 0, 64, 0]);
        spread(&listeners[3]).unwrap();
        assert!(spread_of(&listeners).iter().all(|count| *count > 0));
        spread(&listeners[3]).unwrap();
    }

    #[test]
    fn a_listener_that_is_not_there_gets_nothing_and_nobody_is_refused() {
        let listeners = group(2);
        steer(&listeners[0], 2).unwrap();
        assert_eq!(spread_of(&listeners).iter().sum::<usize>(), 64);
    }

    #[test]
    fn old_listeners_may_close_in_any_order() {
        for order in [[0, 1], [1, 0]] {
            let mut old = group(2);
            let addr = old[0].local_addr().unwrap();
            let options = TcpListenOptions { reuse_port: true, ..TcpListenOptions::new(addr) };
            let new = [options.bind().unwrap(), options.bind().unwrap()];
            steer(&old[0], 2).unwrap();
            for nth in order {
                old.remove(nth.min(old.len() - 1));
                assert_eq!(spread_of(&new).iter().sum::<usize>(), 64, "{order:?}");
            }
        }
    }
}
