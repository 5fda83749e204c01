//! Processes that join more than one group.

use std::path::Path;
use std::time::{Duration, Instant};

use rstest::rstest;
use spiketrace::distributed::{Collectives, ProcessGroup};
use spiketrace::Result;

use super::processes::Processes;

pub fn job(how: &str, folder: &Path) -> Result<()> {
    let join = || ProcessGroup::from_env(Duration::from_secs(20));
    let sum =
        |group: &ProcessGroup| group.sum(&[1.0 + group.rank() as f64]).map(|sums| assert_eq!(sums, [3.0]));
    let first = join()?;
    sum(&first)?;
    match how {
        "at a time" => {
            let second = join()?;
            (0..3).try_for_each(|_| sum(&second).and_then(|()| sum(&first)))?;
        }
        "one after another" => {
            drop(first);
            (0..3).try_for_each(|_| sum(&join()?))?;
        }
        // As torchrun's agent: keeps the store until the others have ended.
        "agent" => {
            std::fs::write(folder.join(format!("kept-{}", first.rank())), []).unwrap();
            let start = Instant::now();
            while !(0..2).all(|rank| folder.join(format!("done-{rank}")).exists()) {
                assert!(start.elapsed() < Duration::from_secs(60), "the others never ended");
                std::thread::sleep(Duration::from_millis(10));
            }
            return Ok(());
        }
        _ => panic!("{how}"),
    }
    std::fs::write(folder.join(format!("done-{}", join()?.rank())), []).unwrap();
    Ok(())
}

#[rstest]
fn processes_may_join_several_groups(#[values("at a time", "one after another")] how: &str) {
    Processes::start(2, &format!("groups {how}")).succeed();
}

/// A pair of processes keeps the store for another pair, as torchrun does.
#[rstest]
fn under_torchrun_too(#[values("at a time", "one after another")] how: &str) {
    let processes = Processes::start_with(4, "groups agent", |i, command| {
        command.env("RANK", (i % 2).to_string()).env("WORLD_SIZE", "2");
        match i {
            0 | 1 => command.env("TORCHELASTIC_RESTART_COUNT", "of the agent"),
            _ => command
                .env(super::processes::JOB, format!("groups {how}"))
                .env("TORCHELASTIC_USE_AGENT_STORE", "True"),
        };
    });
    processes.succeed();
}
