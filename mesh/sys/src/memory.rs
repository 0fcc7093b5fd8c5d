//! How the allocator treats large blocks and unused memory, and what of the program stays in memory.
//!
//! The allocator's part is for the GNU C library; with another one nothing happens.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Keeps large buffers within the heaps, where they are used again without new pages, and keeps free memory at the end
/// of each heap until [`release`] is called. To be called once, before threads are started.
///
/// By default each block of 128 KiB and more is a mapping of its own: a proxy that moves bulk data would have the kernel
/// clear and map every page of every buffer anew, which costs more than copying the bytes.
pub fn keep_buffers() {
    limit(Limit::Mapped, KEPT_BYTES_MAX);
    limit(Limit::Kept, KEPT_BYTES_MAX);
}

/// Makes each large buffer a mapping of its own, for good, so that its memory is returned as soon as it is freed; and
/// returns free memory at the end of each heap. To be called once, before threads are started.
///
/// By default the allocator learns from the first large buffer that is freed to keep all later ones within its heaps: after
/// a thousand proxies were sent a large cluster, hundreds of megabytes would stay.
pub fn return_buffers() {
    limit(Limit::Mapped, RELEASED_BYTES_MIN);
    limit(Limit::Kept, RETURNED_BYTES_MIN);
}

/// Returns unused memory of all heaps to the system. `on_each_thread` must call [`release_own_heap`] on every thread
/// that may have used much. Takes some milliseconds if there is much of it.
pub async fn release(on_each_thread: impl Future<Output = ()>) {
    limit(Limit::Kept, RELEASED_BYTES_MIN);
    on_each_thread.await;
    trim();
    limit(Limit::Kept, KEPT_BYTES_MAX);
}

/// Lets the allocator look at the end of the calling thread's heap, which nobody else can make it do: it looks whenever
/// a large block is freed.
pub fn release_own_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(RELEASED_BYTES_MIN as usize)));
}

/// Tells how much memory the process has. It keeps its file open: when descriptors have run out, as they may together with
/// memory, it still tells.
#[derive(Debug)]
pub struct Resident {
    statm: File,
    page_bytes: u64,
}

impl Resident {
    /// Of this process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn open() -> io::Result<Self> {
        let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
        let page_bytes = page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { statm: File::open("/proc/self/statm")?, page_bytes })
    }

    /// Bytes in memory now, as the kernel counts them.
    ///
    /// # Errors
    /// The system does not tell.
    ///
    /// # Source
    /// proc(5), `/proc/self/statm`: the second of its numbers.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut text = [0; STATM_BYTES_MAX];
        let length = self.statm.read_at(&mut text, 0)?;
        let text = text.get(..length).unwrap_or_default();
        let number = text.split(u8::is_ascii_whitespace).nth(1).and_then(|number| str::from_utf8(number).ok());
        let pages: Option<u64> = number.and_then(|number| number.parse().ok());
        pages.map(|pages| pages.saturating_mul(self.page_bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Lets the system take back the pages of the program that were needed to start or for a load, such as the readers of
/// configuration. What is still used comes back page by page from the page cache.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn unmap_idle_code() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, len) in code(&maps, &program.to_string_lossy()) {
        discard(start, len);
    }
    Ok(())
}

/// Start and length of each mapping that holds code of `program`, from the text of `/proc/self/maps`.
fn code(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let mapping = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (rights, _) = rest.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        // Code is never written to; other mappings of the program may hold what the loader put there.
        (rights == "r-xp" && line.ends_with(program)).then_some((start, end.checked_sub(start)?))
    };
    maps.lines().filter_map(mapping).collect()
}

#[allow(unsafe_code)] // the call takes any address
fn discard(start: usize, len: usize) {
    // SAFETY: madvise(2): a private file mapping without own pages, which code is, keeps its contents; whoever runs or
    // reads it next gets the same bytes from the file.
    let done = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    if done != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "code stays mapped");
    }
}

/// A limit of the allocator, in bytes.
#[derive(Clone, Copy)]
enum Limit {
    /// Blocks from this size on are mappings of their own.
    Mapped,
    /// Free memory at the end of a heap from this size on is returned.
    Kept,
}

#[allow(unsafe_code)] // mallopt has no wrapper
fn limit(limit: Limit, bytes: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let option = match limit {
            Limit::Mapped => libc::M_MMAP_THRESHOLD,
            Limit::Kept => libc::M_TRIM_THRESHOLD,
        };
        // SAFETY: mallopt(3) takes two integers and changes nothing but the allocator's own limits.
        let accepted = unsafe { libc::mallopt(option, bytes) };
        if accepted == 0 {
            tracing::debug!(option, bytes, "allocator does not know this option");
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (limit, bytes);
}

#[allow(unsafe_code)] // malloc_trim has no wrapper
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes a size and touches free memory only; it takes the locks it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Seven numbers of at most twenty digits.
const STATM_BYTES_MAX: usize = 160;
/// Blocks of up to this size come from the heap, bytes: the largest that the allocator takes as a limit.
const KEPT_BYTES_MAX: i32 = 32 << 20;
/// Free memory at the end of a heap that is worth returning, bytes; the smallest block whose release makes the allocator
/// look is 64 KiB.
const RELEASED_BYTES_MIN: i32 = 128 << 10;
/// Free memory at the end of a heap that is returned at once, bytes.
const RETURNED_BYTES_MIN: i32 = 1 << 20;

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    #[test]
    fn memory_that_is_written_to_is_resident() {
        let resident = Resident::open().unwrap();
        let before = resident.bytes().unwrap();
        let mut block = vec![0_u8; 64 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let after = resident.bytes().unwrap();
        // Others may give memory back meanwhile.
        assert!(after > before + (32 << 20), "{before} {after}");
        drop(std::hint::black_box(block));
    }

    #[test]
    fn only_code_of_the_program_is_found() {
        let maps = "\
55d0a0000000-55d0a0100000 r--p 00000000 fd:00 42 /usr/bin/proxy
55d0a0100000-55d0a0300000 r-xp 00100000 fd:00 42 /usr/bin/proxy
55d0a0300000-55d0a0310000 rw-p 00300000 fd:00 42 /usr/bin/proxy
7f0000000000-7f0000010000 r-xp 00000000 fd:00 43 /usr/lib/libc.so.6
7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(code(maps, "/usr/bin/proxy"), [(0x55d0_a010_0000, 0x20_0000)]);
    }

    #[test]
    fn the_program_goes_on_after_its_code_was_unmapped() {
        unmap_idle_code().unwrap();
        assert_eq!("4711".parse::<u32>().unwrap(), 4711);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn a_large_buffer_is_used_again_without_new_pages_until_memory_is_released() {
        fn pages_of(work: impl Fn()) -> i64 {
            let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
            let before = faults();
            work();
            faults() - before
        }
        let use_one = || drop(std::hint::black_box(vec![1_u8; 4 << 20]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // On a thread of its own, as those of a proxy: its heap is not the one that the process began with.
        let thread = std::thread::spawn(move || {
            keep_buffers();
            use_one();
            // Of its 1,024 pages; the code that another test unmaps meanwhile comes back page by page.
            assert!(pages_of(use_one) < 500, "pages were new although the buffer was kept");
            runtime.block_on(release(async { release_own_heap() }));
            assert!(pages_of(use_one) > 500, "nothing was released");
        });
        thread.join().unwrap();
    }
}
