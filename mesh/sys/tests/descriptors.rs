//! What still works when descriptors have run out. By itself: the limit is one of the whole process.

use std::fs::File;

use mesh_sys::memory::Resident;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn how_much_memory_there_is_in_use_is_still_told() {
    let resident = Resident::open().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let (other, told) = (File::open("/proc/self/statm"), resident.bytes());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(other.is_err(), "there are descriptors");
    assert!(told.unwrap() > 0);
}
