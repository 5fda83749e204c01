use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use rstest::rstest;
use spiketrace::data::{mnist, read_idx};
use spiketrace::train::Checkpoint;
use spiketrace::{Error, MonitorConfig, ScriptModule, StateDict};
use tch::nn::VarStore;
use tch::{Device, Tensor};
use tempfile::TempDir;

/// An IDX file of bytes.
fn idx(size: &[u32], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, size.len() as u8];
    size.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(values);
    file
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

/// A whole data set of two images each, three of the files compressed.
fn data_set() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = (idx(&[2, 4, 4], &[7; 32]), idx(&[2], &[3, 9]));
    let files = [
        (IMAGES.to_owned(), images.clone()),
        (format!("{LABELS}.gz"), zipped(&labels)),
        ("t10k-images-idx3-ubyte.gz".to_owned(), zipped(&images)),
        ("t10k-labels-idx1-ubyte.gz".to_owned(), zipped(&labels)),
    ];
    files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

#[test]
fn the_untouched_data_set_reads() {
    let data = mnist(data_set().path()).unwrap();
    assert_eq!(data.train_images.size(), [2, 1, 4, 4]);
    assert_eq!(Vec::<i64>::try_from(data.test_labels).unwrap(), [3, 9]);
}

/// What is done to the folder, and the words that the message needs.
#[rstest]
#[case::a_missing_file(|f: &Path| fs::remove_file(f.join(IMAGES)).unwrap(), &[IMAGES, "is missing", ".gz"])]
#[case::a_cut_file(|f: &Path| fs::write(f.join(IMAGES), idx(&[2, 4, 4], &[7; 31])).unwrap(), &[IMAGES, "cut off: 31 of the 32"])]
#[case::a_long_file(|f: &Path| fs::write(f.join(IMAGES), idx(&[2, 4, 4], &[7; 33])).unwrap(), &["more than the 32 bytes"])]
#[case::an_empty_file(|f: &Path| fs::write(f.join(IMAGES), []).unwrap(), &["has no IDX header"])]
#[case::another_format(|f: &Path| fs::write(f.join(IMAGES), b"\x89PNG\r\n\x1a\n").unwrap(), &["is not an IDX file"])]
#[case::another_type(|f: &Path| fs::write(f.join(IMAGES), [0, 0, 13, 1, 0, 0, 0, 0]).unwrap(), &["type 0x0d, expected bytes"])]
#[case::no_images(|f: &Path| {
    fs::write(f.join(IMAGES), idx(&[0, 4, 4], &[])).unwrap();
    fs::write(f.join(LABELS), idx(&[0], &[])).unwrap();
}, &["holds no images"])]
#[case::vectors_for_images(|f: &Path| fs::write(f.join(IMAGES), idx(&[2, 4], &[7; 8])).unwrap(), &["[2, 4]", "[images, height, width]"])]
#[case::too_few_labels(|f: &Path| fs::write(f.join(LABELS), idx(&[1], &[3])).unwrap(), &[LABELS, "shape [1] for 2 images"])]
#[case::a_label_of_no_class(|f: &Path| fs::write(f.join(LABELS), idx(&[2], &[3, 10])).unwrap(), &[LABELS, "holds the label 10, expected 0 to 9"])]
#[case::a_broken_header(|f: &Path| fs::write(f.join(IMAGES), idx(&[u32::MAX; 3], &[])).unwrap(), &["header is broken"])]
#[case::a_folder_for_a_file(|f: &Path| {
    fs::remove_file(f.join(IMAGES)).unwrap();
    fs::create_dir(f.join(IMAGES)).unwrap();
}, &[IMAGES, "cannot be read"])]
#[case::a_cut_archive(|f: &Path| {
    let path = f.join("t10k-images-idx3-ubyte.gz");
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
}, &["t10k-images-idx3-ubyte.gz"])]
fn a_broken_data_set_is_named_by_file_and_fault(#[case] spoil: fn(&Path), #[case] words: &[&str]) {
    let folder = data_set();
    spoil(folder.path());
    let text = mnist(folder.path()).unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} not in: {text}");
    }
}

#[rstest]
#[case::missing("nowhere")]
#[case::a_file(IMAGES)]
fn something_else_than_a_folder_is_an_error(#[case] name: &str) {
    let folder = data_set();
    let text = mnist(folder.path().join(name)).unwrap_err().to_string();
    assert!(text.contains(name) && text.contains("is not a folder"), "{text}");
}

#[test]
fn an_archive_spoilt_in_any_byte_is_an_error_or_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.gz");
    let good = zipped(&idx(&[40], &[5; 40]));
    for i in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[i] ^= 1 << bit;
            fs::write(&path, bad).unwrap();
            if let Ok(tensor) = read_idx(&path) {
                assert_eq!(Vec::<u8>::try_from(tensor).unwrap(), [5; 40], "byte {i}, bit {bit}");
            }
        }
    }
}

/// What the operating system said about a file.
fn refusal<T>(result: spiketrace::Result<T>) -> ErrorKind {
    let error = result.err().expect("an error");
    let text = error.to_string();
    let Error::Data { io: Some(io), .. } = error else { panic!("no io::Error: {text}") };
    assert_eq!(text.matches(&io.to_string()).count(), 1, "{text}");
    io.kind()
}

#[test]
fn a_program_can_tell_what_the_operating_system_said() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let inside = |name: &str| nowhere.join(name);
    let mut state = StateDict::default();
    state.insert("w", &Tensor::from_slice(&[1.0]));
    let monitor = spiketrace::Monitor::new(MonitorConfig::default()).unwrap();
    let module = |path: &Path| {
        let vs = VarStore::new(Device::Cpu);
        ScriptModule::load(vs.root(), path, Default::default())
    };
    for kind in [
        refusal(StateDict::read(&nowhere)),
        refusal(Checkpoint::read(&nowhere)),
        refusal(module(&nowhere)),
        refusal(mnist(&nowhere)),
        refusal(mnist(&folder)),
        refusal(read_idx(&nowhere)),
        refusal(state.write(inside("w.safetensors"))),
        refusal(state.write(inside("w.pt"))),
        refusal(monitor.write_csv(inside("monitor.csv"))),
        refusal(
            module(&crate::state_dict::fixture("../script_modules/mlp.f32.pt")).unwrap().save(inside("m.pt")),
        ),
    ] {
        assert_eq!(kind, ErrorKind::NotFound);
    }
    assert_eq!(refusal(StateDict::read(&folder)), ErrorKind::IsADirectory);
    fs::write(&nowhere, "a file where a folder should be").unwrap();
    assert_eq!(refusal(Checkpoint::latest(&nowhere)), ErrorKind::NotADirectory);
}

#[test]
fn under_anyhow_each_sentence_is_there_once() {
    let error = || StateDict::read("no/such/file.pt").unwrap_err();
    let text = error().to_string();
    assert_eq!(format!("{:#}", anyhow::Error::from(error())), text);
    let long = format!("{:?}", anyhow::Error::from(error()));
    assert_eq!(long.lines().next(), Some(&*text));
    assert!(!long.contains("Caused by"), "{long}");
}
