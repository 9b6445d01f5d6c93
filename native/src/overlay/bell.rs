//! How somebody outside waits for a change without asking again and again: a descriptor that becomes readable.

use rustix::event::{eventfd, EventfdFlags};
use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Rings once for each time that it is armed. Armed and rung under the lock of the state.
pub struct Bell {
    pub descriptor: OwnedFd,
    armed: AtomicBool,
}

impl Bell {
    fn new() -> Result<Bell, Errno> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { descriptor, armed: AtomicBool::new(false) })
    }

    /// Not readable any more; the next ring makes it so.
    pub fn arm(&self) -> Result<(), Errno> {
        match io::read(&self.descriptor, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
        self.armed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn ring(&self) {
        if self.armed.swap(false, Ordering::Relaxed) {
            // Adding one to a counter that was read to 0 never blocks.
            io::write(&self.descriptor, &1u64.to_ne_bytes()).expect("an eventfd takes a one");
        }
    }
}

/// The bells that somebody still holds.
#[derive(Default)]
pub struct Bells(Vec<Weak<Bell>>);

impl Bells {
    pub fn hang(&mut self) -> Result<Arc<Bell>, Errno> {
        self.0.retain(|bell| bell.strong_count() > 0);
        let bell = Arc::new(Bell::new()?);
        self.0.push(Arc::downgrade(&bell));
        Ok(bell)
    }

    pub fn ring(&self) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
    }
}
