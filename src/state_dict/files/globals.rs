//! The names that a pickle of torch.save may use, and what a call of each stands for.
//!
//! They are those that torch.load takes with weights_only=True.

use super::pickle::{Id, Machine, Object};
use super::Dtype;

/// A storage as the pickle names it.
#[derive(Debug, Clone)]
pub(super) struct StorageId {
    /// Of its elements; none for bytes that each tensor sees in its own way.
    pub(super) dtype: Option<Dtype>,
    /// Entry of the archive.
    pub(super) key: Box<str>,
    pub(super) bytes: u64,
}

/// A tensor as the pickle describes it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) storage: StorageId,
    pub(super) dtype: Dtype,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// A function or class of Python that is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    Size,
    /// A tensor of a storage; `v3` names its dtype in its arguments.
    Tensor {
        v3: bool,
    },
    /// A tensor wrapped: its first argument.
    Parameter,
    /// A tensor of a class of its own: a function and its arguments.
    FromType,
    /// A class of storages; none for bytes.
    Storage(Option<Dtype>),
    Dtype(Dtype),
    /// Makes what is not looked into, in words.
    Passive(&'static str),
}

impl Global {
    /// The one of that name.
    ///
    /// # Errors
    /// When the name is not known: what it does is not to be run.
    pub(super) fn named(module: &str, name: &str) -> Result<Self, String> {
        if let ("torch", Some(dtype)) = (module, storage(name)) {
            return Ok(Self::Storage(Some(dtype)));
        }
        if let ("torch", Some(dtype)) = (module, dtype(name)) {
            return Ok(Self::Dtype(dtype));
        }
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Tensor { v3: false },
            ("torch._utils", "_rebuild_tensor_v3") => Self::Tensor { v3: true },
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::Parameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => {
                Self::Passive("a tensor class")
            }
            ("torch.storage" | "torch", "UntypedStorage") => Self::Storage(None),
            (
                "torch",
                "uint16" | "uint32" | "uint64" | "complex32" | "quint8" | "qint8" | "qint32"
                | "float8_e4m3fn" | "float8_e5m2" | "float8_e4m3fnuz" | "float8_e5m2fnuz" | "float8_e8m0fnu",
            ) => Self::Passive("a dtype that is not supported"),
            (
                "torch",
                "QUInt8Storage" | "QInt8Storage" | "QInt32Storage" | "QUInt4x2Storage" | "QUInt2x4Storage",
            ) => Self::Passive("a quantized storage"),
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                Self::Passive("a sparse tensor")
            }
            ("torch._utils", "_rebuild_qtensor") => Self::Passive("a quantized tensor"),
            ("torch._utils", "_rebuild_nested_tensor") => Self::Passive("a nested tensor"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
                Self::Passive("a tensor of the device meta")
            }
            ("torch.serialization", "_get_layout") => Self::Passive("a layout"),
            ("torch", "device") => Self::Passive("a device"),
            ("torch", "per_tensor_affine" | "per_channel_affine" | "strided") => Self::Passive("a scheme"),
            ("_codecs", "encode") | ("builtins" | "__builtin__", "bytearray") => Self::Passive("bytes"),
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Passive("a set"),
            ("builtins" | "__builtin__", "complex") => Self::Passive("a number"),
            ("collections", "Counter" | "defaultdict") => Self::Passive("a dict of another class"),
            _ => {
                let shown = |text: &str| text.chars().take(60).collect::<String>();
                return Err(format!(
                    "holds `{}.{}`, and only tensors and plain containers are read; nothing of it was run. A whole \
                     module, or a checkpoint of more than weights, is to be saved anew in Python: \
                     torch.save(model.state_dict(), \"weights.pt\")",
                    shown(module),
                    shown(name)
                ));
            }
        })
    }

    /// What a call of it makes: an object that is there already, or a new one.
    pub(super) fn made(self, machine: &Machine<'_>, arguments: &[Id]) -> Result<Result<Id, Object>, String> {
        let arguments = Arguments { machine, ids: arguments };
        Ok(match self {
            Self::OrderedDict if arguments.ids.is_empty() => Err(Object::Dict(Vec::new())),
            Self::Size => Ok(arguments.id(0)?),
            Self::Tensor { v3 } => Err(arguments.tensor(v3)?),
            Self::Parameter => Ok(arguments.id(0)?),
            Self::FromType => {
                let (Object::Global(function), Object::Tuple(inner)) = (arguments.get(0)?, arguments.get(2)?)
                else {
                    return Err(WRONG.into());
                };
                match function {
                    // One in another would make a deep recursion, and PyTorch makes none.
                    Self::FromType => return Err(WRONG.into()),
                    function => return function.made(machine, inner),
                }
            }
            Self::Passive(what) => Err(Object::Other(what)),
            _ => return Err(WRONG.into()),
        })
    }
}

const WRONG: &str = "is broken: its pickle calls a function of PyTorch with wrong arguments";

/// The arguments of a call.
struct Arguments<'a> {
    machine: &'a Machine<'a>,
    ids: &'a [Id],
}

impl<'a> Arguments<'a> {
    fn id(&self, i: usize) -> Result<Id, String> {
        Ok(*self.ids.get(i).ok_or(WRONG)?)
    }

    fn get(&self, i: usize) -> Result<&'a Object, String> {
        Ok(self.machine.object(self.id(i)?))
    }

    fn int(&self, i: usize) -> Result<i64, String> {
        match self.get(i)? {
            Object::Int(value) => Ok(*value),
            _ => Err(WRONG.into()),
        }
    }

    fn ints(&self, i: usize) -> Result<Vec<i64>, String> {
        let Object::Tuple(ids) = self.get(i)? else { return Err(WRONG.into()) };
        if ids.len() > 64 {
            return Err("is broken: a tensor has more than 64 dimensions".into());
        }
        (0..ids.len()).map(|i| Arguments { machine: self.machine, ids }.int(i)).collect()
    }

    fn tensor(&self, v3: bool) -> Result<Object, String> {
        let storage = match self.get(0)? {
            Object::Storage(storage) => (**storage).clone(),
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
        let (offset, size, stride) = (self.int(1)?, self.ints(2)?, self.ints(3)?);
        Ok(Object::Tensor(Box::new(View { storage, dtype, offset, size, stride })))
    }
}

impl Machine<'_> {
    /// The storage of a persistent id: ("storage", class, key, location, number of elements).
    pub(super) fn storage(&self, id: Id) -> Result<Object, String> {
        let Object::Tuple(ids) = self.object(id) else { return Err(WRONG.into()) };
        let arguments = Arguments { machine: self, ids };
        let (sort, class, key) = (arguments.get(0)?, arguments.get(1)?, arguments.get(2)?);
        let elements = u64::try_from(arguments.int(4)?).map_err(|_| WRONG)?;
        match (sort, class, key) {
            (Object::Text(sort), Object::Global(Global::Storage(dtype)), Object::Text(key))
                if &**sort == "storage" =>
            {
                let bytes = elements.checked_mul(dtype.map_or(1, Dtype::bytes));
                let bytes = bytes.ok_or("is broken: a storage claims more bytes than there are")?;
                Ok(Object::Storage(Box::new(StorageId { dtype: *dtype, key: key.clone(), bytes })))
            }
            (_, Object::Global(Global::Passive(what)), _) => Ok(Object::Other(what)),
            _ => Err(WRONG.into()),
        }
    }
}

fn storage(class: &str) -> Option<Dtype> {
    Some(match class {
        "BoolStorage" => Dtype::Bool,
        "ByteStorage" => Dtype::U8,
        "CharStorage" => Dtype::I8,
        "ShortStorage" => Dtype::I16,
        "IntStorage" => Dtype::I32,
        "LongStorage" => Dtype::I64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "ComplexFloatStorage" => Dtype::C64,
        "ComplexDoubleStorage" => Dtype::C128,
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "bool" => Dtype::Bool,
        "uint8" => Dtype::U8,
        "int8" => Dtype::I8,
        "int16" => Dtype::I16,
        "int32" => Dtype::I32,
        "int64" => Dtype::I64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "complex64" => Dtype::C64,
        "complex128" => Dtype::C128,
        _ => return None,
    })
}
