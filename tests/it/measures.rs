//! Small things, each by the public interface: names of devices, surrogates, accuracy, the learning rate's schedule, the
//! digits.

use spiketrace::device;
use spiketrace::surrogate::{PiecewiseQuadratic, Rect, Surrogate};
use spiketrace::train::{accuracy, top_k_accuracy, CosineConfig, CosineSchedule};
use tch::{Device, Kind, Tensor};

#[test]
fn top_k_counts_labels_among_the_k_largest() {
    let logits = Tensor::from_slice2(&[[0.1, 0.9, 0.5], [0.8, 0.1, 0.3], [0.2, 0.3, 0.4], [3.0, 2.0, 1.0]]);
    let labels = Tensor::from_slice(&[1i64, 2, 0, 1]);
    assert_eq!(accuracy(&logits, &labels).unwrap(), 0.25);
    assert_eq!(top_k_accuracy(&logits, &labels, 2).unwrap(), 0.75);
    assert_eq!(top_k_accuracy(&logits, &labels, 3).unwrap(), 1.0);
}

#[test]
fn of_equal_logits_the_first_are_the_best() {
    for classes in [2, 3, 10, 100, 1000] {
        let logits = Tensor::zeros([classes, classes], (Kind::Float, tch::Device::Cpu));
        let labels = Tensor::arange(classes, (Kind::Int64, tch::Device::Cpu));
        for k in [1, 2, classes] {
            let found = top_k_accuracy(&logits, &labels, k).unwrap();
            assert_eq!(found, k as f64 / classes as f64, "{k} of {classes}");
        }
    }
}

#[test]
fn a_logit_that_is_no_number_is_the_largest_as_for_argmax() {
    let logits = Tensor::from_slice2(&[[1.0, f64::NAN, 2.0, f64::NAN]]);
    assert_eq!(logits.argmax(1, false).int64_value(&[0]), 1);
    for (label, expected) in [(0i64, 0.0), (1, 1.0), (2, 0.0), (3, 0.0)] {
        assert_eq!(accuracy(&logits, &Tensor::from_slice(&[label])).unwrap(), expected);
    }
}

#[test]
fn it_rises_to_the_height_and_falls_to_the_end() {
    let config = CosineConfig { lr: 0.8, min_lr: 0.2, warm_up: 3, steps: 13 };
    let schedule = CosineSchedule::new(config).unwrap();
    let rates: Vec<f64> = (0..20).map(|t| schedule.lr(t)).collect();
    let expected = [0.2, 0.4, 0.6, 0.8];
    assert!(rates.iter().zip(expected).all(|(rate, expected)| (rate - expected).abs() < 1e-15));
    assert!((rates[8] - 0.5).abs() < 1e-15, "half way it is in the middle");
    assert!(rates[3..=13].windows(2).all(|pair| pair[1] < pair[0]));
    assert!(rates[13..].iter().all(|&rate| rate == 0.2));
}

#[test]
fn a_schedule_without_steps_or_with_a_wrong_rate_is_an_error() {
    let error = |config| CosineSchedule::new(config).unwrap_err().to_string();
    let all_up = error(CosineConfig { warm_up: 5, steps: 5, ..Default::default() });
    assert_eq!(all_up, "CosineSchedule's warm_up is 5, expected below 5, the count of all steps");
    assert!(error(CosineConfig { lr: f64::NAN, ..Default::default() }).contains("lr is NaN"));
    assert!(error(CosineConfig { min_lr: -1.0, ..Default::default() }).contains("min_lr is -1"));
    let upwards = error(CosineConfig { lr: 0.1, min_lr: 0.2, ..Default::default() });
    assert_eq!(upwards, "CosineSchedule's min_lr is 0.2, expected at most lr, 0.1");
}

#[test]
fn names_are_devices_and_others_are_errors() {
    assert_eq!(device("cpu").unwrap(), Device::Cpu);
    assert!(device("auto").is_ok());
    for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
        let error = device(name).unwrap_err().to_string();
        assert_eq!(error, format!("the device is {name}, expected auto, cpu, cuda or cuda:N"));
    }
    if device("cuda").is_err() {
        let error = device("cuda:7").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no CUDA: ") && error.ends_with("; or use the device cpu"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_areas_of_triangle_and_rectangle_are_one() {
    let x = Tensor::linspace(-2.0, 2.0, 400_001, (Kind::Double, tch::Device::Cpu));
    for h in [&PiecewiseQuadratic { alpha: 1.5 } as &dyn Surrogate, &Rect { alpha: 1.5 }] {
        let area = h.derivative(&x).unwrap().sum(Kind::Double).double_value(&[]) * 1e-5;
        assert!((area - 1.0).abs() < 1e-4, "{h:?}: {area}");
    }
}

#[cfg(feature = "data")]
#[test]
fn there_are_1437_to_train_and_360_to_test_in_ten_classes() {
    let data = spiketrace::data::digits().unwrap();
    assert_eq!(data.train_images.size(), [1437, 1, 8, 8]);
    assert_eq!(data.test_labels.size(), [360]);
    let per_class = Tensor::cat(&[&data.train_labels, &data.test_labels], 0).bincount::<Tensor>(None, 10);
    assert_eq!((per_class.min().int64_value(&[]), per_class.max().int64_value(&[])), (174, 183));
    assert_eq!(data.train_images.max().double_value(&[]), 1.0);
}
