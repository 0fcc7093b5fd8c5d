//! Starting and outliving processes: handing descriptors to a child, a first process that reaps
//! orphans, and process identity that survives id reuse.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Gives `fd` to the child that `command` starts, under the number `target` (3 to 63).
///
/// The descriptor is closed here when `command` is dropped.
///
/// # Errors
///
/// `EINVAL` for another number, `EMFILE` when the process has no descriptor left.
pub fn pass_fd(command: &mut Command, fd: OwnedFd, target: RawFd) -> io::Result<()> {
    if !(3..PASSED_FROM).contains(&target) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // Out of the way of every target: else passing one descriptor could overwrite the next.
    let source = duplicate_from(&fd, PASSED_FROM)?;
    drop(fd);
    let hook = move || {
        #[allow(unsafe_code)] // the call has no safe wrapper
        // SAFETY: dup2(2) takes no pointer; in the forked child nobody else owns `target` beyond
        // the coming exec.
        let result = unsafe { libc::dup2(source.as_raw_fd(), target) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    #[allow(unsafe_code)] // pre_exec has no safe form
    // SAFETY: the hook only calls dup2(2), which is async-signal-safe (signal-safety(7)), and
    // allocates nothing.
    unsafe {
        command.pre_exec(hook);
    }
    Ok(())
}

/// Descriptors wait for their child at this number and above.
const PASSED_FROM: RawFd = 64;

/// A duplicate with a number of at least `from`, closed on exec.
fn duplicate_from(fd: &OwnedFd, from: RawFd) -> io::Result<OwnedFd> {
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes no pointer; `fd` is open.
    let number = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, from) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: just made, so open and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
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
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: fcntl(2) with F_SETFD takes no pointer and only fails on a closed descriptor.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: open(checked above) and owned by nobody, as the caller promises to ask at start.
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
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: TIOCSCTTY takes an integer argument, no pointer; the descriptor is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default effect and blocks none, for a process that is about to become
/// another program: both are inherited, from whatever shell or runtime started the first one.
///
/// # Errors
///
/// The system's error of sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    for number in 1..=libc::SIGSYS {
        #[allow(unsafe_code)] // the call has no safe wrapper
        // SAFETY: signal(2) with SIG_DFL installs no handler; for SIGKILL and SIGSTOP it fails,
        // which changes nothing.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
        }
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// From now on the calling thread, and those that it starts, run only while no other thread wants the processor.
///
/// # Errors
///
/// The system's error of sched_setscheduler(2).
pub fn work_in_background() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    #[allow(unsafe_code)] // the call has no safe wrapper
    // SAFETY: sched_setscheduler(2) reads the parameters and keeps nothing; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
    fn a_thread_may_step_back_and_the_others_do_not() {
        let policy = || {
            let thread = format!("/proc/self/task/{}/stat", nix::unistd::gettid());
            let stat = fs::read_to_string(thread).unwrap();
            // Field 41, counted from field 3.
            stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(38).unwrap().to_owned()
        };
        let stepped_back = std::thread::spawn(move || {
            work_in_background().unwrap();
            policy()
        });
        assert_eq!(stepped_back.join().unwrap(), libc::SCHED_IDLE.to_string());
        assert_ne!(policy(), libc::SCHED_IDLE.to_string());
    }

    #[test]
    fn passed_descriptor_arrives_under_its_number() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line <&3; echo got-$line >&3"]);
        pass_fd(&mut command, there.into(), 3).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        here.write_all(b"ping\n").unwrap();
        let mut answer = String::new();
        here.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "got-ping\n");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn two_descriptors_cannot_overwrite_each_other() {
        let (first, to_first) = UnixStream::pair().unwrap();
        let (second, to_second) = UnixStream::pair().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo three >&3; echo four >&4"]);
        // Each passed under a number that the other may have here.
        pass_fd(&mut command, to_first.into(), 3).unwrap();
        pass_fd(&mut command, to_second.into(), 4).unwrap();
        assert!(command.status().unwrap().success());
        drop(command);
        for (mut stream, expected) in [(first, "three\n"), (second, "four\n")] {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn only_numbers_below_the_waiting_room_can_be_targets() {
        for target in [0, 2, PASSED_FROM] {
            let (_, there) = UnixStream::pair().unwrap();
            assert!(pass_fd(&mut Command::new("/bin/true"), there.into(), target).is_err(), "{target}");
        }
    }
}
