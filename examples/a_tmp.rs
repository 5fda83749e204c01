//! tmp
fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let t = std::time::Instant::now();
    let s = spiketrace::StateDict::read(args.next().unwrap())?;
    eprintln!("read {} in {:?}", s.len(), t.elapsed());
    if let Some(to) = args.next() { let t = std::time::Instant::now(); s.write(&to)?; eprintln!("wrote {to} in {:?}", t.elapsed()); }
    let st = std::fs::read_to_string("/proc/self/status")?;
    eprintln!("{}", st.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
    Ok(())
}
