//! Random programs over one network: whatever was done to it in whatever order, it answers as a fresh network in the
//! same state, no tensor that was handed out or in has changed, and no short cut has been noticed.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use proptest::test_runner::TestCaseError;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::train::{
    evaluate, ottt_online_training, repeat_over_time, Checkpoint, Optimizer, OtttTrainingConfig, Sgd,
    SgdConfig, Update,
};
use spiketrace::{Error, LoadConfig, OnlineModule, OtttSequential, Part, Pass, Result, Signal, StateDict};
use tch::{Kind, Reduction, Tensor};

use crate::case::CLASSES;
use crate::cases::{self, quietly};
use crate::network::{build, numbers, Network};
use crate::parts::Bomb;
use crate::program::{programs, Action, Program};

/// A network in use, and all that was seen of it.
struct World<'a> {
    program: &'a Program,
    network: Network,
    bomb: Arc<AtomicBool>,
    optimizer: Sgd,
    batch: i64,
    /// Tensors that went in or came out, with copies of then.
    kept: Vec<(Tensor, Tensor)>,
    states: Vec<Vec<Option<Tensor>>>,
    checkpoints: Vec<Checkpoint>,
    file: PathBuf,
    /// The result of each action: numbers, or an error's text.
    seen: Vec<(String, Vec<Tensor>)>,
}

/// The program's network, with the user's module in the middle.
fn network(program: &Program, bomb: &Arc<AtomicBool>) -> Network {
    let mut network = build(&program.before, &program.size, false, CLASSES, Kind::Double);
    let second = build(&program.after, &[CLASSES], false, CLASSES, Kind::Double);
    let parts = std::mem::replace(&mut network.net, OtttSequential::new());
    network.net = OtttSequential::new().add(parts).add(Bomb(Arc::clone(bomb))).add(second.net);
    network.steps_at_once &= second.steps_at_once;
    network.batch_norm |= second.batch_norm;
    network
}

impl<'a> World<'a> {
    fn new(program: &'a Program, file: PathBuf) -> Self {
        let bomb = Arc::new(AtomicBool::new(false));
        let network = network(program, &bomb);
        let parameters: Vec<Tensor> = network.net.parameters().into_iter().map(|p| p.tensor).collect();
        let config = SgdConfig { lr: 0.01, momentum: 0.5, ..Default::default() };
        let optimizer = Sgd::new(&parameters, config).unwrap();
        Self {
            program,
            network,
            bomb,
            optimizer,
            batch: 2,
            kept: Vec::new(),
            states: Vec::new(),
            checkpoints: Vec::new(),
            file,
            seen: Vec::new(),
        }
    }

    fn keep(&mut self, tensor: &Tensor) {
        self.kept.push((tensor.shallow_clone(), tensor.detach().copy()));
    }

    fn keep_signal(&mut self, signal: &Signal) {
        self.keep(signal.value());
        signal.trace().into_iter().for_each(|trace| self.keep(trace));
    }

    fn numbers(&mut self, front: &[i64], seed: usize) -> Tensor {
        let x = numbers(&[front, &self.program.size[..]].concat(), seed) * 2.0 + 0.6;
        self.keep(&x);
        x
    }

    fn signal(&mut self, steps: i64, constant: bool, seed: usize) -> Signal {
        match constant {
            // The same few again and again, as a stream would show them.
            true => Signal::Constant(self.numbers(&[self.batch], seed % 2)),
            false => Signal::Dense(self.numbers(&[steps * self.batch], seed)),
        }
    }

    fn run(&mut self) {
        for (i, action) in self.program.actions.iter().enumerate() {
            let result = self.act(action, i);
            let seen = match result {
                Ok(tensors) => (String::new(), tensors.iter().map(|t| t.detach().copy()).collect()),
                Err(error) => (error.to_string(), Vec::new()),
            };
            self.seen.push(seen);
        }
    }

    fn act(&mut self, action: &Action, i: usize) -> Result<Vec<Tensor>> {
        match *action {
            Action::Step { train, constant } => {
                let x = self.signal(1, constant, i);
                let y = self.network.net.step(&x, train)?;
                self.keep_signal(&y);
                Ok(vec![y.into_value()])
            }
            Action::Steps { count, constant } => {
                let count = if self.network.steps_at_once { count } else { 1 };
                let x = self.signal(count, constant, i);
                let y = self.network.net.pass(&x, &Pass::new(true).steps(count))?;
                self.keep_signal(&y);
                Ok(vec![y.into_value()])
            }
            Action::Learn { constant } => {
                let x = self.signal(1, constant, i);
                let y = self.network.net.step(&x, true)?;
                self.keep_signal(&y);
                let y = y.into_value();
                (&y * numbers(&y.size(), i)).sum(Kind::Double).f_backward()?;
                Ok(vec![y])
            }
            Action::Sequence { every_step, steps_per_pass, still, fails } => {
                self.sequence(every_step, steps_per_pass, still, fails, i)
            }
            Action::Evaluate => {
                let x = self.numbers(&[self.batch], i);
                Ok(vec![evaluate(&mut self.network.net, &repeat_over_time(&x, 3)?)?])
            }
            Action::Reset => {
                self.network.net.reset();
                Ok(Vec::new())
            }
            Action::Detach => {
                self.network.net.detach();
                Ok(Vec::new())
            }
            Action::Arm => {
                self.bomb.store(true, Ordering::Relaxed);
                Ok(Vec::new())
            }
            Action::Take => {
                let state: Vec<Option<Tensor>> = self.state();
                state.iter().flatten().for_each(|memory| self.keep(memory));
                self.states.push(state);
                Ok(Vec::new())
            }
            Action::Put { which } => {
                if let Some(state) = self.states.get(which) {
                    for (memory, kept) in self.network.net.memories().into_iter().zip(state) {
                        *memory = kept.as_ref().map(Tensor::shallow_clone).into();
                    }
                }
                Ok(Vec::new())
            }
            Action::Save => {
                self.checkpoints.push(Checkpoint::of(&mut self.network.net, &self.optimizer)?);
                Ok(Vec::new())
            }
            Action::Restore { which, by_file } => {
                if let Some(checkpoint) = self.checkpoints.get(which) {
                    if by_file {
                        checkpoint.write(&self.file)?;
                        Checkpoint::read(&self.file)?.restore(&mut self.network.net, &mut self.optimizer)?;
                    } else {
                        checkpoint.restore(&mut self.network.net, &mut self.optimizer)?;
                    }
                }
                Ok(Vec::new())
            }
            Action::BatchSize(batch) => {
                self.batch = batch;
                Ok(Vec::new())
            }
            Action::Move => {
                self.optimizer.step()?;
                self.optimizer.zero_grad().map(|()| Vec::new())
            }
        }
    }

    fn sequence(
        &mut self,
        every_step: bool,
        steps_per_pass: i64,
        still: bool,
        fails: Option<(usize, bool)>,
        i: usize,
    ) -> Result<Vec<Tensor>> {
        let x = match still {
            true => repeat_over_time(&self.numbers(&[self.batch], i), 4)?,
            false => self.numbers(&[self.batch, 4], i),
        };
        let target = numbers(&[self.batch, 4, CLASSES], i + 100);
        self.keep(&target);
        let calls = Cell::new(0);
        let loss = |y: &Tensor, target: &Tensor| {
            calls.set(calls.get() + 1);
            match fails {
                Some((call, true)) if calls.get() == call + 1 => panic!("no loss"),
                Some((call, false)) if calls.get() == call + 1 => Err(Error::Gradient("no loss".into())),
                _ => Ok(y.f_mse_loss(target, Reduction::Mean)?),
            }
        };
        let config = match every_step {
            true => Update::EveryStep.into(),
            false => OtttTrainingConfig {
                update: Update::EndOfSequence,
                steps_per_pass: if self.network.steps_at_once { steps_per_pass } else { 1 },
            },
        };
        let net = &mut self.network.net;
        let out = ottt_online_training(net, &mut self.optimizer, &x, &target, loss, config)?;
        Ok(vec![out.outputs, out.loss])
    }

    fn state(&mut self) -> Vec<Option<Tensor>> {
        self.network.net.memories().into_iter().map(|m| m.get().map(Tensor::shallow_clone)).collect()
    }

    /// Records gradients, weights and state at the end.
    fn finish(&mut self) {
        self.bomb.store(false, Ordering::Relaxed);
        for p in self.network.net.parameters() {
            let grad = p.tensor.grad();
            let (has, grad) = (grad.defined(), if grad.defined() { grad.copy() } else { Tensor::from(0.0) });
            self.seen.push((format!("gradient of {}: {has}", p.name), vec![grad]));
        }
        for p in self.network.net.variables() {
            self.seen.push((p.name, vec![p.tensor.detach().copy()]));
        }
        for memory in self.state() {
            self.seen
                .push((format!("memory: {}", memory.is_some()), memory.iter().map(Tensor::copy).collect()));
        }
    }

    fn expect_nothing_changed(&self) -> std::result::Result<(), String> {
        for (i, (tensor, copy)) in self.kept.iter().enumerate() {
            if !is_equal(&tensor.detach(), copy, 0.0) {
                return Err(format!("tensor {i} that was handed in or out has changed"));
            }
        }
        Ok(())
    }

    /// Brings a fresh network to the same state, and lets both go on.
    fn expect_as_fresh(&mut self) -> std::result::Result<(), String> {
        let bomb = Arc::new(AtomicBool::new(false));
        let mut fresh = network(self.program, &bomb);
        let words = |error: Error| error.to_string();
        let state = StateDict::of(&self.network.net.variables());
        state.load_into(&fresh.net.variables(), LoadConfig::default()).map_err(words)?;
        let memories: Vec<_> = self.state().iter().map(|memory| memory.as_ref().map(Tensor::copy)).collect();
        fresh.net.memories().into_iter().zip(memories).for_each(|(to, from)| *to = from.into());
        for (t, train) in [(0, true), (1, false), (2, true)] {
            let x: Signal = (numbers(&[&[self.batch], &self.program.size[..]].concat(), 50 + t) * 2.0).into();
            let answer = |net: &mut OtttSequential| {
                tch::manual_seed(9);
                net.step(&x, train).map(Signal::into_value).map_err(words)
            };
            match (answer(&mut self.network.net), answer(&mut fresh.net)) {
                (Ok(used), Ok(new)) if is_equal(&used, &new, 1e-12) => {}
                (Err(used), Err(new)) if used == new => return Ok(()),
                (used, new) => return Err(format!("answers {used:?}, a fresh network {new:?}")),
            }
        }
        Ok(())
    }
}

/// Whether two tensors are alike to a share of their size; NaN is alike NaN.
fn is_equal(a: &Tensor, b: &Tensor, share: f64) -> bool {
    if a.size() != b.size() {
        return false;
    }
    let scale = if b.numel() == 0 { 0.0 } else { b.abs().max().double_value(&[]) };
    a.numel() == 0 || a.allclose(b, 0.0, share * (scale + 1e-2), true)
}

fn check(program: &Program) -> std::result::Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let run = |paths, nudge| {
        tch::manual_seed(1);
        with_fast_paths(paths, || {
            let mut world = World::new(program, folder.path().join("checkpoint.safetensors"));
            world.network.nudge(nudge);
            world.run();
            world.finish();
            world
        })
    };
    let (mut fast, mut plain) = quietly(|| (run(FastPaths::default(), 0.0), run(FastPaths::NONE, 0.0)));
    let large = |(_, tensors): &(String, Vec<Tensor>)| {
        let size = |t: &Tensor| t.abs().max().double_value(&[]);
        tensors.iter().any(|t| t.numel() > 0 && (size(t).is_nan() || size(t) >= 300.0))
    };
    if plain.seen.iter().any(large) {
        return Err(TestCaseError::reject("numbers grow out of bounds"));
    }
    // A gradient that is 0 but for rounding, such as one through a normalization of a single number, is as large as it
    // happens to be: whether that is so, weights that are moved by no more than rounding tell.
    let is_rounding = |i: usize| {
        let nudged = quietly(|| run(FastPaths::NONE, 1e-13)).seen;
        let pairs = nudged[i].1.iter().zip(&plain.seen[i].1);
        pairs.into_iter().any(|(nudged, plain)| !is_equal(nudged, plain, 1e-9))
    };
    for (i, (fast, plain)) in fast.seen.iter().zip(&plain.seen).enumerate() {
        let what = || match program.actions.get(i) {
            Some(action) => format!("action {i}, {action:?}"),
            None => format!("at the end, {}", plain.0),
        };
        if fast.0 != plain.0 {
            return Err(TestCaseError::fail(format!("{}: {:?}, not {:?}", what(), fast.0, plain.0)));
        }
        for (fast, plain) in fast.1.iter().zip(&plain.1) {
            if !is_equal(fast, plain, 1e-9) {
                if is_rounding(i) {
                    return Err(TestCaseError::reject("rounding alone moves it as far"));
                }
                return Err(TestCaseError::fail(format!("{}: {fast} instead of {plain}", what())));
            }
        }
    }
    for (name, world, paths) in
        [("fast", &mut fast, FastPaths::default()), ("without fast paths", &mut plain, FastPaths::NONE)]
    {
        let said = |text: String| TestCaseError::fail(format!("{name}: {text}"));
        world.expect_nothing_changed().map_err(said)?;
        with_fast_paths(paths, || world.expect_as_fresh()).map_err(said)?;
    }
    Ok(())
}

#[test]
fn a_network_is_what_its_state_says_whatever_was_done_to_it() {
    cases::run(200, programs(), check);
}
