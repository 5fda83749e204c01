#!/usr/bin/env bash
# All that must hold before a change lands, cheapest first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

step() { printf '\n== %s\n' "$*"; }
cargo() { "$root/scripts/with-libtorch" cargo "$@"; }

step "scripts parse"
for script in scripts/* .ci/run; do
    case $(head -n 1 "$script") in
        *python3) python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$script" ;;
        *) bash -n "$script" ;;
    esac
done

step "format"
cargo fmt --check

step "files are small"
find src tests examples benches build.rs -name '*.rs' -o -name '*.cpp' -o -name '*.h' | while read -r file; do
    lines=$(wc -l <"$file")
    [ "$lines" -le 400 ] || { echo "$file has $lines lines, more than 400"; exit 1; }
done

step "clippy"
cargo clippy --all-targets -- -D warnings
cargo clippy --lib --no-default-features -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

step "tests"
cargo test

step "examples"
for example in examples/c*.rs examples/torchscript.rs examples/finetune.rs; do
    cargo run --quiet --example "$(basename "$example" .rs)" >/dev/null
done
cargo run --quiet --example train -- --out "$scratch/run" | tee "$scratch/log"
for file in config.json metrics.csv weights.safetensors learning_curve.png raster.png; do
    [ -s "$scratch/run/$file" ] || { echo "the run left no $file"; exit 1; }
done
tail -n 1 "$scratch/log" | awk '/^test accuracy / { found = $3 >= 0.95 } END { exit !found }' ||
    { echo "the digits are learned worse than 0.95"; exit 1; }

step "two processes"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for rank in 0 1; do
    RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
        scripts/with-libtorch target/debug/examples/train --network mlp --epochs 2 --timeout 60 --out "$scratch/two" &
done
wait -n
wait -n
[ "$(wc -l <"$scratch/two/metrics.csv")" = 3 ] || { echo "two processes left no two epochs"; exit 1; }

step "a crate that depends on this one"
mkdir -p "$scratch/downstream/src"
cat >"$scratch/downstream/Cargo.toml" <<TOML
[package]
name = "downstream"
version = "0.0.0"
edition = "2021"

[dependencies]
spiketrace = { path = "$root" }
tch = "*"
TOML
cat >"$scratch/downstream/src/main.rs" <<'RUST'
use spiketrace::{OnlineModule, OtttLifNode};

fn main() -> spiketrace::Result<()> {
    let mut node = OtttLifNode::new(Default::default())?;
    let x = tch::Tensor::from_slice(&[1.5f32, 0.5]).set_requires_grad(true);
    let spike = node.step(&(&x).into(), true)?.into_value();
    spike.sum(tch::Kind::Float).f_backward()?;
    println!("spikes {:?}", Vec::<f32>::try_from(&spike).unwrap());
    Ok(())
}
RUST
# The same versions, so that libtorch's bindings are not built again.
cp Cargo.lock "$scratch/downstream/"
cargo run --quiet --manifest-path "$scratch/downstream/Cargo.toml" --target-dir target |
    grep -F 'spikes [1.0, 0.0]'

step "all checks passed"
