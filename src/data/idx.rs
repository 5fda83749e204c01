//! IDX files, the format of MNIST and Fashion-MNIST.
//!
//! A header 0, 0, type, count of dimensions, then each dimension as a big-endian u32, then the values.
//! Only bytes (type 8) occur in these data sets.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tch::vision::dataset::Dataset;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

const CLASSES: i64 = 10;
/// Larger files are taken for broken headers.
const MOST_VALUES: u64 = 1 << 32;

/// Reads MNIST's four files from a folder; each may be compressed (`.gz`) or not. Fashion-MNIST's too.
///
/// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`,
/// `t10k-labels-idx1-ubyte`.
///
/// # Errors
/// When the folder or a file is missing, unreadable, cut off or not IDX, when images and labels differ
/// in number, or a label is not in 0..10. The message names the file.
pub fn mnist(folder: impl AsRef<Path>) -> Result<Dataset> {
    let folder = folder.as_ref();
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(Error::data(folder, "is not a folder; name the one that holds the IDX files")),
        Err(error) => {
            let problem = "is not a folder that can be read (name the one that holds the IDX files)";
            return Err(Error::io(folder, problem, error));
        }
    }
    let (train_images, train_labels) = read_part(folder, "train")?;
    let (test_images, test_labels) = read_part(folder, "t10k")?;
    Ok(Dataset { train_images, train_labels, test_images, test_labels, labels: CLASSES })
}

fn read_part(folder: &Path, part: &str) -> Result<(Tensor, Tensor)> {
    let images_path = find(folder, &format!("{part}-images-idx3-ubyte"))?;
    let labels_path = find(folder, &format!("{part}-labels-idx1-ubyte"))?;
    let (images, labels) = (read_idx(&images_path)?, read_idx(&labels_path)?);
    let wrong = |path: &Path, problem: String| Err(Error::data(path, problem));
    let &[count, height, width] = &images.size()[..] else {
        return wrong(
            &images_path,
            format!("holds shape {:?}, expected [images, height, width]", images.size()),
        );
    };
    if labels.size() != [count] {
        let problem = format!("holds labels of shape {:?} for {count} images", labels.size());
        return wrong(&labels_path, problem);
    }
    if images.numel() == 0 {
        return wrong(&images_path, "holds no images".to_owned());
    }
    let most = labels.f_max()?.f_int64_value(&[])?;
    if most >= CLASSES {
        return wrong(&labels_path, format!("holds the label {most}, expected 0 to {}", CLASSES - 1));
    }
    let images = images.f_view([count, 1, height, width])?.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
    Ok((images, labels.f_to_kind(Kind::Int64)?))
}

/// The file itself or its compressed form.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = folder.join(name);
    let compressed = folder.join(format!("{name}.gz"));
    let Err(error) = fs::metadata(&plain) else { return Ok(plain) };
    if compressed.exists() {
        return Ok(compressed);
    }
    let problem = match error.kind() {
        ErrorKind::NotFound => "is missing, and so is its .gz form (is this the folder of the data set?)",
        _ => "cannot be read",
    };
    Err(Error::io(&plain, problem, error))
}

/// Reads an IDX file of bytes, compressed or not, as a tensor of kind Uint8.
///
/// # Errors
/// When the file is unreadable, not IDX, of another element type, or longer or shorter than it says.
pub fn read_idx(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let wrong = |problem: String| Error::data(path, problem);
    let unreadable = |error| Error::io(path, "cannot be read", error);

    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let zipped = std::io::BufRead::fill_buf(&mut file).map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };

    let mut read_word = || {
        let mut word = [0; 4];
        reader.read_exact(&mut word).map(|()| word)
    };
    let [zero, zero_too, kind, dims] =
        read_word().map_err(|error| Error::io(path, "has no IDX header", error))?;
    if (zero, zero_too) != (0, 0) {
        return Err(wrong("is not an IDX file: it does not begin with two zero bytes".to_owned()));
    }
    if kind != 8 {
        return Err(wrong(format!("holds elements of type {kind:#04x}, expected bytes (0x08)")));
    }
    let mut size = Vec::new();
    for _ in 0..dims {
        let word = read_word().map_err(|error| Error::io(path, "is cut off in its header", error))?;
        size.push(i64::from(u32::from_be_bytes(word)));
    }
    let values = size.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim as u64));
    let values = values
        .filter(|&n| n <= MOST_VALUES)
        .ok_or_else(|| wrong(format!("claims the size {size:?}, its header is broken")))?;

    // Grows with what is there, not with what the header claims; one more byte shows what is too much.
    let mut bytes = Vec::new();
    reader.take(values + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match (bytes.len() as u64).cmp(&values) {
        Ordering::Less => {
            let got = bytes.len();
            Err(wrong(format!("is cut off: {got} of the {values} bytes that its size {size:?} needs")))
        }
        Ordering::Greater => Err(wrong(format!("holds more than the {values} bytes of its size {size:?}"))),
        Ordering::Equal => Ok(Tensor::from_slice(&bytes).f_view(&size[..])?),
    }
}
