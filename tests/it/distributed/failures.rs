//! What goes wrong among processes ends in a sentence, on each of them.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rstest::rstest;
use spiketrace::distributed::{Collectives, DataParallel, ProcessGroup, ReduceOp};
use spiketrace::train::{Optimizer, Sgd, SgdConfig};
use spiketrace::{OtttSequential, Part, Result};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::FLOAT;

use super::group;
use super::processes::{end, Processes};

pub fn job(name: &str, argument: &str, folder: &Path) -> Result<()> {
    match name {
        "join" => ProcessGroup::from_env(seconds(argument)).map(drop),
        "model" => model(argument),
        "order" => order(argument),
        "calls" => calls(argument),
        "steps" => {
            let (last, patience) = argument.split_once(' ').unwrap();
            steps(last.parse().unwrap(), seconds(patience), folder)
        }
        _ => panic!("no job {name}"),
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.parse().unwrap())
}

fn linear(p: nn::Path, inputs: i64, outputs: i64) -> OtttSequential {
    OtttSequential::new().add(nn::linear(p, inputs, outputs, Default::default()))
}

/// Rank 0's optimizer takes the parameters as they come.
fn order(others: &str) -> Result<()> {
    let group = group(20.0);
    let vs = VarStore::new(Device::Cpu);
    let net = linear(vs.root(), 3, 3).add(nn::linear(vs.root() / 1, 3, 3, Default::default()));
    let mut parameters: Vec<Tensor> = net.parameters().into_iter().map(|p| p.tensor).collect();
    match (group.rank(), others) {
        (0, _) => {}
        (_, "order") => parameters.swap(0, 2),
        (_, "fewer") => drop(parameters.pop()),
        _ => panic!("{others}"),
    }
    DataParallel::new(&group, &net, Sgd::new(&parameters, SgdConfig::default())?).map(drop)
}

/// Rank 0 has a network of its own.
fn model(others: &str) -> Result<()> {
    let group = group(20.0);
    let mut vs = VarStore::new(Device::Cpu);
    let net = match (group.rank(), others) {
        (0, _) => linear(vs.root(), 4, 3),
        (_, "shape") => linear(vs.root(), 4, 5),
        (_, "more") => linear(vs.root(), 4, 3).add(nn::linear(vs.root() / 1, 3, 2, Default::default())),
        (_, "less") => {
            let config = nn::LinearConfig { bias: false, ..Default::default() };
            OtttSequential::new().add(nn::linear(vs.root(), 4, 3, config))
        }
        (_, "kind") => {
            let net = linear(vs.root(), 4, 3);
            vs.double();
            net
        }
        _ => panic!("{others}"),
    };
    let sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default())?;
    DataParallel::new(&group, &net, sgd).map(drop)
}

/// Rank 0 calls all_reduce.
fn calls(others: &str) -> Result<()> {
    let group = group(20.0);
    let mut x = Tensor::ones([3], FLOAT);
    let first = match (group.rank(), others) {
        (0, _) => group.all_reduce(&mut x, ReduceOp::Sum),
        (_, "size") => group.all_reduce(&mut Tensor::ones([4000], FLOAT), ReduceOp::Sum),
        (_, "kind") => group.all_reduce(&mut Tensor::ones([3], (Kind::Int64, Device::Cpu)), ReduceOp::Sum),
        (_, "op") => group.all_reduce(&mut x, ReduceOp::Max),
        (_, "broadcast") => group.broadcast(&mut x, 0),
        (_, "barrier") => group.barrier(),
        _ => panic!("{others}"),
    };
    println!("again: {}", group.barrier().unwrap_err());
    first
}

/// Steps without end; `ready-RANK` in the folder tells that some were made. After `last` steps a rank says so.
fn steps(last: i64, patience: Duration, folder: &Path) -> Result<()> {
    let group = ProcessGroup::from_env(patience)?;
    let vs = VarStore::new(Device::Cpu);
    let net = linear(vs.root(), 64, 64);
    let weight = vs.trainable_variables();
    let sgd = Sgd::new(&weight, SgdConfig { lr: 1e-3, ..Default::default() })?;
    let mut optimizer = DataParallel::new(&group, &net, sgd)?;
    for step in 0..last {
        optimizer.zero_grad()?;
        weight.iter().map(|w| w.square().sum(Kind::Float)).reduce(|a, b| a + b).unwrap().f_backward()?;
        optimizer.step()?;
        if step == 10 {
            std::fs::write(folder.join(format!("ready-{}", group.rank())), []).unwrap();
        }
    }
    optimizer.expect_identical()
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

fn wait_until_ready(processes: &Processes) {
    for rank in 0..processes.children.len() {
        let mut patience = 6000;
        while !processes.folder.path().join(format!("ready-{rank}")).exists() {
            patience -= 1;
            assert!(patience > 0, "rank {rank} never began");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[rstest]
#[case::absent(&[0], &[], "joining the group failed on rank 0 of 2: within 1 s there was no rank 1")]
#[case::no_rank_0(&[1], &[], "joining the group failed on rank 1 of 2: nobody listened at MASTER_ADDR:MASTER_PORT 127.0.0.1:")]
#[case::twice(&[0, 1, 1], &[], "two processes have the RANK 1")]
#[case::sizes(&[0, 1], &[("WORLD_SIZE", "3")], "in another process")]
#[case::unknown(&[1], &[("MASTER_ADDR", "nowhere.invalid")], "MASTER_ADDR nowhere.invalid is not known")]
#[case::elsewhere(&[0], &[("MASTER_ADDR", "192.0.2.77")], "rank 0 cannot listen at MASTER_ADDR:MASTER_PORT 192.0.2.77:")]
#[case::not_set(&[0], &[("MASTER_PORT", "")], "the environment variable MASTER_PORT is \"\", expected a whole number")]
fn who_cannot_join_says_why(#[case] ranks: &[usize], #[case] last: &[(&str, &str)], #[case] message: &str) {
    // Who has nobody to wait for gives up soon; those of a group must all have come up until then.
    let job = if ranks.len() == 1 { "join 1" } else { "join 20" };
    let processes = Processes::start_with(ranks.len(), job, |i, command| {
        command.env("RANK", ranks[i].to_string()).env("WORLD_SIZE", ranks.len().max(2).to_string());
        if i == ranks.len() - 1 {
            command.envs(last.iter().copied());
        }
    });
    let (endings, _) = processes.endings();
    assert!(endings.iter().any(|ending| ending.text.contains(message)), "{endings:#?}");
    assert!(endings.iter().all(|ending| ending.text.contains("error: ")), "{endings:#?}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let processes = Processes::start_with(1, "join 1", |_, command| {
        command.env("MASTER_PORT", &port).env("WORLD_SIZE", "2");
    });
    let (endings, _) = processes.endings();
    let text = &endings[0].text;
    assert!(
        text.contains("rank 0 cannot listen at") && text.contains("does an earlier run still go on"),
        "{text}"
    );
}

#[rstest]
#[case("shape", "parameter 0 is 0.weight: Float [5, 4], strides [4, 1] on rank 1, but 0.weight: Float [3, 4], strides [4, 1] on rank 0")]
#[case("more", "parameter 2 is 1.weight: Float [2, 3], strides [3, 1] on rank 1, but nothing on rank 0")]
#[case("less", "parameter 1 is nothing on rank 1, but 0.bias: Float [3], strides [1] on rank 0")]
#[case("kind", "parameter 0 is 0.weight: Double [3, 4]")]
fn ranks_with_different_models_are_told_where_they_differ(#[case] others: &str, #[case] message: &str) {
    let (endings, _) = Processes::start(3, &format!("model {others}")).endings();
    for (rank, ending) in endings.iter().enumerate() {
        let start = format!("error: comparing parameters failed on rank {rank} of 3: {message}");
        assert!(!ending.good && ending.text.contains(&start), "{endings:#?}");
    }
}

#[rstest]
#[case("order", "number 0 of the optimizer, 1.weight: Float [3, 3]")]
#[case("fewer", "is nothing on rank 1, but number 3 of the optimizer, 1.bias: Float [3]")]
fn ranks_whose_optimizers_differ_are_told_where(#[case] others: &str, #[case] message: &str) {
    let (endings, _) = Processes::start(2, &format!("order {others}")).endings();
    for (rank, ending) in endings.iter().enumerate() {
        let start = format!("error: comparing parameters failed on rank {rank} of 2: ");
        assert!(ending.text.contains(&start) && ending.text.contains(message), "{endings:#?}");
    }
}

#[rstest]
fn ranks_that_call_different_things_are_told_so_and_cannot_go_on(
    #[values("size", "kind", "op", "broadcast", "barrier")] others: &str,
) {
    let (endings, _) = Processes::start(2, &format!("calls {others}")).endings();
    for ending in &endings {
        let text = &ending.text;
        assert!(text.contains("another process calls something else here"), "{endings:#?}");
        assert!(
            text.contains("again: barrier failed on rank") && text.contains("the group broke before"),
            "{text}"
        );
    }
    let expected = "error: all_reduce (Sum) of Float [3] failed on rank 0 of 2: another process";
    assert!(endings[0].text.contains(expected), "{endings:#?}");
}

#[test]
fn a_killed_process_is_an_error_on_all_others() {
    let mut processes = Processes::start(3, "steps 1000000000 20");
    wait_until_ready(&processes);
    let mut killed = processes.children[1].take().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    for rank in [0, 2] {
        let ending = end(processes.children[rank].take().unwrap());
        let expected = format!("error: all_reduce (Sum) of gradients, Float [4176] failed on rank {rank} of 3: a process has ended");
        assert!(ending.text.contains(&expected), "{ending:#?}");
    }
}

#[test]
fn a_stopped_process_is_an_error_on_all_others_when_the_time_is_over() {
    let mut processes = Processes::start(3, "steps 1000000000 6");
    wait_until_ready(&processes);
    signal(processes.children[1].as_ref().unwrap(), "STOP");
    for rank in [0, 2] {
        let ending = end(processes.children[rank].take().unwrap());
        let named = ending.text.contains("error: all_reduce (Sum) of gradients, Float [4176] failed on rank");
        // The first to give up ends, and another may see that end.
        let why = ["a process did not come within 6 s", "a process has ended"];
        assert!(named && why.iter().any(|why| ending.text.contains(why)), "{ending:#?}");
    }
}

#[test]
fn a_process_that_makes_more_steps_than_the_others_gets_an_error() {
    let processes = Processes::start_with(2, "steps 20 20", |rank, command| {
        if rank == 1 {
            command.env(super::processes::JOB, "steps 21 20");
        }
    });
    let (endings, _) = processes.endings();
    // Its bytes meet those of the others' comparison: an error on one of them, or Gloo ends a process.
    let told = |text: &str| text.contains("of gradients") || text.contains("broadcast from rank 0");
    let bad: Vec<_> = endings.iter().filter(|ending| !ending.good).collect();
    assert!(bad.iter().any(|ending| told(&ending.text)), "{endings:#?}");
}

#[test]
fn a_stranger_at_the_stores_port_changes_nothing() {
    let processes = Processes::start(2, "steps 3000 20");
    // From the first moment on.
    let (mut sent, start) = (0, Instant::now());
    while sent < 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "only {sent} messages reached the store");
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", processes.port)) else { continue };
        let garbage: Vec<u8> = (0..997usize).map(|i| (i * 131 + sent * 7919) as u8).collect();
        let requests: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[0xff; 4096], &garbage];
        let _ = stream.write_all(requests[sent % 4]);
        sent += 1;
    }
    processes.succeed();
}
