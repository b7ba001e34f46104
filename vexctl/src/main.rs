//! `vexctl`, and by the name it is called `mkfs.vexfs` and `fsck.vexfs`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
