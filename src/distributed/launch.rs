//! What a launcher says to the processes it starts, in environment variables.

use crate::error::{Error, Result};

/// Which process this is, and where all meet.
#[derive(Debug, PartialEq)]
pub(super) struct Launch {
    pub(super) rank: i64,
    pub(super) world_size: i64,
    pub(super) master: String,
    pub(super) port: u16,
    /// Whether the launcher runs the store, so that no rank does.
    pub(super) agent_store: bool,
    /// How often the launcher has started all processes again: a restart must not read what is left in the store.
    pub(super) attempt: String,
    /// Whether Gloo is told its network interface.
    pub(super) interface: bool,
}

impl Launch {
    pub(super) fn from_env() -> Result<Self> {
        Self::read(variable)
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let world_size = number(&get, "WORLD_SIZE", 1, i64::from(i32::MAX))?;
        let rank = number(&get, "RANK", 0, world_size - 1)?;
        // A single process meets nobody.
        let alone = world_size == 1;
        let master = match get("MASTER_ADDR").filter(|master| !master.trim().is_empty()) {
            Some(master) => master.trim().to_owned(),
            None if alone => String::new(),
            None => return Err(missing("MASTER_ADDR", "the address of the machine that rank 0 runs on")),
        };
        let port = if alone { 0 } else { number(&get, "MASTER_PORT", 1, i64::from(u16::MAX))? as u16 };
        Ok(Self {
            rank,
            world_size,
            master,
            port,
            agent_store: get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True"),
            attempt: get("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
            interface: get("GLOO_SOCKET_IFNAME").is_some_and(|name| !name.is_empty()),
        })
    }
}

/// Whether a launcher started this process: `RANK` or `WORLD_SIZE` is set.
pub fn is_launched() -> bool {
    ["RANK", "WORLD_SIZE"].into_iter().any(|name| variable(name).is_some())
}

/// This process's number on its own machine (`LOCAL_RANK`): the GPU to take. 0 where no launcher started it.
///
/// # Errors
/// When `LOCAL_RANK` is not a number from 0 on.
pub fn local_rank() -> Result<i64> {
    if !is_launched() {
        return Ok(0);
    }
    number(&variable, "LOCAL_RANK", 0, i64::from(i32::MAX))
}

/// How often this machine's launcher has started its processes again after a failure (torchrun's `--max-restarts`).
pub fn restarts() -> u64 {
    variable("TORCHELASTIC_RESTART_COUNT").and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

fn number(get: &impl Fn(&str) -> Option<String>, name: &str, least: i64, most: i64) -> Result<i64> {
    let range = format!("a whole number from {least} to {most}");
    let text = get(name).ok_or_else(|| missing(name, &range))?;
    let value = text.trim().parse().ok().filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| {
        Error::argument(&format!("the environment variable {name}"), &range, format!("{text:?}"))
    })
}

fn missing(name: &str, expected: &str) -> Error {
    let expected = format!("{expected}; torchrun sets it, and so may you");
    Error::argument(&format!("the environment variable {name}"), &expected, "not set")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: [(&str, &str); 4] =
        [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];

    fn read(changes: &[(&str, Option<&str>)]) -> Result<Launch> {
        Launch::read(|name| {
            let changed = changes.iter().find(|change| change.0 == name).map(|change| change.1);
            let good = GOOD.iter().find(|variable| variable.0 == name).map(|variable| variable.1);
            changed.unwrap_or(good).map(str::to_owned)
        })
    }

    #[test]
    fn four_variables_are_enough() {
        let launch = read(&[]).unwrap();
        let (master, attempt) = ("10.0.0.1".to_owned(), "0".to_owned());
        let expected = Launch {
            rank: 1,
            world_size: 2,
            master,
            port: 29500,
            agent_store: false,
            attempt,
            interface: false,
        };
        assert_eq!(launch, expected);
    }

    #[test]
    fn torchruns_store_and_restarts_are_seen() {
        let torchrun =
            [("TORCHELASTIC_USE_AGENT_STORE", Some("True")), ("TORCHELASTIC_RESTART_COUNT", Some("3"))];
        let launch = read(&torchrun).unwrap();
        assert!(launch.agent_store && launch.attempt == "3");
    }

    #[test]
    fn a_single_process_needs_no_address() {
        let alone =
            [("WORLD_SIZE", Some("1")), ("RANK", Some("0")), ("MASTER_ADDR", None), ("MASTER_PORT", None)];
        assert_eq!(read(&alone).unwrap().world_size, 1);
    }

    #[rstest]
    #[case("RANK", None, "RANK is not set, expected a whole number from 0 to 1; torchrun sets it")]
    #[case("RANK", Some("2"), "RANK is \"2\", expected a whole number from 0 to 1")]
    #[case("RANK", Some("-1"), "RANK is \"-1\"")]
    #[case("RANK", Some("first"), "RANK is \"first\"")]
    #[case("WORLD_SIZE", None, "WORLD_SIZE is not set")]
    #[case("WORLD_SIZE", Some("0"), "WORLD_SIZE is \"0\", expected a whole number from 1")]
    #[case("WORLD_SIZE", Some("99999999999999999999"), "WORLD_SIZE is")]
    #[case("MASTER_ADDR", None, "MASTER_ADDR is not set, expected the address of the machine")]
    #[case("MASTER_ADDR", Some(" "), "MASTER_ADDR is not set")]
    #[case("MASTER_PORT", None, "MASTER_PORT is not set")]
    #[case("MASTER_PORT", Some("0"), "MASTER_PORT is \"0\"")]
    #[case("MASTER_PORT", Some("70000"), "MASTER_PORT is \"70000\", expected a whole number from 1 to 65535")]
    fn what_is_missing_or_makes_no_sense_is_named(
        #[case] name: &str,
        #[case] value: Option<&str>,
        #[case] message: &str,
    ) {
        let text = read(&[(name, value)]).unwrap_err().to_string();
        assert!(text.starts_with(&format!("the environment variable {message}")), "{text}");
    }
}
