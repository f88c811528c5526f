//! The clock of the clients, which a check can put wrong.
//!
//! They take the time from `SystemTime`, and that from the C library's `clock_gettime`. The one below stands in
//! its place in this program: the linker finds it first. Only the time of day is put wrong, nothing that waits.

use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static WRONG_BY: AtomicI64 = AtomicI64::new(0); // seconds

/// The clock goes wrong until this is dropped. There can be one at a time: checks run one by one.
pub struct Wrong(());

/// Puts the clock ahead by so many seconds, or behind.
pub fn wrong_by(seconds: i64) -> Wrong {
    WRONG_BY.store(seconds, Ordering::SeqCst);
    Wrong(())
}

/// Puts the clock to that time, in unix seconds; it goes on from there.
pub fn set_to(seconds: u64) -> Wrong {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let right = now.map_or(0, |now| now.as_secs() as i64) - WRONG_BY.load(Ordering::SeqCst);
    wrong_by(seconds as i64 - right)
}

impl Drop for Wrong {
    fn drop(&mut self) {
        WRONG_BY.store(0, Ordering::SeqCst);
    }
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// # Safety
///
/// That of the C library's, which it calls.
#[no_mangle]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    static NEXT: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut next = NEXT.load(Ordering::Relaxed);
    if next.is_null() {
        next = libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr());
        if next.is_null() {
            return -1;
        }
        NEXT.store(next, Ordering::Relaxed);
    }
    let next: ClockGettime = std::mem::transmute(next);
    let result = next(clock, time);
    if result == 0 && clock == libc::CLOCK_REALTIME {
        (*time).tv_sec += WRONG_BY.load(Ordering::SeqCst) as libc::time_t;
    }
    result
}

/// Held by tests that read the clock or put it wrong.
#[cfg(test)]
pub static IN_USE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn only_the_time_of_day_goes_wrong_and_only_for_a_while() {
        const HOUR: Duration = Duration::from_secs(3600);
        let _alone = IN_USE.lock();
        let (started, before) = (Instant::now(), SystemTime::now());
        {
            let _wrong = wrong_by(2 * 3600);
            assert!(SystemTime::now() > before + HOUR);
            let _wrong = wrong_by(-2 * 3600);
            assert!(SystemTime::now() < before - HOUR);
            let _wrong = set_to(1_000_000_000);
            assert!(SystemTime::now() < UNIX_EPOCH + Duration::from_secs(1_000_000_000) + HOUR);
        }
        assert!(SystemTime::now() < before + HOUR && SystemTime::now() > before - HOUR);
        assert!(started.elapsed() < HOUR);
    }
}
