//! One run: a network from a seed, trained by a method for some epochs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use spiketrace::train::{
    accuracy, bptt_training, evaluate, ottt_online_training, repeat_over_time, sltt_k_training, CosineConfig,
    CosineSchedule, OtttLoss, SequenceOutput, Sgd, SgdConfig, Update,
};
use spiketrace::{Monitor, OtttSequential, Part};
use tch::nn::VarStore;
use tch::vision::dataset::Dataset;
use tch::{Device, Kind, Tensor};

use crate::network;
use crate::options::{Method, Settings};

/// A network on its way.
pub struct Run<'a> {
    pub settings: &'a Settings,
    pub vs: VarStore,
    pub net: OtttSequential,
    optimizer: Sgd,
    schedule: CosineSchedule,
    loss: OtttLoss,
    batches: u64,
    step: u64,
}

/// What an epoch came to.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub loss: f64,
    pub train_accuracy: f64,
    pub test_accuracy: f64,
    pub lr: f64,
    pub seconds: f64,
}

impl<'a> Run<'a> {
    /// The network before its first epoch. All that is random follows from the seed.
    pub fn new(settings: &'a Settings, images: i64) -> Result<Self> {
        tch::manual_seed(settings.seed);
        let vs = VarStore::new(settings.device);
        let net = network::build(&vs.root(), settings)?;
        let config = SgdConfig {
            lr: settings.lr,
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            ..Default::default()
        };
        let optimizer = Sgd::new(&vs.trainable_variables(), config)?;
        let batches = (images as u64).div_ceil(settings.batch as u64);
        let schedule = CosineSchedule::new(CosineConfig {
            lr: settings.lr,
            warm_up: (settings.warm_up * batches as f64) as u64,
            steps: settings.epochs * batches,
            ..Default::default()
        })?;
        let loss = OtttLoss::new(settings.lambda, settings.time_steps)?;
        Ok(Self { settings, vs, net, optimizer, schedule, loss, batches, step: 0 })
    }

    /// One pass over the training images in a new order, and the test behind it; `None` where it was stopped.
    pub fn epoch(
        &mut self,
        data: &Dataset,
        mut monitor: Option<&mut Monitor>,
        bar: &ProgressBar,
        stop: &AtomicBool,
    ) -> Result<Option<Progress>> {
        let (start, images) = (Instant::now(), data.train_images.size()[0]);
        let order = self.order(images);
        let (mut loss, mut hits, mut seen, mut lr) = (0.0, 0.0, 0.0, 0.0);
        for batch in 0..self.batches as i64 {
            let count = self.settings.batch.min(images - batch * self.settings.batch);
            let chosen = order.narrow(0, batch * self.settings.batch, count);
            let x = data.train_images.index_select(0, &chosen);
            let x = if self.settings.augment { augmented(&x) } else { x };
            let labels = data.train_labels.index_select(0, &chosen);
            lr = self.schedule.lr(self.step);
            self.optimizer.set_lr(lr)?;
            let out = self.learn(&x, &labels, monitor.as_deref_mut())?;
            self.step += 1;
            loss += f64::try_from(&out.loss)? * count as f64;
            let answer = out.outputs.f_sum_dim_intlist(1i64, false, None::<Kind>)?;
            hits += accuracy(&answer, &labels)? * count as f64;
            seen += count as f64;
            bar.inc(count as u64);
            bar.set_message(format!("loss {:.3}, accuracy {:.4}", loss / seen, hits / seen));
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let test_accuracy = self.test(data)?;
        Ok(Some(Progress { loss: loss / seen, train_accuracy: hits / seen, test_accuracy, lr, seconds }))
    }

    /// Numbers of images in a new order, drawn on the CPU, as all devices have it.
    pub fn order(&self, images: i64) -> Tensor {
        Tensor::randperm(images, (Kind::Int64, Device::Cpu)).to_device(self.settings.device)
    }

    /// Learns a batch by the method, and forgets its past.
    ///
    /// The monitor, if there is one, may take a look.
    pub fn learn(
        &mut self,
        x: &Tensor,
        labels: &Tensor,
        monitor: Option<&mut Monitor>,
    ) -> Result<SequenceOutput> {
        let Self { settings, net, optimizer, loss, .. } = self;
        let x_seq = repeat_over_time(x, settings.time_steps)?;
        let label_seq = repeat_over_time(labels, settings.time_steps)?;
        let loss = |y: &Tensor, label: &Tensor| loss.forward(y, label);
        let mut learn = |net: &mut OtttSequential| match settings.method {
            Method::Bptt => bptt_training(net, optimizer, &x_seq, &label_seq, loss),
            Method::SlttK => {
                let (k, all) = (settings.k.unwrap_or(settings.time_steps), settings.time_steps);
                let out = sltt_k_training(net, optimizer, &x_seq, &label_seq, loss, k)?;
                // As if over all steps, to compare with the other methods.
                Ok(SequenceOutput { loss: out.loss * (all as f64 / k as f64), ..out })
            }
            method => {
                let update = if method.is_online() { Update::EveryStep } else { Update::EndOfSequence };
                ottt_online_training(net, optimizer, &x_seq, &label_seq, loss, update)
            }
        };
        let out = match monitor {
            Some(monitor) => monitor.watch(net, learn)?,
            None => learn(net)?,
        };
        net.reset();
        Ok(out)
    }

    /// The share of test images whose class has the largest output, summed over time.
    pub fn test(&mut self, data: &Dataset) -> Result<f64> {
        let mut hits = 0.0;
        for (x, labels) in data.test_iter(500).return_smaller_last_batch() {
            let answer = evaluate(&mut self.net, &repeat_over_time(&x, self.settings.time_steps)?)?;
            hits += accuracy(&answer, &labels)? * x.size()[0] as f64;
        }
        Ok(hits / data.test_images.size()[0] as f64)
    }
}

/// The images, each mirrored or not, all of them shifted by up to two pixels.
fn augmented(x: &Tensor) -> Tensor {
    let size = x.size();
    let mirrored = Tensor::rand([size[0], 1, 1, 1], (Kind::Float, Device::Cpu)).lt(0.5).to_device(x.device());
    let x = x.flip([3]).where_self(&mirrored, x);
    let shift = Vec::<i64>::try_from(Tensor::randint(5, [2], (Kind::Int64, Device::Cpu))).unwrap_or_default();
    let padded = x.constant_pad_nd([2, 2, 2, 2]);
    padded.narrow(2, shift[0], size[2]).narrow(3, shift[1], size[3]).contiguous()
}
