//! Many processes: this test binary starts itself again, on the loopback interface alone.

use std::path::PathBuf;
use std::time::Duration;

use spiketrace::distributed::ProcessGroup;

mod collectives;
mod equivalence;
mod failures;
mod processes;
mod several_groups;
mod start;

/// One process of a group: what the other tests start.
#[test]
#[ignore = "does nothing by itself"]
fn worker() {
    let Ok(job) = std::env::var(processes::JOB) else { return };
    let folder = PathBuf::from(std::env::var(processes::FOLDER).unwrap());
    tch::set_num_threads(1);
    let (name, argument) = job.split_once(' ').unwrap_or((&job, ""));
    let result = match name {
        "train" => equivalence::job(&group(60.0), &folder),
        "collectives" => collectives::job(&group(60.0)),
        "gradients" => collectives::gradients(&group(60.0)),
        "groups" => several_groups::job(argument, &folder),
        "start" => start::job(&group(20.0), argument, &folder),
        _ => failures::job(name, argument, &folder),
    };
    if let Err(error) = result {
        println!("error: {error}");
        std::process::exit(3);
    }
}

fn group(seconds: f64) -> ProcessGroup {
    ProcessGroup::from_env(Duration::from_secs_f64(seconds)).unwrap()
}
