//! What a pickle builds: its objects, and what a call makes of them.
//!
//! Objects lie in one list and name each other by index, and texts stay where they are in the pickle. So a pickle
//! may tie knots, nest as deep as it likes and mention one object a million times, without harm: a mention is an
//! index, and nothing is copied or looked through for it.

use std::rc::Rc;

use super::globals::Global;
use crate::state_dict::contents::Dtype;

/// Index of an object.
pub(super) type Id = u32;

/// What a pickle may hold.
#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Int(i64),
    Text(&'a str),
    Global(Global),
    Tuple(Box<[Id]>),
    Dict(Vec<(Id, Id)>),
    Storage(StorageId),
    Tensor(Box<View>),
    /// Something that is not looked into, in words: a list, a number with a point.
    Other(&'static str),
}

/// A storage as the pickle names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageId {
    /// Of its elements; none for bytes that each tensor sees in its own way.
    dtype: Option<Dtype>,
    /// A text: the entry of the archive.
    pub(super) key: Id,
    pub(super) bytes: u64,
}

/// A tensor as the pickle describes it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) storage: StorageId,
    pub(super) dtype: Dtype,
    pub(super) offset: i64,
    /// What [`Objects::ints`] reads once the tensor is wanted.
    pub(super) size: Id,
    pub(super) stride: Id,
}

/// All objects of a pickle.
pub(super) struct Objects<'a>(Vec<Object<'a>>);

impl<'a> Objects<'a> {
    pub(super) fn new(first: impl Iterator<Item = Object<'a>>) -> Self {
        Self(first.collect())
    }

    pub(super) fn add(&mut self, object: Object<'a>) -> Id {
        self.0.push(object);
        (self.0.len() - 1) as Id
    }

    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        &self.0[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Object<'a> {
        &mut self.0[id as usize]
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A tensor's size or strides.
    pub(super) fn ints(&self, id: Id) -> Result<Rc<[i64]>, String> {
        let Object::Tuple(ids) = self.get(id) else { return Err(WRONG.into()) };
        if ids.len() > 64 {
            return Err("is broken: a tensor has more than 64 dimensions".into());
        }
        let arguments = Arguments { objects: self, ids };
        (0..ids.len()).map(|i| arguments.int(i)).collect()
    }

    /// The storage of a persistent id: ("storage", class, key, location, number of elements).
    pub(super) fn storage(&self, id: Id) -> Result<Object<'static>, String> {
        let arguments = self.arguments(id)?;
        let (sort, class, key) = (arguments.get(0)?, arguments.get(1)?, arguments.get(2)?);
        let elements = u64::try_from(arguments.int(4)?).map_err(|_| WRONG)?;
        match (sort, class, key) {
            (Object::Text("storage"), Object::Global(Global::Storage(dtype)), Object::Text(_)) => {
                let bytes = elements.checked_mul(dtype.map_or(1, Dtype::bytes));
                let bytes = bytes.ok_or("is broken: a storage claims more bytes than there are")?;
                Ok(Object::Storage(StorageId { dtype: *dtype, key: arguments.id(2)?, bytes }))
            }
            (_, Object::Global(Global::Passive(what)), _) => Ok(Object::Other(what)),
            _ => Err(WRONG.into()),
        }
    }

    /// What a call of `callable` stands for: an object that is there already, or a new one.
    pub(super) fn call(&self, callable: Id, arguments: Id) -> Result<Result<Id, Object<'static>>, String> {
        let Object::Global(global) = *self.get(callable) else {
            return Err("is broken: its pickle calls what is no function".into());
        };
        let arguments = self.arguments(arguments)?;
        match global {
            Global::FromType => match *arguments.get(0)? {
                Object::Global(function) => function.made(&self.arguments(arguments.id(2)?)?),
                _ => Err(WRONG.into()),
            },
            global => global.made(&arguments),
        }
    }

    fn arguments(&self, id: Id) -> Result<Arguments<'_>, String> {
        match self.get(id) {
            Object::Tuple(ids) => Ok(Arguments { objects: self, ids }),
            _ => Err(WRONG.into()),
        }
    }
}

impl Global {
    fn made(self, arguments: &Arguments<'_>) -> Result<Result<Id, Object<'static>>, String> {
        Ok(match self {
            Self::OrderedDict if arguments.ids.is_empty() => Err(Object::Dict(Vec::new())),
            Self::Size | Self::Parameter => Ok(arguments.id(0)?),
            Self::Tensor { v3 } => Err(arguments.tensor(v3)?),
            Self::Passive(what) => Err(Object::Other(what)),
            // Also a tensor's class in another's: PyTorch writes none.
            _ => return Err(WRONG.into()),
        })
    }
}

const WRONG: &str = "is broken: its pickle calls a function of PyTorch with wrong arguments";

/// The arguments of a call.
struct Arguments<'a> {
    objects: &'a Objects<'a>,
    ids: &'a [Id],
}

impl<'a> Arguments<'a> {
    fn id(&self, i: usize) -> Result<Id, String> {
        Ok(*self.ids.get(i).ok_or(WRONG)?)
    }

    fn get(&self, i: usize) -> Result<&'a Object<'a>, String> {
        Ok(self.objects.get(self.id(i)?))
    }

    fn int(&self, i: usize) -> Result<i64, String> {
        match self.get(i)? {
            Object::Int(value) => Ok(*value),
            _ => Err(WRONG.into()),
        }
    }

    fn tensor(&self, v3: bool) -> Result<Object<'static>, String> {
        let storage = match self.get(0)? {
            Object::Storage(storage) => *storage,
            Object::Other(_) => return Ok(Object::Other("a tensor of a dtype that is not supported")),
            _ => return Err(WRONG.into()),
        };
        let dtype = match (v3, storage.dtype) {
            (true, _) => match self.get(6)? {
                Object::Global(Global::Dtype(dtype)) => *dtype,
                _ => return Ok(Object::Other("a tensor of a dtype that is not supported")),
            },
            (false, Some(dtype)) => dtype,
            (false, None) => Dtype::U8,
        };
        let (offset, size, stride) = (self.int(1)?, self.id(2)?, self.id(3)?);
        Ok(Object::Tensor(Box::new(View { storage, dtype, offset, size, stride })))
    }
}
