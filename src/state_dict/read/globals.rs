//! The names that a pickle of torch.save may use.
//!
//! They are those that torch.load takes with weights_only=True.

use crate::state_dict::contents::Dtype;
use crate::state_dict::names::shown;

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
