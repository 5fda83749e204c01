//! A machine for the pickles of torch.save, which builds tensors and plain containers and can do nothing else.
//!
//! A pickle is a program that may call any Python function. Here a name that is not in [`Global::named`] ends the
//! reading, and a call makes one of the few sorts of [`Object`]: no function is ever run. The machine knows
//! protocols 2 to 5, as torch.load's own with weights_only=True does.
//!
//! Why not a crate: those for pickles map them to values of their own and know no persistent ids, in which
//! torch.save keeps the storages; candle's reads PyTorch's files, with a second tensor library behind it.
//!
//! What reading takes, in memory and in work, is linear in the pickle's length: an operation makes one object of
//! a small size, or moves what others put on the stack, each once.

use std::collections::HashMap;

use super::globals::Global;
use super::objects::{Id, Object, Objects};

/// How many objects, places in containers and names for objects a pickle may make.
const MAX_OBJECTS: usize = 1 << 21;

/// Objects that every pickle starts with: None, and the integers from 0 to 255.
const NONE: Id = 0;
const SMALL: Id = 1;

struct Machine<'a> {
    bytes: &'a [u8],
    objects: Objects<'a>,
    /// Equal texts are one object, so that names and keys are told apart by their indices.
    texts: HashMap<&'a str, Id>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    spent: usize,
}

/// Runs a pickle: all its objects, and the index of the one it stands for.
pub(super) fn run(bytes: &[u8]) -> Result<(Objects<'_>, Id), String> {
    let objects = Objects::new(std::iter::once(Object::None).chain((0..256).map(Object::Int)));
    let (stack, marks, texts, memo) = (Vec::new(), Vec::new(), HashMap::new(), HashMap::new());
    let mut machine = Machine { bytes, objects, texts, stack, marks, memo, spent: 0 };
    loop {
        let code = machine.u8()?;
        if code == b'.' {
            let root = machine.pop()?;
            return Ok((machine.objects, root));
        }
        machine.step(code)?;
    }
}

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // PROTO and FRAME
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // Constants: None, booleans, integers, numbers with a point
            b'N' => self.push(NONE),
            0x88 => self.push(SMALL + 1),
            0x89 => self.push(SMALL),
            b'K' => {
                let value = self.u8()?;
                self.push(SMALL + Id::from(value))
            }
            b'M' => {
                let value = self.array().map(u16::from_le_bytes)?;
                self.push_new(Object::Int(value.into()))
            }
            b'J' => {
                let value = self.array().map(i32::from_le_bytes)?;
                self.push_new(Object::Int(value.into()))
            }
            0x8a => {
                let len = self.u8()?;
                self.long(len.into())
            }
            0x8b => {
                let len = self.len4()?;
                self.long(len)
            }
            b'G' => {
                self.take(8)?;
                self.push_new(Object::Other("a number"))
            }
            // Texts and bytes
            b'X' | b'T' => {
                let len = self.len4()?;
                self.text(len)
            }
            0x8c | b'U' => {
                let len = self.u8()?;
                self.text(len.into())
            }
            0x8d => {
                let len = self.len8()?;
                self.text(len)
            }
            b'B' => {
                let len = self.len4()?;
                self.skip(len)
            }
            b'C' => {
                let len = self.u8()?;
                self.skip(len.into())
            }
            0x8e | 0x96 => {
                let len = self.len8()?;
                self.skip(len)
            }
            // Lists and sets, which are not looked into
            b']' => self.push_new(Object::Other("a list")),
            0x8f => self.push_new(Object::Other("a set")),
            b'a' => self.pop().map(drop),
            b'e' | 0x90 | b'1' => self.pop_mark().map(drop),
            b'l' | 0x91 => {
                self.pop_mark()?;
                self.push_new(Object::Other("a list or set"))
            }
            // Tuples
            b')' => self.push_tuple(Box::default()),
            b't' => {
                let items = self.pop_mark()?;
                self.push_tuple(items)
            }
            0x85..=0x87 => {
                let begin = self.stack.len().checked_sub((code - 0x84).into()).ok_or(UNDERFLOW)?;
                self.expect_above_mark(begin)?;
                let items = self.stack.drain(begin..).collect();
                self.push_tuple(items)
            }
            // Dicts
            b'}' => self.push_new(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push_new(Object::Dict(Vec::new()))?;
                self.set_items(&items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            // The stack
            b'(' => {
                self.marks.push(self.stack.len());
                self.expect_stack()
            }
            b'0' => self.pop().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            // The memo
            b'q' => {
                let name = self.u8()?;
                self.put(name.into())
            }
            b'r' => {
                let name = self.array().map(u32::from_le_bytes)?;
                self.put(name)
            }
            0x94 => self.put(self.memo.len() as u32),
            b'h' => {
                let name = self.u8()?;
                self.get(name.into())
            }
            b'j' => {
                let name = self.array().map(u32::from_le_bytes)?;
                self.get(name)
            }
            // Names of Python, and what is made by them
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_new(Object::Global(Global::named(module, name)?))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = self.objects.text(module).zip(self.objects.text(name)).ok_or(NO_TEXT)?;
                self.push_new(Object::Global(Global::named(module, name)?))
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                match self.objects.call(callable, arguments)? {
                    Ok(id) => self.push(id),
                    Err(object) => self.push_new(object),
                }
            }
            b'b' => {
                // The state of a dict are its attributes, of a tensor too: nothing that is wanted.
                self.pop()?;
                match self.objects.get(self.top()?) {
                    Object::Dict(_) | Object::Tensor(_) | Object::Other(_) => Ok(()),
                    _ => Err("is broken: its pickle gives a state to what has none".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.objects.storage(id)?;
                self.push_new(storage)
            }
            _ => Err(format!("holds a pickle with the operation 0x{code:02x}, which no state dict needs")),
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        if !items.len().is_multiple_of(2) {
            return Err("is broken: its pickle sets a key without a value".into());
        }
        self.spend(items.len())?;
        let top = self.top()?;
        match self.objects.get_mut(top) {
            Object::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Object::Other(_) => {}
            _ => return Err("is broken: its pickle sets a key of what is no dict".into()),
        }
        Ok(())
    }

    /// An integer of any length; one that does not fit i64 is of no use.
    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.take(len)?;
        if len > 8 {
            return self.push_new(Object::Other("a long integer"));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value[..len].copy_from_slice(bytes);
        self.push_new(Object::Int(i64::from_le_bytes(value)))
    }

    fn text(&mut self, len: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| NO_TEXT)?;
        match self.texts.get(text) {
            Some(&id) => self.push(id),
            None => {
                let id = self.add(Object::Text(text))?;
                self.texts.insert(text, id);
                self.push(id)
            }
        }
    }

    fn skip(&mut self, len: usize) -> Result<(), String> {
        self.take(len)?;
        self.push_new(Object::Other("bytes"))
    }

    fn push_tuple(&mut self, items: Box<[Id]>) -> Result<(), String> {
        self.spend(items.len())?;
        self.push_new(Object::Tuple(items))
    }

    fn put(&mut self, name: u32) -> Result<(), String> {
        self.spend(1)?;
        self.memo.insert(name, self.top()?);
        Ok(())
    }

    fn get(&mut self, name: u32) -> Result<(), String> {
        let id = self.memo.get(&name).copied();
        self.push(id.ok_or("is broken: its pickle recalls what it never kept")?)
    }

    fn push_new(&mut self, object: Object<'a>) -> Result<(), String> {
        let id = self.add(object)?;
        self.push(id)
    }

    fn add(&mut self, object: Object<'a>) -> Result<Id, String> {
        self.spend(1)?;
        Ok(self.objects.add(object))
    }

    fn push(&mut self, id: Id) -> Result<(), String> {
        self.stack.push(id);
        self.expect_stack()
    }

    fn expect_stack(&self) -> Result<(), String> {
        if self.stack.len() + self.marks.len() > MAX_OBJECTS {
            return Err(TOO_MANY.into());
        }
        Ok(())
    }

    fn spend(&mut self, count: usize) -> Result<(), String> {
        self.spent += count;
        if self.spent > MAX_OBJECTS {
            return Err(TOO_MANY.into());
        }
        Ok(())
    }

    fn top(&self) -> Result<Id, String> {
        Ok(*self.stack.last().ok_or(UNDERFLOW)?)
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.expect_above_mark(self.stack.len().checked_sub(1).ok_or(UNDERFLOW)?)?;
        Ok(self.stack.pop().ok_or(UNDERFLOW)?)
    }

    fn pop_mark(&mut self) -> Result<Box<[Id]>, String> {
        let mark = self.marks.pop().ok_or(UNDERFLOW)?;
        Ok(self.stack.drain(mark..).collect())
    }

    /// What lies below a mark waits for its end.
    fn expect_above_mark(&self, begin: usize) -> Result<(), String> {
        if self.marks.last().is_some_and(|&mark| begin < mark) {
            return Err(UNDERFLOW.into());
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.bytes.split_at_checked(len).ok_or("is broken or cut off: its pickle has no end")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    fn len4(&mut self) -> Result<usize, String> {
        self.array().map(|len| u32::from_le_bytes(len) as usize)
    }

    fn len8(&mut self) -> Result<usize, String> {
        let len = self.array().map(u64::from_le_bytes)?;
        usize::try_from(len).map_err(|_| "is broken: a length in its pickle is too large".into())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or("is broken or cut off: its pickle has no end")? + 1)?;
        Ok(std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| NO_TEXT)?)
    }
}

const NO_TEXT: &str = "is broken: a text or name of its pickle is no text, or not UTF-8";
const UNDERFLOW: &str = "is broken: its pickle uses more than it made";
const TOO_MANY: &str =
    "holds a pickle of more than two million objects; keep the state dict in a file of its own";
