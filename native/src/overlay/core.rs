//! An overlay's state behind its lock: what an operation needs is loaded with nothing locked, and marks are made.

use super::arena::Idle;
use super::base::Name;
use super::mark::Marks;
use super::rebase::{Next, Rebase, Stale};
use super::state::State;
use super::{Ino, Result as Done, Stop};
use crate::buffer::Lent;
use crate::codec::ids::Id;
use crate::codec::python::FormatError;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::fd::OwnedFd;
use rustix::fs;
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

const TRIES: usize = 1_000_000;
/// So many bytes are not left unsynced: who then syncs a small file would have to wait for them.
pub const MARK_AFTER: u64 = 32 << 20;

/// So many names at a time are read from a directory: what one operation needs must fit into the cache of nodes.
pub const SOME_NAMES: usize = 512;

/// Marks under way: who wants one waits for the next that begins.
pub struct Marking {
    /// None for what is read-only.
    marks: Option<Marks>,
    begun: u64,
    done: u64,
    running: bool,
    /// A sync has failed: what it should have written may be lost though the next one succeeds. No mark any more.
    failed: bool,
}

pub struct Core {
    pub state: Mutex<State>,
    pub ungated: Condvar,
    marking: Mutex<Marking>,
    marked: Condvar,
    /// Whether a mark was begun that nobody waits for.
    beside: AtomicBool,
    pub folder: OwnedFd,
    pub load: Py<PyAny>,
    pub read: Py<PyAny>,
}

pub fn to_errno(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), std::io::Error::from(errno).to_string()))
}

pub fn to_error(stop: Stop) -> PyErr {
    match stop {
        Stop::Errno(errno) => to_errno(errno),
        Stop::Damaged(message) => FormatError::new_err(message),
        Stop::Node(..) | Stop::Bytes(..) => PyValueError::new_err("a base that never loads what it is asked for"),
    }
}

impl Core {
    pub fn new(state: State, marks: Option<Marks>, folder: OwnedFd, load: Py<PyAny>, read: Py<PyAny>) -> Core {
        Core {
            state: Mutex::new(state),
            ungated: Condvar::new(),
            marking: Mutex::new(Marking { marks, begun: 0, done: 0, running: false, failed: false }),
            marked: Condvar::new(),
            beside: AtomicBool::new(false),
            folder,
            load,
            read,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of an operation may have left half of it: then nothing more is served.
        self.state.lock().expect("an operation on the overlay has panicked")
    }

    /// Run an operation; what it needs of the store is loaded with nothing locked, and it runs again.
    pub fn run<T: Send>(&self, py: Python<'_>, op: impl Fn(&mut State) -> Done<T> + Sync) -> PyResult<T> {
        py.detach(|| self.run_detached(&op))
    }

    pub fn run_detached<T>(&self, mut op: impl FnMut(&mut State) -> Done<T>) -> PyResult<T> {
        for _ in 0..TRIES {
            let mut state = self.lock();
            let result = op(&mut state);
            match result {
                Err(Stop::Node(kind, id)) => {
                    drop(state);
                    let data = Python::attach(|py| self.load_node(py, kind, &id))?;
                    self.lock().cache.insert(kind, id, &data).map_err(to_error)?;
                }
                Err(Stop::Bytes(content, offset, length)) => {
                    drop(state);
                    let data = Python::attach(|py| self.read_content(py, &content, offset, length))?;
                    self.lock().supplied.insert((content, offset, length), data);
                }
                other => {
                    state.settle();
                    return other.map_err(to_error);
                }
            }
        }
        Err(PyValueError::new_err("a base that never loads what it is asked for"))
    }

    /// All that must be known is loaded first, with nothing locked in between; then it happens at once.
    pub fn rebase(&self, rebase: Rebase) -> PyResult<Stale> {
        let rebase = Mutex::new(rebase);
        let mut from = 0;
        loop {
            let mut state = self.lock();
            if !state.gated || !state.is_clean() {
                return Err(to_errno(Errno::BUSY));
            }
            let mut next = rebase.lock().expect("held by nobody else").next(&state, from);
            if matches!(next, Next::Ready) {
                next = rebase.lock().expect("held by nobody else").missed(&state);
            }
            if matches!(next, Next::Ready) {
                return Ok(rebase.into_inner().expect("held by nobody else").apply(&mut state));
            }
            drop(state);
            match next {
                Next::Renew(at) => {
                    self.run_detached(|state| rebase.lock().expect("held by nobody else").renew(state, at))?;
                }
                Next::Below(_, dir) => {
                    let names = self.all_names(dir)?;
                    rebase.lock().expect("held by nobody else").list_below(&self.lock(), dir, names);
                }
                Next::Ready => {}
            }
            from = match next {
                Next::Renew(at) | Next::Below(at, _) => at,
                Next::Ready => from,
            };
        }
    }

    /// All names of a directory, in order, some at a time.
    pub fn all_names(&self, ino: Ino) -> PyResult<Vec<(Name, Ino)>> {
        let mut all = Vec::new();
        let mut after: Option<Name> = None;
        loop {
            let (names, more) = self.run_detached(|state| state.names(ino, after.as_deref(), SOME_NAMES))?;
            all.extend(names);
            match more {
                Some(last) => after = Some(last),
                None => return Ok(all),
            }
        }
    }

    pub fn load_node(&self, py: Python<'_>, kind: u8, id: &Id) -> PyResult<Vec<u8>> {
        let data: Lent = self.load.call1(py, (PyBytes::new(py, id), kind))?.extract(py)?;
        Ok(data.as_slice().to_vec())
    }

    pub fn read_content(&self, py: Python<'_>, content: &Id, offset: u64, length: u64) -> PyResult<Vec<u8>> {
        let all = length == u64::MAX;
        let wanted = if all { None } else { Some(length) };
        let data: Lent = self.read.call1(py, (PyBytes::new(py, content), offset, wanted))?.extract(py)?;
        let data = data.as_slice();
        if !all && data.len() as u64 != length {
            return Err(FormatError::new_err("a stored content that is shorter than its file"));
        }
        Ok(data.to_vec())
    }

    /// A mark that begins after now is durable when this returns.
    pub fn mark(&self) -> Result<(), Errno> {
        let mut marking = self.marking.lock().expect("marking has panicked");
        if marking.marks.is_none() {
            return Ok(());
        }
        let wanted = marking.begun + 1;
        while marking.done < wanted {
            if marking.failed {
                return Err(Errno::IO);
            }
            if marking.running {
                marking = self.marked.wait(marking).expect("marking has panicked");
                continue;
            }
            marking.running = true;
            marking.begun += 1;
            let number = marking.begun;
            drop(marking);
            let synced = self.sync();
            marking = self.marking.lock().expect("marking has panicked");
            marking.running = false;
            let written = synced.and_then(|(stream, position, epoch)| {
                marking.marks.as_mut().map_or(Ok(()), |marks| marks.write(stream, position))?;
                Ok(epoch)
            });
            self.marked.notify_all();
            match written {
                Ok(epoch) => {
                    marking.done = number;
                    let idle = {
                        let mut state = self.lock();
                        state.arena.marked(epoch);
                        state.arena.trim()
                    };
                    self.give_back(idle);
                }
                Err(errno) => {
                    marking.failed = true;
                    self.lock().failed = true;
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// A mark that nobody waits for, one at a time. If it fails, the workspace is read-only, and whoever syncs is told.
    pub fn mark_beside(core: &Arc<Core>) {
        if core.beside.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = core.clone();
        std::thread::spawn(move || {
            let _ = core.mark(); // kept in `failed`
            core.beside.store(false, Ordering::Release);
        });
    }

    /// Sync all that was logged when this began, the arena before the journal: (stream, position, epoch).
    pub fn sync(&self) -> Result<(u64, u64, u64), Errno> {
        let (blocks, logs, new_files, at) = {
            let mut state = self.lock();
            state.epoch += 1;
            let (blocks, new_segments) = state.arena.take_unsynced();
            let (logs, new_logs) = state.journal.take_unsynced();
            let at = (state.journal.stream(), state.journal.position(), state.epoch);
            (blocks, logs, new_segments || new_logs, at)
        };
        for file in blocks.iter().chain(&logs) {
            fs::fdatasync(file)?;
        }
        if new_files {
            fs::fsync(&self.folder)?;
        }
        Ok(at)
    }

    pub fn give_back(&self, idle: Vec<Idle>) {
        idle.into_iter().for_each(|segment| segment.remove(&self.folder));
    }
}
