//! Starts this test binary again as the processes of a group.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a worker is to do, and where it leaves what it found.
pub const JOB: &str = "SPIKETRACE_TEST_JOB";
pub const FOLDER: &str = "SPIKETRACE_TEST_FOLDER";

/// Longer than anything takes: a test that hangs ends with an error.
const PATIENCE: Duration = Duration::from_secs(240);

/// The processes of a group, killed when dropped.
pub struct Processes {
    pub children: Vec<Option<Child>>,
    pub folder: TempDir,
    pub port: u16,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ending {
    pub good: bool,
    pub text: String,
}

impl Processes {
    /// Ranks 0 .. n, all with the same job.
    pub fn start(n: usize, job: &str) -> Self {
        Self::start_with(n, job, |_, _| {})
    }

    /// The same with a say in each one's environment.
    pub fn start_with(n: usize, job: &str, change: impl Fn(usize, &mut Command)) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let start = |rank| {
            let mut command = worker(job, folder.path());
            command
                .env("RANK", format!("{rank}"))
                .env("WORLD_SIZE", n.to_string())
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", port.to_string());
            change(rank, &mut command);
            Some(command.spawn().unwrap())
        };
        Self { children: (0..n).map(start).collect(), folder, port }
    }

    /// Waits until all have ended.
    pub fn endings(mut self) -> (Vec<Ending>, TempDir) {
        let endings = self.children.iter_mut().map(|child| end(child.take().unwrap())).collect();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (endings, folder)
    }

    /// Waits until all have ended well.
    pub fn succeed(self) -> TempDir {
        let (endings, folder) = self.endings();
        assert!(endings.iter().all(|ending| ending.good), "{endings:#?}");
        folder
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn worker(job: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "distributed::worker", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(JOB, job).env(FOLDER, folder).env("OMP_NUM_THREADS", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it said is small enough for the pipes.
pub fn end(mut child: Child) -> Ending {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ending { good: status.success(), text }
}
