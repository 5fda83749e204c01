//! 1,797 handwritten digits of 8x8 pixels, inside the crate.

use std::path::Path;

use flate2::read::GzDecoder;
use tch::vision::dataset::Dataset;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

const PIXELS: usize = 64;
const CLASSES: i64 = 10;
const TRAIN: i64 = 1437;

/// The digits: the first 1,437 train, the last 360 test. Nothing is read or fetched.
///
/// Grey levels 0..=16 of 13 writers, scaled to 0..=1; 174 to 183 a class. Images `[N, 1, 8, 8]`.
///
/// # Source
/// Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository
/// (CC BY 4.0), the test part, as scikit-learn ships it.
pub fn digits() -> Result<Dataset> {
    parse(GzDecoder::new(&include_bytes!("digits.csv.gz")[..]))
}

fn parse(csv: impl std::io::Read) -> Result<Dataset> {
    let wrong = |problem: String| Error::data(Path::new("digits.csv.gz"), problem);
    let mut rows = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (i, row) in rows.deserialize::<Vec<u8>>().enumerate() {
        let row = row.map_err(|error| wrong(error.to_string()))?;
        let [image @ .., label] = &row[..] else { return Err(wrong(format!("row {} is empty", i + 1))) };
        if image.len() != PIXELS || i64::from(*label) >= CLASSES || image.iter().any(|&grey| grey > 16) {
            return Err(wrong(format!("row {} is not 64 grey levels up to 16 and a digit", i + 1)));
        }
        pixels.extend_from_slice(image);
        labels.push(i64::from(*label));
    }
    let rows = labels.len() as i64;
    if rows <= TRAIN {
        return Err(wrong(format!("{rows} rows, expected more than {TRAIN}")));
    }
    let images = Tensor::from_slice(&pixels).f_view([rows, 1, 8, 8])?.f_to_kind(Kind::Float)? / 16.0;
    let labels = Tensor::from_slice(&labels);
    Ok(Dataset {
        train_images: images.f_narrow(0, 0, TRAIN)?,
        train_labels: labels.f_narrow(0, 0, TRAIN)?,
        test_images: images.f_narrow(0, TRAIN, rows - TRAIN)?,
        test_labels: labels.f_narrow(0, TRAIN, rows - TRAIN)?,
        labels: CLASSES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_row_is_named() {
        for (csv, named) in [("1,2,3\n", "row 1"), ("1,x\n", "digit"), ("", "0 rows")] {
            let text = parse(csv.as_bytes()).unwrap_err().to_string();
            assert!(text.contains(named), "{text}");
        }
    }
}
