//! Files of the MNIST format.

use std::io::Write;

use spiketrace::data::read_idx;
use spiketrace::Result;
use tch::Tensor;

fn read(bytes: &[u8]) -> Result<Tensor> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    read_idx(file.path())
}

const FILE: [u8; 16] = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4];

#[test]
fn a_file_reads_the_same_compressed_or_not() {
    let plain = read(&FILE).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    zipped.write_all(&FILE).unwrap();
    assert_eq!(plain, Tensor::from_slice(&[1u8, 2, 3, 4]).view([2, 2]));
    assert_eq!(read(&zipped.finish().unwrap()).unwrap(), plain);
}

#[test]
fn a_file_cut_off_anywhere_or_too_long_is_an_error() {
    for length in 0..FILE.len() {
        assert!(read(&FILE[..length]).is_err(), "{length}");
    }
    assert!(read(&[&FILE[..], &[5]].concat()).unwrap_err().to_string().contains("more than the 4 bytes"));
}

#[test]
fn a_header_that_claims_the_world_allocates_nothing() {
    let huge = [&[0, 0, 8, 4][..], &[0xff; 16], &[1]].concat();
    assert!(read(&huge).unwrap_err().to_string().contains("its header is broken"));
}
