//! Pickles that mention over and over what they made once, long names and wide tuples above all: the bytes are read
//! as the sentences of a small language.
#![no_main]

use spiketrace_fuzz::{read, torch_save};

/// No pickle longer than this is tried.
const LONGEST: usize = 1 << 16;

/// What is remembered, each sort in 16 places of the memo.
#[derive(Clone, Copy)]
enum Sort {
    Text,
    Ints,
    Class,
    Function,
    StorageId,
    Storage,
    Arguments,
    Made,
    Dict,
}

const SORTS: [Sort; 9] = [
    Sort::Text,
    Sort::Ints,
    Sort::Class,
    Sort::Function,
    Sort::StorageId,
    Sort::Storage,
    Sort::Arguments,
    Sort::Made,
    Sort::Dict,
];

const CLASSES: [&str; 6] = [
    "torch\nFloatStorage",
    "torch\nBoolStorage",
    "torch\nUntypedStorage",
    "torch\nQInt8Storage",
    "torch\nfloat32",
    "torch\nuint16",
];

const FUNCTIONS: [&str; 7] = [
    "torch._utils\n_rebuild_tensor_v2",
    "torch._utils\n_rebuild_tensor_v3",
    "torch._utils\n_rebuild_parameter",
    "torch._tensor\n_rebuild_from_type_v2",
    "collections\nOrderedDict",
    "torch\nSize",
    "builtins\nset",
];

struct Writer<'a> {
    source: &'a [u8],
    pickle: Vec<u8>,
    /// How many of a sort were made.
    made: [usize; SORTS.len()],
    names: u32,
    /// Where each sentence begins in the pickle.
    begins: Vec<usize>,
}

impl Writer<'_> {
    fn draw(&mut self) -> usize {
        let (first, rest) = self.source.split_first().unwrap_or((&0, &[]));
        self.source = rest;
        usize::from(*first)
    }

    fn text(&mut self, text: &[u8]) {
        self.pickle.push(b'X');
        self.pickle.extend((text.len() as u32).to_le_bytes());
        self.pickle.extend(text);
    }

    /// Keeps what is on top of the stack, and takes it from there.
    fn keep(&mut self, sort: Sort) {
        let made = &mut self.made[sort as usize];
        self.pickle.extend([b'q', (16 * sort as usize + *made % 16) as u8, b'0']);
        *made += 1;
    }

    /// Recalls one of a sort, or None where there is none.
    fn recall(&mut self, sort: Sort) {
        let made = self.made[sort as usize].min(16);
        let which = self.draw();
        match made {
            0 => self.pickle.push(b'N'),
            _ => self.pickle.extend([b'h', (16 * sort as usize + which % made) as u8]),
        }
    }

    fn recall_any(&mut self) {
        let sort = SORTS[self.draw() % SORTS.len()];
        self.recall(sort);
    }

    fn global(&mut self, name: &str, sort: Sort) {
        self.pickle.extend(format!("c{name}\n").bytes());
        self.keep(sort);
    }

    /// What the sentences begin with: some of each sort, and a long name among them.
    fn first(&mut self, long: &str) {
        self.pickle.push(b'}');
        self.keep(Sort::Dict);
        for text in ["0", long] {
            self.text(text.as_bytes());
            self.keep(Sort::Text);
        }
        CLASSES.iter().for_each(|class| self.global(class, Sort::Class));
        FUNCTIONS.iter().for_each(|function| self.global(function, Sort::Function));
        self.ints(1, 1);
        self.ints(1, 64);
        // Of each text a storage, and of that a tensor's arguments: what they draw.
        let source = self.source;
        for drawn in [b"\0\0\x10\0\0\0\0", b"\0\x01\x10\x01\x01\x01\x01"] {
            self.source = drawn;
            self.storage_id();
            self.storage();
            self.arguments();
        }
        self.source = source;
    }

    fn ints(&mut self, value: u8, count: usize) {
        self.pickle.push(b'(');
        self.pickle.extend([b'K', value].repeat(count));
        self.pickle.push(b't');
        self.keep(Sort::Ints);
    }

    fn storage_id(&mut self) {
        self.pickle.push(b'(');
        self.text(b"storage");
        self.recall(Sort::Class);
        self.recall(Sort::Text);
        self.text(b"cpu");
        let elements = self.draw() as u8;
        self.pickle.extend([b'K', elements, b't']);
        self.keep(Sort::StorageId);
    }

    fn storage(&mut self) {
        self.recall(Sort::StorageId);
        self.pickle.push(b'Q');
        self.keep(Sort::Storage);
    }

    /// The arguments of a function that makes a tensor.
    fn arguments(&mut self) {
        self.pickle.push(b'(');
        self.recall(Sort::Storage);
        self.pickle.extend(b"K\0");
        self.recall(Sort::Ints);
        self.recall(Sort::Ints);
        self.pickle.extend(b"\x89Nt");
        self.keep(Sort::Arguments);
    }

    fn sentence(&mut self) {
        match self.draw() % 15 {
            0 => {
                let (letter, len) = (self.draw(), self.draw());
                self.text(&vec![b'a' + (letter % 26) as u8; len * 32]);
                self.keep(Sort::Text);
            }
            1 => {
                let (value, count) = (self.draw() as u8, self.draw() % 66);
                self.ints(value, count);
            }
            2 => {
                let which = self.draw();
                self.global(FUNCTIONS[which % FUNCTIONS.len()], Sort::Function);
            }
            3 => self.storage_id(),
            4 => self.storage(),
            5 => self.arguments(),
            // The arguments of a wrapper: a function, something, other arguments.
            6 => {
                self.pickle.push(b'(');
                self.recall(Sort::Function);
                self.recall_any();
                self.recall(Sort::Arguments);
                self.pickle.push(b't');
                self.keep(Sort::Arguments);
            }
            7 => {
                self.recall(Sort::Function);
                self.recall(Sort::Arguments);
                self.pickle.push(b'R');
                self.keep(Sort::Made);
            }
            // A wide tuple.
            8 => {
                let (times, count) = (self.draw(), self.draw() % 8);
                let begin = self.pickle.len();
                (0..count).for_each(|_| self.recall_any());
                let items = self.pickle.split_off(begin).repeat(times);
                self.pickle.extend([b"(", &items[..], b"t"].concat());
                self.keep(Sort::Arguments);
            }
            9 => {
                self.pickle.push(b'}');
                self.keep(Sort::Dict);
            }
            // Items, under kept names or fresh ones.
            10 | 11 => {
                let (fresh, count) = (self.draw() % 2 == 0, self.draw());
                self.recall(Sort::Dict);
                self.pickle.push(b'(');
                let begin = self.pickle.len();
                self.recall(Sort::Text);
                let key = self.pickle.split_off(begin);
                self.recall_any();
                let value = self.pickle.split_off(begin);
                for _ in 0..count {
                    if fresh {
                        self.names += 1;
                        self.text(&self.names.to_string().into_bytes());
                    } else {
                        self.pickle.extend(&key);
                    }
                    self.pickle.extend(&value);
                }
                self.pickle.extend(b"u0");
            }
            // An operation as it comes.
            12 => {
                let code = self.draw() as u8;
                self.recall_any();
                self.pickle.push(code);
            }
            // The same again, many times.
            _ => {
                let (sentences, times) = (self.draw() % 4, self.draw() * 32);
                let begin = self.begins[self.begins.len().saturating_sub(2 + sentences)];
                let again = &self.pickle[begin..];
                let times = times.min(LONGEST / again.len().max(1));
                self.pickle.extend(again.repeat(times));
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (pickle, begins) = (b"\x80\x02".to_vec(), Vec::new());
    let mut writer = Writer { source: bytes, pickle, made: [0; SORTS.len()], names: 0, begins };
    let long = "k".repeat(4096);
    writer.first(&long);
    while !writer.source.is_empty() && writer.pickle.len() < LONGEST {
        writer.begins.push(writer.pickle.len());
        writer.sentence();
    }
    writer.pickle.truncate(LONGEST);
    writer.pickle.extend([b'h', 16 * Sort::Dict as u8, b'.']);
    read(&torch_save(&writer.pickle, &[("0", &[1; 64]), (&long, &[1; 64])]));
});
