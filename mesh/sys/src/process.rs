//! Starting and outliving processes: handing descriptors to a child, a first process that reaps
//! orphans, and process identity that survives id reuse.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Gives `fd` to the child that `command` starts, under the number `target` (3 or above).
///
/// The descriptor is closed here when `command` is dropped.
pub fn pass_fd(command: &mut Command, fd: OwnedFd, target: RawFd) {
    debug_assert!(target > 2, "0, 1 and 2 are set with stdin(), stdout(), stderr()");
    let hook = move || {
        let source = fd.as_raw_fd();
        let result = if source == target {
            // SAFETY: fcntl(2) with F_SETFD takes no pointer; `source` is open, `fd` owns it.
            #[allow(unsafe_code)] // see above
            unsafe {
                libc::fcntl(source, libc::F_SETFD, 0)
            }
        } else {
            // SAFETY: dup2(2) takes no pointer; in the forked child nobody else owns `target`
            // beyond the coming exec.
            #[allow(unsafe_code)] // see above
            unsafe {
                libc::dup2(source, target)
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the hook only calls fcntl(2) or dup2(2), both async-signal-safe (signal-safety(7)),
    // and allocates nothing.
    #[allow(unsafe_code)] // pre_exec has no safe form
    unsafe {
        command.pre_exec(hook);
    }
}

/// Takes ownership of a descriptor that the parent left open under a fixed number.
///
/// Call once, first thing in `main`, before anything else could have been given that number. The
/// descriptor will not survive the next exec.
///
/// # Errors
///
/// `EBADF` when the parent left nothing there.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_SETFD takes no pointer and only fails on a closed descriptor.
    #[allow(unsafe_code)] // see above
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open(checked above) and owned by nobody, as the caller promises to ask at start.
    #[allow(unsafe_code)] // see above
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the terminal `fd` the controlling terminal of the calling session leader.
///
/// # Errors
///
/// `EPERM` when the caller leads no session or has a terminal already.
///
/// # Source
///
/// ioctl_tty(2), `TIOCSCTTY`.
pub fn set_controlling_terminal(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument, no pointer; the descriptor is borrowed.
    #[allow(unsafe_code)] // see above
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces one of the standard descriptors (0, 1 or 2) by `fd`.
///
/// # Errors
///
/// The system's error; see dup2(2).
pub fn replace_stdio(fd: OwnedFd, target: RawFd) -> io::Result<()> {
    debug_assert!((0..=2).contains(&target), "only the standard descriptors are nobody's");
    // SAFETY: dup2(2) takes no pointer; std treats 0, 1 and 2 as replaceable at any time.
    #[allow(unsafe_code)] // see above
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if fd.as_raw_fd() == target {
        // The number stays open as the standard descriptor.
        let _ = fd.into_raw_fd();
    }
    Ok(())
}

/// Runs as the first process of a process id namespace until `main` ends; returns its exit code
/// (128 + number when a signal ended it).
///
/// Orphans are reaped as they end; `SIGTERM` and `SIGINT` are passed on to `main` as `SIGTERM`.
/// The caller must have blocked the signals of [`init_signals`] before it started `main` (else an
/// early exit goes unseen), and must not wait for children elsewhere.
///
/// # Errors
///
/// The system's error of sigwait(3) or waitpid(2).
pub fn reap_until(main: i32) -> io::Result<i32> {
    let signals = init_signals();
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap_all(main)? {
                    return Ok(code);
                }
            }
            // The process may just have ended: its SIGCHLD follows.
            _ => {
                let _ = kill(Pid::from_raw(main), Signal::SIGTERM);
            }
        }
    }
}

/// The signals a first process waits for; block them before starting its main child.
pub fn init_signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set
}

fn reap_all(main: i32) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() == main => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == main => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// When the process `pid` was started, in clock ticks since boot; `None` when there is none.
///
/// Together with the id this names one process for ever.
///
/// # Source
///
/// proc(5), field 22 of `/proc/<pid>/stat`.
pub fn start_time_ticks(pid: i32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The state letter and start time of a `stat` line. The command name (field 2) may hold spaces
/// and parentheses, so counting starts after the last `)`.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    // `next` above consumed field 3; field 22 is 18 further on.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn start_time_is_field_22_whatever_the_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        assert_eq!(parse_start_time(&format!("7 (a b) c) {tail}")), Some(4242));
        assert_eq!(parse_start_time("7 (x) Z 1"), None);
        assert_eq!(parse_start_time("garbage"), None);
    }

    #[test]
    fn own_start_time_is_known_and_a_dead_id_has_none() {
        assert!(start_time_ticks(std::process::id() as i32).is_some());
        assert_eq!(start_time_ticks(i32::MAX), None);
    }

    #[test]
    fn passed_descriptor_arrives_under_its_number() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line <&3; echo got-$line >&3"]);
        pass_fd(&mut command, there.into(), 3);
        let mut child = command.spawn().unwrap();
        drop(command);
        here.write_all(b"ping\n").unwrap();
        let mut answer = String::new();
        here.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "got-ping\n");
        assert!(child.wait().unwrap().success());
    }
}
