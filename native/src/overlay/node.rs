//! What an inode is: attributes, where it hangs, and what is in it.

use super::arena::Runs;
use super::base::{BaseDir, Child, Name};
use super::{Ino, Result, Stop};
use crate::codec::cbor::{decode, Value};
use crate::codec::ids::Id;
use crate::codec::node::entry_kind;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub const S_IFMT: u32 = 0o170_000;

/// Nanoseconds since 1970; a file system's times go further than 64 bits of them.
pub type Time = i128;

#[derive(Debug, Clone)]
pub struct Attr {
    pub kind: u8,
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    /// Kept only while it is in memory or in the journal: a state has no such time. Few have one: it is apart.
    pub atime: Option<Box<Time>>,
}

impl Attr {
    pub fn type_bits(&self) -> u32 {
        match self.kind {
            entry_kind::FILE => 0o100_000,
            entry_kind::DIRECTORY => 0o040_000,
            entry_kind::SYMLINK => 0o120_000,
            entry_kind::FIFO => 0o010_000,
            entry_kind::SOCKET => 0o140_000,
            entry_kind::CHARACTER => 0o020_000,
            _ => 0o060_000,
        }
    }
}

pub fn kind_of_mode(mode: u32) -> Option<u8> {
    Some(match mode & S_IFMT {
        0 | 0o100_000 => entry_kind::FILE,
        0o040_000 => entry_kind::DIRECTORY,
        0o120_000 => entry_kind::SYMLINK,
        0o010_000 => entry_kind::FIFO,
        0o140_000 => entry_kind::SOCKET,
        0o020_000 => entry_kind::CHARACTER,
        0o060_000 => entry_kind::BLOCK,
        _ => return None,
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XattrValue {
    Here(Arc<[u8]>),
    /// A longer one, stored as a content of its own.
    Stored(Id),
}

pub type Xattrs = BTreeMap<Vec<u8>, XattrValue>;

#[derive(Debug, Clone)]
pub struct FileBody {
    /// The stored content that lies below the changed blocks, as far as `keep`.
    pub base: Option<Id>,
    pub keep: u64,
    pub runs: Runs,
    /// How much of what the frozen generation has is still shown: once that is stored, `keep` is this.
    pub inherits: u64,
    /// Whether this generation has changed the content.
    pub changed: bool,
}

#[derive(Debug, Clone)]
pub struct DirBody {
    pub base: BaseDir,
    /// Where the base has it, wherever it hangs now; None for the root, and for what is new.
    pub below: Option<(Ino, Name)>,
    /// The names that this generation changed: an inode, or None for «gone».
    pub names: HashMap<Name, Option<Ino>>,
    /// How many directories more it has than below this generation.
    pub more_dirs: i64,
}

impl DirBody {
    /// A directory as a base has it.
    pub fn of(base: BaseDir, below: Option<(Ino, Name)>) -> DirBody {
        DirBody { base, below, names: HashMap::new(), more_dirs: 0 }
    }
}

#[derive(Debug, Clone)]
pub enum Body {
    File(FileBody),
    /// Apart, since it is large, and most inodes are files.
    Dir(Box<DirBody>),
    Link(Arc<[u8]>),
    Other,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub attr: Attr,
    pub xattrs: Option<Arc<Xattrs>>,
    /// Extensions that we don't know, to be kept as they are: the map they came in.
    pub ext: Option<Arc<[u8]>>,
    /// Where it hangs: a directory has one place, a file any number; none if it is open but has no name any more.
    pub places: Places,
    pub body: Body,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    pub fn dir(&self) -> Option<&DirBody> {
        match &self.body {
            Body::Dir(body) => Some(body),
            _ => None,
        }
    }

    pub fn dir_mut(&mut self) -> Option<&mut DirBody> {
        match &mut self.body {
            Body::Dir(body) => Some(body),
            _ => None,
        }
    }

    pub fn file(&self) -> Option<&FileBody> {
        match &self.body {
            Body::File(body) => Some(body),
            _ => None,
        }
    }

    pub fn file_mut(&mut self) -> Option<&mut FileBody> {
        match &mut self.body {
            Body::File(body) => Some(body),
            _ => None,
        }
    }

    /// The stored contents that it shows: its bytes, and attributes too large to stand with it.
    pub fn contents(&self) -> impl Iterator<Item = Id> + '_ {
        let stored = |value: &XattrValue| if let XattrValue::Stored(id) = value { Some(*id) } else { None };
        let attributes = self.xattrs.iter().flat_map(|all| all.values()).filter_map(stored);
        self.file().and_then(|file| file.base).into_iter().chain(attributes)
    }

    pub fn xattr(&self, name: &[u8]) -> Option<&XattrValue> {
        self.xattrs.as_ref().and_then(|all| all.get(name))
    }

    /// A copy for the generation that now changes it: it hangs where it did, and its own changes begin with none.
    pub fn touched(&self) -> Node {
        let mut copy = self.clone();
        match &mut copy.body {
            Body::Dir(body) => {
                body.names = HashMap::new();
                body.more_dirs = 0;
            }
            Body::File(body) => {
                body.inherits = self.attr.size;
                body.changed = false;
            }
            _ => {}
        }
        copy
    }

    /// An inode as a base has it.
    pub fn of_base(child: &Child, owner: (u32, u32), places: impl Into<Places>) -> Result<Node> {
        let places: Places = places.into();
        let known = &child.known;
        let ext = Ext::read(known.ext.as_deref())?;
        let body = match known.kind {
            entry_kind::FILE => Body::File(FileBody {
                base: known.target.as_deref().map(|id| id.try_into().expect("checked when it was decoded")),
                keep: known.size,
                runs: Runs::default(),
                inherits: known.size,
                changed: false,
            }),
            entry_kind::DIRECTORY => Body::Dir(Box::new(DirBody::of(child.dir, places.first().cloned()))),
            entry_kind::SYMLINK => Body::Link(known.target.clone().unwrap_or_default()),
            _ => Body::Other,
        };
        let is_device = matches!(known.kind, entry_kind::CHARACTER | entry_kind::BLOCK);
        let size = match &body {
            Body::File(_) => known.size,
            Body::Link(target) => target.len() as u64,
            _ => 0,
        };
        Ok(Node {
            attr: Attr {
                kind: known.kind,
                mode: known.mode,
                nlink: places.len().max(1) as u32,
                uid: ext.owner.0.unwrap_or(owner.0),
                gid: ext.owner.1.unwrap_or(owner.1),
                device: if is_device { (known.size as u32, known.count as u32) } else { (0, 0) },
                size,
                mtime: child.mtime,
                ctime: child.ctime,
                atime: None,
            },
            xattrs: if ext.xattrs.is_empty() { None } else { Some(Arc::new(ext.xattrs)) },
            ext: if ext.has_more { known.ext.clone() } else { None },
            places,
            body,
        })
    }
}

/// A directory and a name in it.
pub type Place = (Ino, Name);

/// Where an inode hangs: nearly always at one place, which then needs no list.
#[derive(Debug, Clone, Default)]
pub enum Places {
    #[default]
    None,
    One(Place),
    More(Vec<Place>),
}

impl Places {
    pub fn push(&mut self, place: Place) {
        *self = match std::mem::take(self) {
            Places::None => Places::One(place),
            Places::One(first) => Places::More(vec![first, place]),
            Places::More(mut all) => {
                all.push(place);
                Places::More(all)
            }
        };
    }

    pub fn retain(&mut self, keep: impl Fn(&Place) -> bool) {
        *self = self.iter().filter(|place| keep(place)).cloned().collect::<Vec<_>>().into();
    }

    pub fn clear(&mut self) {
        *self = Places::None;
    }
}

impl From<Vec<Place>> for Places {
    fn from(mut all: Vec<Place>) -> Places {
        match all.len() {
            0 => Places::None,
            1 => Places::One(all.remove(0)),
            _ => Places::More(all),
        }
    }
}

impl std::ops::Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        match self {
            Places::None => &[],
            Places::One(place) => std::slice::from_ref(place),
            Places::More(all) => all,
        }
    }
}

impl std::ops::DerefMut for Places {
    fn deref_mut(&mut self) -> &mut [Place] {
        match self {
            Places::None => &mut [],
            Places::One(place) => std::slice::from_mut(place),
            Places::More(all) => all,
        }
    }
}

impl<'a> IntoIterator for &'a Places {
    type Item = &'a Place;
    type IntoIter = std::slice::Iter<'a, Place>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What an entry's extension map says.
#[derive(Default)]
pub struct Ext {
    pub owner: (Option<u32>, Option<u32>),
    pub xattrs: Xattrs,
    pub linked: bool,
    pub has_more: bool,
}

impl Ext {
    pub fn read(data: Option<&[u8]>) -> Result<Ext> {
        let mut ext = Ext::default();
        let Some(data) = data else { return Ok(ext) };
        let Value::Map(pairs) = decode(data)? else {
            return Err(Stop::Damaged("an extension that is not a map".into()));
        };
        let owner = |value: &Value| match value {
            Value::Int(id) => u32::try_from(*id).ok(),
            _ => None,
        };
        for (key, value) in pairs {
            match (key.as_str(), value) {
                ("L", _) => ext.linked = true,
                ("O", Value::Array(ids)) if ids.len() == 2 => ext.owner = (owner(&ids[0]), owner(&ids[1])),
                ("X", Value::Array(all)) => {
                    for pair in all {
                        let Value::Array(pair) = pair else { continue };
                        match pair.as_slice() {
                            [Value::Bytes(name), Value::Bytes(value)] => {
                                ext.xattrs.insert(name.clone(), XattrValue::Here(value.as_slice().into()));
                            }
                            [Value::Bytes(name), Value::Ref(id)] => {
                                ext.xattrs.insert(name.clone(), XattrValue::Stored(*id));
                            }
                            _ => {}
                        }
                    }
                }
                _ => ext.has_more = true,
            }
        }
        Ok(ext)
    }
}
