//! The overlay for Python: one object a workspace, thread-safe; every call lets go of the GIL.

use super::arena::Arena;
use super::base::{Base, BaseDir, Known};
use super::bell::Bell;
use super::core::{to_errno, to_error, Core, MARK_AFTER, SOME_NAMES};
use super::journal::Journal;
use super::node::{kind_of_mode, Attr, Body, Node, Time, XattrValue};
use super::ops::Making;
use super::rebase::{Change, Rebase};
use super::record::Changes;
use super::replay::{self, files_of, Opening, Range};
use super::seal::Stored;
use super::sought::Sought;
use super::state::State;
use super::{Ino, Result as Done, ROOT};
use crate::buffer::Lent;
use crate::chunk::content::ContentWriter;
use crate::chunk::python::{into, Batch};
use crate::codec::ids::Id;
use crate::codec::python::from_int;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};
use rustix::fd::AsRawFd;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

#[pyclass(frozen)]
pub struct Overlay {
    core: Arc<Core>,
    ranges: Vec<Range>,
    stream: u64,
}

/// Nanoseconds: nearly always within 64 bits, where Python makes a number faster.
struct Nanoseconds(Time);

impl<'py> IntoPyObject<'py> for Nanoseconds {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_int(py, self.0)
    }
}

type AttrTuple = (Ino, u32, u32, u32, u32, (u32, u32), u64, u64, Nanoseconds, Nanoseconds, Nanoseconds);

fn attr_of(state: &mut State, ino: Ino) -> Done<AttrTuple> {
    let links = state.links(ino)?;
    let node = state.node(ino)?;
    let attr: &Attr = &node.attr;
    let size = if node.is_dir() { 4096 } else { attr.size };
    let blocks = match &node.body {
        Body::File(file) if file.base.is_none() => file.runs.iter().map(|(_, run)| u64::from(run.length) * 8).sum(),
        Body::File(_) => attr.size.div_ceil(512),
        _ => 0,
    };
    Ok((
        ino,
        attr.type_bits() | u32::from(attr.mode),
        links,
        attr.uid,
        attr.gid,
        attr.device,
        size,
        blocks,
        Nanoseconds(attr.atime.as_deref().copied().unwrap_or(attr.mtime)),
        Nanoseconds(attr.mtime),
        Nanoseconds(attr.ctime),
    ))
}

fn id_of(bytes: &[u8]) -> PyResult<Id> {
    bytes.try_into().map_err(|_| PyValueError::new_err("an id is 32 bytes"))
}

fn optional_id(bytes: Option<Vec<u8>>) -> PyResult<Option<Id>> {
    bytes.map(|bytes| id_of(&bytes)).transpose()
}

type DirIds = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Ino);

fn base_dir(ids: DirIds) -> PyResult<BaseDir> {
    let (tree, times, inodes, first) = ids;
    Ok(BaseDir { tree: optional_id(tree)?, times: optional_id(times)?, inodes: optional_id(inodes)?, first })
}

fn bytes_or_none<'py>(py: Python<'py>, id: Option<Id>) -> Option<Bound<'py, PyBytes>> {
    id.map(|id| PyBytes::new(py, &id))
}

/// A state to stand on, and its root as an inode. `time`: of what has none; the root's own and when it was changed.
fn base_and_root(
    root: DirIds,
    mode: u16,
    ext: Option<Vec<u8>>,
    links: Option<Vec<u8>>,
    time: (i128, i128, i128),
    owner: (u32, u32),
) -> PyResult<(Base, Node)> {
    let dir = base_dir(root)?;
    let base = Base { root: dir, links: optional_id(links)?, time: time.0 };
    let known = Known { kind: 2, mode, target: None, size: 0, count: 0, ext: ext.map(|ext| ext.as_slice().into()) };
    let child = super::base::Child { ino: ROOT, known, mtime: time.1, ctime: time.2, dir };
    Ok((base, Node::of_base(&child, owner, Vec::new()).map_err(to_error)?))
}

#[pymethods]
impl Overlay {
    /// Open a workspace's files and do again what its journal holds; that is durable then, and `ranges` says where it is.
    ///
    /// `source`: of a fork that stands on what that one has frozen. `freeze_at`: forks stand on what is logged up to
    /// there, (stream, position), which is frozen again.
    #[new]
    #[pyo3(signature = (
        folder, root, mode, ext, links, time, owner, next, ranges, same_boot, load, read, source=None, freeze_at=None
    ))]
    #[allow(clippy::too_many_arguments)] // what a live row and its state say
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        root: DirIds,
        mode: u16,
        ext: Option<Vec<u8>>,
        links: Option<Vec<u8>>,
        time: (i128, i128, i128),
        owner: (u32, u32),
        next: Ino,
        ranges: Vec<(u64, u64, Option<u64>)>,
        same_boot: bool,
        load: Py<PyAny>,
        read: Py<PyAny>,
        source: Option<Bound<'_, Overlay>>,
        freeze_at: Option<(u64, u64)>,
    ) -> PyResult<Overlay> {
        let (base, root) = base_and_root(root, mode, ext, links, time, owner)?;
        let ranges = ranges.into_iter().map(|(stream, start, end)| Range { stream, start, end }).collect();
        let folder =
            fs::open(&folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(to_errno)?;
        let opening = Opening { base, owner, root, next, ranges, same_boot };
        let mut opened = py.detach(|| replay::open(&folder, opening)).map_err(to_error)?;
        if let Some(source) = source {
            let source = &source.get().core;
            if !py.detach(|| opened.state.stand_on_frozen(&source.lock())) {
                return Err(PyValueError::new_err("a source that has nothing frozen"));
            }
        }
        let stream = opened.state.journal.stream();
        let core = Core::new(opened.state, Some(opened.marks), folder, load, read);
        let ranges = py.detach(|| -> PyResult<Vec<Range>> {
            let mut done = Vec::new();
            for mut log in opened.logs {
                loop {
                    if let Some(end) = freeze_at.filter(|end| log.is_at(*end)) {
                        core.lock().freeze_again(end);
                    }
                    let Some((record, is_marked)) = log.take().map_err(to_error)? else { break };
                    if !is_marked {
                        core.lock().replay_unmarked();
                    }
                    let mut waiting = Some(record);
                    core.run_detached(|state| state.replay(&mut waiting))?;
                }
                done.extend(log.done(&core.folder).map_err(to_error)?);
            }
            replay::remove_others(&core.folder, &done).map_err(to_errno)?;
            core.run_detached(|state| state.claim_blocks(&done))?;
            // A row will say where the old streams end. Their marks stay: until then, they say what a power cut left.
            core.sync().map_err(to_errno)?;
            Ok(done)
        })?;
        Ok(Overlay { core: Arc::new(core), ranges, stream })
    }

    /// A state that is only looked at: what would change it is refused with EROFS. It has no files.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)] // what a state says
    fn view(
        root: DirIds,
        mode: u16,
        ext: Option<Vec<u8>>,
        links: Option<Vec<u8>>,
        time: (i128, i128, i128),
        owner: (u32, u32),
        load: Py<PyAny>,
        read: Py<PyAny>,
    ) -> PyResult<Overlay> {
        let (base, root) = base_and_root(root, mode, ext, links, time, owner)?;
        let open = || fs::open(c"/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let journal = Journal::begin(open().map_err(to_errno)?, 0);
        let arena = Arena::open(open().map_err(to_errno)?, &[]).map_err(to_errno)?;
        let mut state = State::new(base, owner, root, ROOT + 1, journal, arena);
        state.read_only = true;
        let core = Core::new(state, None, open().map_err(to_errno)?, load, read);
        Ok(Overlay { core: Arc::new(core), ranges: Vec::new(), stream: 0 })
    }

    /// Who opens a workspace is asked for what it needs, and so refers to itself: the collector must see that.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core.load)?;
        visit.call(&self.core.read)
    }

    /// What was done again: (stream, start, end) of each range, and the new stream that comes after them.
    #[getter]
    fn ranges(&self) -> Vec<(u64, u64, Option<u64>)> {
        self.ranges.iter().map(|range| (range.stream, range.start, range.end)).collect()
    }

    #[getter]
    fn stream(&self) -> u64 {
        self.stream
    }

    #[getter]
    fn position(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.core.lock().journal.position())
    }

    /// How long the journal is that a start would have to do again, in bytes.
    #[getter]
    fn log_bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.core.lock().log_bytes())
    }

    /// Whether a sync has failed: then nothing is changed or made durable any more until it is opened again.
    #[getter]
    fn failed(&self, py: Python<'_>) -> bool {
        py.detach(|| self.core.lock().failed)
    }

    #[getter]
    fn next_inode(&self, py: Python<'_>) -> Ino {
        py.detach(|| self.core.lock().next)
    }

    // looking

    fn lookup(&self, py: Python<'_>, parent: Ino, name: Vec<u8>) -> PyResult<Option<AttrTuple>> {
        self.core.run(py, |state| {
            let found = state.lookup(parent, &name)?;
            found.map(|ino| attr_of(state, ino)).transpose()
        })
    }

    /// Several names of a directory at once: all are known before the first is held.
    fn lookup_each(&self, py: Python<'_>, parent: Ino, names: Vec<PyBackedBytes>) -> PyResult<Vec<Option<AttrTuple>>> {
        self.core.run(py, |state| {
            let mut found = Vec::with_capacity(names.len());
            for name in &names {
                let ino = state.look(parent, name)?;
                found.push(ino.map(|ino| attr_of(state, ino)).transpose()?);
            }
            for (ino, ..) in found.iter().flatten() {
                state.looked_up(*ino);
            }
            Ok(found)
        })
    }

    /// One reference less to each of these.
    fn forget_each(&self, py: Python<'_>, inos: Vec<Ino>) {
        py.detach(|| {
            let mut state = self.core.lock();
            inos.into_iter().for_each(|ino| state.forget(ino, 1));
        });
    }

    fn forget(&self, py: Python<'_>, ino: Ino, count: u64) {
        py.detach(|| self.core.lock().forget(ino, count));
    }

    fn getattr(&self, py: Python<'_>, ino: Ino) -> PyResult<AttrTuple> {
        self.core.run(py, |state| attr_of(state, ino))
    }

    fn readlink<'py>(&self, py: Python<'py>, ino: Ino) -> PyResult<Bound<'py, PyBytes>> {
        let target = self.core.run(py, |state| state.read_link(ino))?;
        Ok(PyBytes::new(py, &target))
    }

    /// (name, number) of what is in a directory, in order, after a name: about so many; and after which name it goes
    /// on, if there is more.
    #[pyo3(signature = (ino, after=None, most=SOME_NAMES))]
    #[allow(clippy::type_complexity)] // names with their inodes, and the next start
    fn names<'py>(
        &self,
        py: Python<'py>,
        ino: Ino,
        after: Option<Vec<u8>>,
        most: usize,
    ) -> PyResult<(Vec<(Bound<'py, PyBytes>, Ino)>, Option<Bound<'py, PyBytes>>)> {
        let (names, more) = self.core.run(py, |state| state.names(ino, after.as_deref(), most))?;
        let names = names.into_iter().map(|(name, ino)| (PyBytes::new(py, &name), ino)).collect();
        Ok((names, more.map(|name| PyBytes::new(py, &name))))
    }

    fn parent(&self, py: Python<'_>, ino: Ino) -> PyResult<Ino> {
        self.core.run(py, |state| Ok(state.node(ino)?.places.first().map_or(ROOT, |(parent, _)| *parent)))
    }

    fn path<'py>(&self, py: Python<'py>, ino: Ino) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let path = self.core.run(py, |state| Ok(state.path_of(ino)))?;
        Ok(path.map(|path| PyBytes::new(py, &path)))
    }

    // changing

    #[pyo3(signature = (parent, name, mode, umask, uid, gid, device=(0, 0), target=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn make(
        &self,
        py: Python<'_>,
        parent: Ino,
        name: Vec<u8>,
        mode: u32,
        umask: u16,
        uid: u32,
        gid: u32,
        device: (u32, u32),
        target: Vec<u8>,
    ) -> PyResult<AttrTuple> {
        let Some(kind) = kind_of_mode(mode) else { return Err(to_errno(Errno::INVAL)) };
        self.core.run(py, |state| {
            let target = target.clone();
            let making = Making { kind, mode: (mode & 0o7777) as u16, umask, uid, gid, device, target };
            let ino = state.make(parent, &name, making)?;
            attr_of(state, ino)
        })
    }

    fn link(&self, py: Python<'_>, ino: Ino, parent: Ino, name: Vec<u8>) -> PyResult<AttrTuple> {
        self.core.run(py, |state| {
            state.link(ino, parent, &name)?;
            attr_of(state, ino)
        })
    }

    fn unlink(&self, py: Python<'_>, parent: Ino, name: Vec<u8>) -> PyResult<()> {
        self.core.run(py, |state| state.unlink(parent, &name))
    }

    fn rmdir(&self, py: Python<'_>, parent: Ino, name: Vec<u8>) -> PyResult<()> {
        self.core.run(py, |state| state.rmdir(parent, &name))
    }

    #[allow(clippy::too_many_arguments)]
    fn rename(
        &self,
        py: Python<'_>,
        parent: Ino,
        name: Vec<u8>,
        new_parent: Ino,
        new_name: Vec<u8>,
        exchange: bool,
        replace: bool,
    ) -> PyResult<()> {
        self.core.run(py, |state| state.rename(parent, &name, new_parent, &new_name, exchange, replace))
    }

    #[pyo3(signature = (ino, mode=None, uid=None, gid=None, size=None, atime=None, mtime=None))]
    #[allow(clippy::too_many_arguments)]
    fn setattr(
        &self,
        py: Python<'_>,
        ino: Ino,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<i128>,
        mtime: Option<i128>,
    ) -> PyResult<AttrTuple> {
        let changes = Changes { mode: mode.map(|mode| mode & 0o7777), uid, gid, atime, mtime };
        self.core.run(py, |state| {
            state.links(ino)?; // known before anything changes: this may have to run again
            state.set(ino, changes, size)?;
            attr_of(state, ino)
        })
    }

    fn getxattr<'py>(&self, py: Python<'py>, ino: Ino, name: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
        let value = self.core.run(py, |state| state.get_xattr(ino, &name))?;
        Ok(PyBytes::new(py, &value))
    }

    fn listxattr<'py>(&self, py: Python<'py>, ino: Ino) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let names = self.core.run(py, |state| state.list_xattrs(ino))?;
        Ok(names.iter().map(|name| PyBytes::new(py, name)).collect())
    }

    #[pyo3(signature = (ino, name, value, create=false, replace=false))]
    fn setxattr(
        &self,
        py: Python<'_>,
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        create: bool,
        replace: bool,
    ) -> PyResult<()> {
        self.core.run(py, |state| state.set_xattr(ino, &name, &value, create, replace))
    }

    fn removexattr(&self, py: Python<'_>, ino: Ino, name: Vec<u8>) -> PyResult<()> {
        self.core.run(py, |state| state.remove_xattr(ino, &name))
    }

    fn opened(&self, py: Python<'_>, ino: Ino) -> PyResult<()> {
        self.core.run(py, |state| {
            state.node(ino)?;
            state.opened(ino);
            Ok(())
        })
    }

    fn closed(&self, py: Python<'_>, ino: Ino) {
        py.detach(|| self.core.lock().closed(ino));
    }

    /// One more reference of the kernel's, as a lookup makes it.
    fn looked_up(&self, py: Python<'_>, ino: Ino) {
        py.detach(|| self.core.lock().looked_up(ino));
    }

    fn read<'py>(&self, py: Python<'py>, ino: Ino, offset: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        let data = self.core.run(py, |state| state.read(ino, offset, length))?;
        Ok(PyBytes::new(py, &data))
    }

    fn write(&self, py: Python<'_>, ino: Ino, offset: u64, data: Lent) -> PyResult<usize> {
        let data = data.as_slice();
        let unsynced = self.core.run(py, |state| {
            state.write(ino, offset, data)?;
            Ok(state.arena.unsynced_bytes())
        })?;
        if unsynced >= MARK_AFTER {
            Core::mark_beside(&self.core);
        }
        Ok(data.len())
    }

    /// All that was acknowledged before this call survives a power cut when it returns.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.core.mark()).map_err(to_errno)
    }

    // what changed

    #[getter]
    fn is_clean(&self, py: Python<'_>) -> bool {
        py.detach(|| self.core.lock().is_clean())
    }

    /// The number of the last change.
    #[getter]
    fn event(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.core.lock().event)
    }

    /// (last, changes): (number, path) of the names that changed after a number, at most so many, and the number up to
    /// which these are all; None instead of them if `since` is too long ago to be known.
    #[allow(clippy::type_complexity)]
    fn events<'py>(&self, py: Python<'py>, since: u64, most: usize) -> (u64, Option<Vec<(u64, Bound<'py, PyBytes>)>>) {
        let (last, found) = py.detach(|| self.core.lock().events_after(since, most));
        (last, found.map(|all| all.iter().map(|(number, path)| (*number, PyBytes::new(py, path))).collect()))
    }

    /// A bell that can be armed to ring at the next change.
    fn bell(&self, py: Python<'_>) -> PyResult<ChangeBell> {
        let bell = py.detach(|| self.core.lock().bells.hang()).map_err(to_errno)?;
        Ok(ChangeBell { core: self.core.clone(), bell })
    }

    /// What the generations hold: a tuple of each inode, those of the open one last.
    #[pyo3(signature = (frozen_only=false))]
    fn nodes<'py>(&self, py: Python<'py>, frozen_only: bool) -> PyResult<Bound<'py, PyList>> {
        let (frozen, open) = py.detach(|| {
            let state = self.core.lock();
            let open: Vec<(Ino, Node)> = if frozen_only {
                Vec::new()
            } else {
                state.open.iter().map(|(ino, node)| (*ino, node.clone())).collect()
            };
            (state.frozen.clone(), open)
        });
        let list = PyList::empty(py);
        for (ino, node) in frozen.iter().flat_map(|frozen| frozen.nodes.iter()) {
            list.append(node_tuple(py, *ino, node)?)?;
        }
        for (ino, node) in &open {
            list.append(node_tuple(py, *ino, node)?)?;
        }
        Ok(list)
    }

    // sealing

    /// End the open generation: what is done from now on belongs to a new one. Its end in the journal, (stream,
    /// position); None if clean. EBUSY if there is a frozen one.
    fn freeze(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        self.core.run(py, |state| Ok(if state.freeze()? { state.frozen_end() } else { None }))
    }

    /// The same for a fork, which then stands on it; a frozen one does, if nothing was changed since. EBUSY if not.
    fn share(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        self.core.run(py, |state| state.share())
    }

    /// Where the frozen generation ends in its workspace's journal, if there is one.
    #[getter]
    fn frozen_end(&self, py: Python<'_>) -> Option<(u64, u64)> {
        py.detach(|| self.core.lock().frozen_end())
    }

    /// Put a frozen file's content into a batch, as often as it is full: `flush` then takes it and gives a new one.
    /// Its id and size, and whether `path` is in it.
    fn put_content<'py>(
        &self,
        py: Python<'py>,
        ino: Ino,
        batch: Py<Batch>,
        flush: Py<PyAny>,
        path: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, u64, bool)> {
        const STEP: u64 = 1 << 20;
        let frozen = py.detach(|| self.core.lock().frozen.clone());
        let Some(node) = frozen.as_ref().and_then(|frozen| frozen.nodes.get(&ino)) else {
            return Err(to_errno(Errno::STALE));
        };
        let mut batch = batch;
        let mut writer = ContentWriter::default();
        let mut sought = Sought::new(path);
        let mut at = 0;
        while at < node.attr.size {
            let length = STEP.min(node.attr.size - at);
            let data = self.core.run(py, |state| {
                let mut buffer = vec![0; length as usize];
                state.read_into(node, at, &mut buffer)?;
                Ok(buffer)
            })?;
            let target = batch.get();
            py.detach(|| {
                sought.feed(&data);
                writer.feed(&data, &mut into(target));
            });
            at += length;
            batch = flush.call1(py, (batch,))?.extract(py)?;
        }
        let target = batch.get();
        let (id, size) = writer.finish(&mut into(target));
        Ok((PyBytes::new(py, &id), size, sought.finish()))
    }

    /// The frozen generation is stored, and the row of the workspace says so.
    fn retire(
        &self,
        py: Python<'_>,
        files: Vec<(Ino, Option<Vec<u8>>)>,
        dirs: Vec<(Ino, DirIds)>,
        links: Option<Vec<u8>>,
    ) -> PyResult<()> {
        let mut stored = HashMap::with_capacity(files.len() + dirs.len());
        for (ino, content) in files {
            stored.insert(ino, Stored::File(optional_id(content)?));
        }
        for (ino, ids) in dirs {
            stored.insert(ino, Stored::Dir(base_dir(ids)?));
        }
        let links = optional_id(links)?;
        let (idle, begins) = self.core.run(py, |state| Ok((state.retire(&stored, links)?, state.log_before == 0)))?;
        py.detach(|| self.core.give_back(idle));
        if !begins {
            return Ok(());
        }
        // The streams that were replayed when this was opened are in the store now.
        let current = format!("j-{}-", self.stream);
        for name in files_of(&self.core.folder).map_err(to_errno)? {
            if name.starts_with("j-") && !name.starts_with(&current) {
                fs::unlinkat(&self.core.folder, name.as_str(), AtFlags::empty()).map_err(to_errno)?;
            }
        }
        Ok(())
    }

    /// The frozen generation could not be stored: it is open again.
    fn thaw(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().thaw());
    }

    // another state

    /// From now on what would change something is refused with EAGAIN, until the gate is open again.
    fn close_gate(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().gated = true);
    }

    fn open_gate(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().gated = false);
        self.core.ungated.notify_all();
    }

    /// Returns once the gate is open.
    fn wait_for_gate(&self, py: Python<'_>) {
        py.detach(|| {
            let mut state = self.core.lock();
            while state.gated {
                state = self.core.ungated.wait(state).expect("an operation on the overlay has panicked");
            }
        });
    }

    /// The first of so many numbers of inodes that nobody else is given.
    fn take_numbers(&self, py: Python<'_>, count: u64) -> Ino {
        py.detach(|| {
            let mut state = self.core.lock();
            let first = state.next;
            state.next += count;
            first
        })
    }

    /// What the row of the workspace says is not what is here: nothing is changed any more until it is opened again.
    fn fail(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().failed = true);
    }

    /// The workspace is being removed: what would change something is refused with ENOENT.
    fn end(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().ended = true);
    }

    /// It was not removed after all.
    fn go_on(&self, py: Python<'_>) {
        py.detach(|| self.core.lock().ended = false);
    }

    /// Whether somebody has a file or a listing open.
    #[getter]
    fn open_files(&self, py: Python<'_>) -> bool {
        py.detach(|| self.core.lock().held.values().any(|held| held.opens > 0))
    }

    /// Whether the kernel refers to anything but the root.
    #[getter]
    fn is_held(&self, py: Python<'_>) -> bool {
        py.detach(|| self.core.lock().held.len() > 1)
    }

    /// The stored contents that only inodes without a name still show, and those that `numbers`, and what is held below
    /// them, will.
    fn contents_held<'py>(&self, py: Python<'py>, numbers: Vec<Ino>) -> Vec<Bound<'py, PyBytes>> {
        let found = py.detach(|| {
            let state = self.core.lock();
            let leaving = state.clean_at_or_below(&numbers);
            let held = state.orphans.values().chain(leaving);
            held.flat_map(Node::contents).collect::<std::collections::BTreeSet<Id>>()
        });
        found.iter().map(|id| PyBytes::new(py, id)).collect()
    }

    /// Stand on another state, whose row is written: (names, (inode, whether its pages and listings, too)) that the
    /// kernel must drop. The gate is closed and nothing is uncommitted, or EBUSY.
    #[pyo3(signature = (root, mode, ext, links, time, owner, dirs, changes, lost))]
    #[allow(clippy::too_many_arguments, clippy::type_complexity)] // what a live row and its state say
    fn rebase<'py>(
        &self,
        py: Python<'py>,
        root: DirIds,
        mode: u16,
        ext: Option<Vec<u8>>,
        links: Option<Vec<u8>>,
        time: (i128, i128, i128),
        owner: (u32, u32),
        dirs: Vec<(Ino, DirIds)>,
        changes: Vec<(Ino, Vec<u8>, Option<Ino>, Option<Ino>, bool)>,
        lost: Vec<Ino>,
    ) -> PyResult<(Vec<(Ino, Bound<'py, PyBytes>)>, Vec<(Ino, bool)>)> {
        let (base, root) = base_and_root(root, mode, ext, links, time, owner)?;
        let dirs = dirs.into_iter().map(|(ino, ids)| Ok((ino, base_dir(ids)?))).collect::<PyResult<_>>()?;
        let mut rebase = Rebase::new(base, owner, root, dirs);
        rebase.changes = changes
            .into_iter()
            .map(|(parent, name, old, new, shows)| Change { parent, name: name.as_slice().into(), old, new, shows })
            .collect();
        rebase.lost = lost;
        let stale = py.detach(|| self.core.rebase(rebase))?;
        let names = stale.names.iter().map(|(parent, name)| (*parent, PyBytes::new(py, name))).collect();
        Ok((names, stale.inodes))
    }

    /// (inodes held by others, inodes of the generations, orphans, blocks in use)
    fn figures(&self, py: Python<'_>) -> (usize, usize, usize, u64) {
        py.detach(|| {
            let state = self.core.lock();
            let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.nodes.len());
            (state.held.len(), state.open.len() + frozen, state.orphans.len(), state.arena.used_blocks())
        })
    }
}

#[pyclass(frozen)]
pub struct ChangeBell {
    core: Arc<Core>,
    bell: Arc<Bell>,
}

#[pymethods]
impl ChangeBell {
    fn fileno(&self) -> i32 {
        self.bell.descriptor.as_raw_fd()
    }

    /// Whether `fileno` becomes readable at the next change; False if there is one after `since` already.
    fn arm(&self, py: Python<'_>, since: u64) -> PyResult<bool> {
        py.detach(|| {
            let state = self.core.lock();
            if state.event != since {
                return Ok(false);
            }
            self.bell.arm().map(|()| true)
        })
        .map_err(to_errno)
    }
}

/// (ino, kind, mode, uid, gid, device, size, mtime, ctime, places, xattrs, ext, what): what = (tree, times, inodes,
/// first, below, names) of a directory, (base, keep, changed) of a file, the target of a link, or None.
fn node_tuple<'py>(py: Python<'py>, ino: Ino, node: &Node) -> PyResult<Bound<'py, PyTuple>> {
    let attr = &node.attr;
    let places: Vec<(Ino, Bound<'py, PyBytes>)> =
        node.places.iter().map(|(parent, name)| (*parent, PyBytes::new(py, name))).collect();
    let xattrs: Vec<(Bound<'py, PyBytes>, Bound<'py, PyAny>)> = node
        .xattrs
        .iter()
        .flat_map(|all| all.iter())
        .map(|(name, value)| {
            let value = match value {
                XattrValue::Here(value) => PyBytes::new(py, value).into_any(),
                XattrValue::Stored(id) => Bound::new(py, crate::codec::python::Ref { id: *id })?.into_any(),
            };
            Ok((PyBytes::new(py, name), value))
        })
        .collect::<PyResult<_>>()?;
    let what: Bound<'py, PyAny> = match &node.body {
        Body::Dir(dir) => {
            let names: Vec<(Bound<'py, PyBytes>, Option<Ino>)> =
                dir.names.iter().map(|(name, what)| (PyBytes::new(py, name), *what)).collect();
            let below = dir.below.as_ref().map(|(parent, name)| (*parent, PyBytes::new(py, name)));
            let base = &dir.base;
            let ids = (bytes_or_none(py, base.tree), bytes_or_none(py, base.times), bytes_or_none(py, base.inodes));
            (ids.0, ids.1, ids.2, base.first, below, names).into_pyobject(py)?.into_any()
        }
        Body::File(file) => (bytes_or_none(py, file.base), file.keep, file.changed).into_pyobject(py)?.into_any(),
        Body::Link(target) => PyBytes::new(py, target).into_any(),
        Body::Other => py.None().into_bound(py),
    };
    let items: Vec<Bound<'py, PyAny>> = vec![
        ino.into_pyobject(py)?.into_any(),
        attr.kind.into_pyobject(py)?.into_any(),
        attr.mode.into_pyobject(py)?.into_any(),
        attr.uid.into_pyobject(py)?.into_any(),
        attr.gid.into_pyobject(py)?.into_any(),
        attr.device.into_pyobject(py)?.into_any(),
        attr.size.into_pyobject(py)?.into_any(),
        attr.mtime.into_pyobject(py)?.into_any(),
        attr.ctime.into_pyobject(py)?.into_any(),
        places.into_pyobject(py)?.into_any(),
        xattrs.into_pyobject(py)?.into_any(),
        node.ext.as_ref().map(|ext| PyBytes::new(py, ext)).into_pyobject(py)?.into_any(),
        what,
    ];
    PyTuple::new(py, items)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Overlay>()?;
    module.add_class::<ChangeBell>()
}
