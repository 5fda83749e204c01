//! Accuracy, and the learning rate's schedule.

use spiketrace::train::{accuracy, top_k_accuracy, CosineConfig, CosineSchedule};
use tch::{Kind, Tensor};

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
