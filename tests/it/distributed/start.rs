//! What rank 0 has, all have once the group begins.

use std::path::Path;

use rstest::rstest;
use spiketrace::distributed::{Collectives, DataParallel};
use spiketrace::train::{Adam, AdamConfig, Optimizer, Sgd, SgdConfig};
use spiketrace::Result;
use tch::Tensor;

use super::processes::Processes;
use crate::checkpoint::{bits, network, train};

const MOMENTUM: SgdConfig =
    SgdConfig { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false };

/// Rank 0 has trained before. Its optimizer is of the first sort, the others' of the second.
pub fn job(group: &dyn Collectives, sorts: &str, folder: &Path) -> Result<()> {
    let (first, others) = sorts.split_once(' ').unwrap();
    match if group.rank() == 0 { first } else { others } {
        "momentum" => begin(group, folder, |parameters| Sgd::new(parameters, MOMENTUM)),
        "adam" => begin(group, folder, |parameters| Adam::new(parameters, AdamConfig::default())),
        sort => panic!("no optimizer {sort}"),
    }
}

fn begin<O: Optimizer>(
    group: &dyn Collectives,
    folder: &Path,
    optimizer: impl Fn(&[Tensor]) -> Result<O>,
) -> Result<()> {
    tch::manual_seed(group.rank());
    let (vs, mut net) = network();
    let mut optimizer = optimizer(&vs.trainable_variables())?;
    let write = |name: &str, bits: Vec<String>| std::fs::write(folder.join(name), bits.join("\n")).unwrap();
    if group.rank() == 0 {
        (0..3).for_each(|number| train(&mut net, &mut optimizer, number));
        spiketrace::Part::reset(&mut net);
        write("before", bits(&mut net, &optimizer));
    }
    let optimizer = DataParallel::new(group, &net, optimizer)?;
    write(&format!("after-{}", group.rank()), bits(&mut net, &optimizer));
    Ok(())
}

#[rstest]
fn weights_statistics_and_optimizer_of_rank_0_become_those_of_all(#[values("momentum", "adam")] sort: &str) {
    let folder = Processes::start(3, &format!("start {sort} {sort}")).succeed();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let before = read("before");
    assert!(before.contains("0.momentum_buffer") || before.contains("0.exp_avg"), "{before}");
    for rank in 0..3 {
        assert!(read(&format!("after-{rank}")) == before, "rank {rank} has something else");
    }
}

#[rstest]
#[case("momentum adam", "Adam's state")]
#[case("adam momentum", "Sgd's state")]
fn another_optimizer_than_rank_0s_is_an_error_on_all(#[case] sorts: &str, #[case] words: &str) {
    let (endings, _) = Processes::start(3, &format!("start {sorts}")).endings();
    for (rank, ending) in endings.iter().enumerate() {
        let start = format!("error: sharing the optimizer's state failed on rank {rank} of 3: ");
        assert!(ending.text.contains(&start) && ending.text.contains(words), "{ending:#?}");
    }
}
