//! Children that end with us, together with whatever they started.
#![allow(unsafe_code)]

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a child in a process group of its own.
///
/// On Linux the kernel ends a child when the thread that started it ends, however that comes about;
/// so all of them are started by one thread that lives as long as the process.
pub(super) fn start(mut command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    prepare(&mut command);
    let starter = STARTER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        // Where no thread can be had the channel is closed, which is told below.
        let _ = std::thread::Builder::new().name("stdio-children".to_owned()).spawn(move || {
            for (mut command, reply) in taken {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, started) = channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    let sent = starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply));
    sent.map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}

#[cfg(target_os = "linux")]
fn prepare(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    command.process_group(0);
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure calls prctl and getppid only, which are
    // async-signal-safe, and allocates nothing on the path that succeeds.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have ended before the line above.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn prepare(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    command.process_group(0);
}

#[cfg(not(unix))]
fn prepare(_: &mut Command) {}

/// Whether the child has ended; it stays a zombie, so that its number is nobody else's.
#[cfg(unix)]
pub(super) fn ended(child: &mut Child) -> bool {
    let pid: libc::id_t = child.id();
    // SAFETY: `info` is a plain C struct that waitid fills, and lives through the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid, &raw mut info, options) != 0 || info.si_pid() != 0
    }
}

/// Whether the child has ended.
#[cfg(not(unix))]
pub(super) fn ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// Ends the child and its group, and waits for it.
pub(super) fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(pid) = libc::pid_t::try_from(child.id())
        && pid > 1
    {
        // SAFETY: a plain system call. The child has not been waited for, so that the number is
        // still its group's.
        unsafe {
            libc::kill(-pid, libc::SIGKILL);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}
