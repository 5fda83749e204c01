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
        '#!'*bash*) bash -n "$script" ;;
        *) [[ $script == *.c ]] ;;
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

step "other targets"
scripts/check-arm

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

step "tests"
cargo test

step "tests where OpenMP gives fewer threads than it is asked for"
scripts/check-environment OMP_THREAD_LIMIT=1

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

step "learning rules"
# Stripes in noise in place of clothes: that all learns and adds up is what is tried.
python3 - "$scratch/images" <<'PYTHON'
import pathlib, random, struct, sys

folder = pathlib.Path(sys.argv[1])
folder.mkdir()
random.seed(1)
for part, count in [("train", 256), ("t10k", 64)]:
    labels = bytes(i % 10 for i in range(count))
    stripe = lambda label, i: 24 * ((i * (label + 2) // 28) % 3 == 0)
    images = b"".join(bytes(stripe(label, i) + random.randrange(196) for i in range(784)) for label in labels)
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images)
PYTHON
rules() { cargo run --quiet --example fashion_mnist -- --data-dir "$scratch/images" --out "$scratch/rules" "$@"; }
rules --method ottt-a,ottt-o,ndot-a,ndot-o,sltt,sltt-k,bptt --batch 16 --epochs 2 --seeds 1,2 >/dev/null
rules --preset mlp --stream >/dev/null
rules --preset conv --epochs 1 >"$scratch/log"
python3 - "$scratch" <<'PYTHON'
import csv, pathlib, statistics, sys

scratch = pathlib.Path(sys.argv[1])
rows = list(csv.DictReader(open(scratch / "rules/results.csv")))
assert len(rows) == 15, f"{len(rows)} runs came to their end, of 15"
table = (scratch / "log").read_text(encoding="utf-8")
for method in {row["method"] for row in rows if row["preset"] == "r400"}:
    found = [100 * float(row["test_accuracy"]) for row in rows if (row["preset"], row["method"]) == ("r400", method)]
    assert min(found) >= 50, f"{method} came to {found} percent"
    figure = f"{statistics.mean(found):.2f} ± {statistics.stdev(found):.2f}"
    assert any(f"| {method}, " in line and figure in line for line in table.splitlines()), (method, figure, table)
stream = list(csv.DictReader(open(scratch / "rules/stream.csv")))
assert [(row["batch"], row["seen"]) for row in stream if row["test_accuracy"]] == [("1", "256"), ("64", "256")], stream
PYTHON
for file in learning_curves-r400.png r400-ndot-o-seed2/{config.json,monitor.csv,weights.safetensors,firing_rates.png,raster.png} \
    stream-mlp-ottt-o-seed1/stream.png; do
    [ -s "$scratch/rules/$file" ] || { echo "the rules left no $file"; exit 1; }
done

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
